"""respond: N answers to each instruction, the vote over them, and their rewards."""

from collections import Counter
from collections.abc import Sequence

from evaluation.judging import Judge
from serl.engines.generator import Generator
from serl.randomness import rng_of
from serl.records import ANCHOR, Group, Problem, groups_from_parquet, groups_to_parquet, share
from serl.rewards.kinds import Earnings
from serl.run.rundir import Manifest
from serl.stages import read
from serl.stages.answering import Asking, answer, draw, thoughts_of
from serl.stages.parts import in_parts, sampling_from
from serl.stages.respond.spec import KIND
from serl.stages.work import Work, corpus_dir
from serl.text.problems import fingerprint, load_problems

OWN = "train"  # the role of a question of the round


def run(work: Work) -> Manifest:
    """Publish `groups.parquet`: one row per instruction or anchor, complete with token ids, votes and
    rewards.
    """
    config, section = work.run.config, work.stage.section
    policy, digest = work.weights(section.role)
    tasks, inputs = questions(work)
    attempt = work.attempt({"policy": digest} | inputs)
    mine = share(tasks, work.shard.index, work.shard.count)
    judging = Judge(config.answers, workers=work.cores, limit_s=section.limit_s)
    with judging as reader, Earnings(section.reward) as earnings:
        asking = Asking(
            seed=config.seed, round=work.shard.round, stage=work.shard.stage, prompts=config.prompts,
            sampling=section.sampling, samples=section.samples, earnings=earnings,
        )  # fmt: skip

        def part(engine: Generator, tasks: Sequence[tuple[str, Problem]]) -> bytes:
            return groups_to_parquet(answer(engine, reader, tasks, asking))

        load = sampling_from(work, policy)
        parts = in_parts(work, attempt, load, mine, section.part_prompts, "questions", part)
    groups = [g for data in parts for g in groups_from_parquet(data)]
    thoughts = thoughts_of(groups, config.answers)
    return attempt.publish_bytes(
        ".parquet", groups_to_parquet(groups), len(groups), _counts(groups, len(mine)) | thoughts
    )


def questions(work: Work) -> tuple[list[tuple[str, Problem]], dict[str, str]]:
    """What the round answers, as (role, problem) in a fixed order, with the digests of where it comes
    from.
    """
    run, config, section = work.run, work.run.config, work.stage.section
    inputs: dict[str, str] = {}
    if source := KIND.asked(work.stage, config):
        (curated,) = run.complete(source.round, source.name)
        inputs[source.name] = curated.digest
        problems = read.problems(run, source)
    else:
        found = load_problems(section.problems.source, data_root=run.data_root, corpus=corpus_dir(run))
        inputs["problems"] = fingerprint(found)
        problems = draw(found, section.problems.per_round, config.seed, work.shard.round)
    tasks = [(OWN, p) for p in problems]
    if section.anchors:
        assert config.seeds is not None
        seeds = load_problems(config.seeds, data_root=run.data_root, corpus=corpus_dir(run))
        inputs["seeds"] = fingerprint(seeds)
        chosen = rng_of(config.seed, "anchors").sample(seeds, min(section.anchors, len(seeds)))
        tasks += [(ANCHOR, Problem(id=f"anchor-{p.id}", question=p.question, gold=p.gold)) for p in chosen]
    return tasks, inputs


def _counts(groups: Sequence[Group], num_questions: int) -> dict[str, float]:
    """What the shard's answers were like; the round's figures are computed from the groups themselves."""
    answers: Counter[str] = Counter(questions=num_questions, too_long=num_questions - len(groups))
    for g in groups:
        silent = sum(label is None for label in g.labels)
        truncated = sum(c.finish_reason != "stop" for c in g.completions)
        answers.update(
            completions=len(g.labels),
            truncated=truncated,
            undecided=g.undecided,
            unparsed=silent - truncated - g.undecided,
        )
        answers.update(tokens=sum(len(c.token_ids) for c in g.completions))
    return dict(answers)
