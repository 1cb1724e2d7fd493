"""respond: N answers to each instruction, the vote over them, and their rewards."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.answers import extract
from evaluation.verifier import Verifier
from serl.engines import generator
from serl.randomness import rng_of, seed_of
from serl.records import (
    Completion,
    Group,
    Problem,
    from_jsonl,
    groups_from_parquet,
    groups_to_parquet,
    share,
    to_jsonl,
)
from serl.rewards.kinds import rewards
from serl.rewards.vote import fate, vote
from serl.run.rundir import Manifest, Run
from serl.stages import Work, corpus_dir, policy_dir
from serl.stages.parts import in_parts
from serl.text.problems import fingerprint, load_problems
from serl.text.prompts import question_prompt

KEPT = "kept.jsonl"  # inside a published policy


def run(work: Work) -> Manifest:
    """Publish `groups.parquet`: one row per instruction or anchor, complete with token ids, votes and rewards."""
    config = work.run.config
    section = config.respond
    assert section is not None, "a respond shard is planned only for runs that respond"
    policy, digest = policy_dir(work.run, work.shard.round - 1)
    tasks, inputs = questions(work.run, work.shard.round)
    attempt = work.attempt({"policy": digest} | inputs)
    mine = share(tasks, work.shard.index, work.shard.count)
    with Verifier(workers=work.cores, limit_s=section.limit_s) as verifier:

        def part(engine: generator.Generator, tasks: Sequence[tuple[str, Problem]]) -> bytes:
            return groups_to_parquet(_answer(work, engine, verifier, tasks))

        parts = in_parts(work, attempt, policy, mine, section.part_prompts, "questions", part)
    groups = [g for data in parts for g in groups_from_parquet(data)]
    return attempt.publish_bytes(
        ".parquet", groups_to_parquet(groups), len(groups), _counts(groups, len(mine))
    )


def questions(run: Run, round: int) -> tuple[list[tuple[str, Problem]], dict[str, str]]:
    """What the round answers, as (role, problem) in a fixed order, with the digests of where it comes from."""
    config = run.config
    section = config.respond
    assert section is not None
    inputs: dict[str, str] = {}
    if section.problems is None:
        (curated,) = run.complete(round, "curate")
        inputs["curate"] = curated.digest
        problems = [Problem(**row) for row in from_jsonl(run.read(curated))]
    else:
        source = load_problems(section.problems.source, data_root=run.data_root, corpus=corpus_dir(run))
        inputs["problems"] = fingerprint(source)
        problems = _draw(source, section.problems.per_round, config.seed, round)
    tasks = [("train", p) for p in problems]
    if section.anchors:
        assert config.seeds is not None
        seeds = load_problems(config.seeds, data_root=run.data_root, corpus=corpus_dir(run))
        inputs["seeds"] = fingerprint(seeds)
        chosen = rng_of(config.seed, "anchors").sample(seeds, min(section.anchors, len(seeds)))
        tasks += [("anchor", Problem(id=f"anchor-{p.id}", question=p.question, gold=p.gold)) for p in chosen]
    return tasks, inputs


def _draw(source: list[Problem], per_round: int, seed: int, round: int) -> list[Problem]:
    """The round's stretch of an endless sequence of seeded shuffles: every problem is used once before any is used twice."""
    start = (round - 1) * per_round
    chosen = []
    for position in range(start, start + per_round):
        lap, place = divmod(position, len(source))
        if place == 0 or not chosen:
            order = rng_of(seed, "problems", lap).sample(range(len(source)), len(source))
        problem = source[order[place]]
        chosen.append(
            Problem(id=f"r{round:03d}-{position - start:06d}", question=problem.question, gold=problem.gold)
        )
    return chosen


def _answer(
    work: Work, engine: generator.Generator, verifier: Verifier, tasks: Sequence[tuple[str, Problem]]
) -> list[Group]:
    config, round = work.run.config, work.shard.round
    section = config.respond
    assert section is not None
    encoded = [(role, p, question_prompt(engine.tokenizer, config.prompts, p.question)) for role, p in tasks]
    fitting = [
        (role, p, ids)
        for role, p, ids in encoded
        if len(ids) + section.sampling.max_tokens <= engine.max_model_len
    ]
    outputs = engine.generate(
        [ids for _, _, ids in fitting],
        section.sampling,
        num_samples=section.samples,
        seeds=[seed_of(config.seed, round, "respond", p.id) for _, p, _ in fitting],
    )
    return judge(
        work.run, round, [(role, p, ids, out) for (role, p, ids), out in zip(fitting, outputs)], verifier
    )


def judge(
    run: Run,
    round: int,
    answered: Sequence[tuple[str, Problem, list[int], tuple[Completion, ...]]],
    verifier: Verifier,
) -> list[Group]:
    """Extract, vote and reward. A truncated completion gives no answer: it has not finished speaking."""
    section = run.config.respond
    assert section is not None
    answers = [
        [extract(c.text) if c.finish_reason == "stop" else None for c in out] for _, _, _, out in answered
    ]
    classes = verifier.classes_many(answers)
    known = [(i, p.gold) for i, (_, p, _, _) in enumerate(answered) if p.gold is not None]
    verdicts = iter(verifier.judge([(gold, a) for i, gold in known for a in answers[i]]))
    correct: dict[int, list[bool | None]] = {
        i: [_truth(next(verdicts)) for _ in answers[i]] for i, _ in known
    }
    groups = []
    for i, (role, p, ids, out) in enumerate(answered):
        labels = classes[i].labels
        result = vote(labels)
        truth = correct.get(i, [None] * len(out))
        groups.append(
            Group(
                id=p.id, role=role, question=p.question, gold=p.gold, prompt_ids=tuple(ids), completions=out, answers=tuple(answers[i]),
                labels=labels, winner=result.winner, tie=result.tie, undecided=classes[i].num_undecided, agreement=result.agreement, margin=result.margin,
                winner_correct=None if p.gold is None or result.winner is None else truth[labels.index(result.winner)],
                rewards=rewards(section.reward, labels=labels, winner=result.winner, correct=truth, rng=rng_of(run.config.seed, round, "reward", p.id)),
            )
        )  # fmt: skip
    return groups


def _truth(verdict: str) -> bool | None:
    return {"correct": True, "wrong": False}.get(verdict)


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


def round_groups(run: Run, round: int, *, completions: bool) -> list[Group]:
    """All groups of a round, in order; see `groups_from_parquet`."""
    return [
        g
        for m in run.complete(round, "respond")
        for g in groups_from_parquet(run.read(m), completions=completions)
    ]


def trainable(run: Run, groups: Sequence[Group]) -> tuple[list[Group], Counter[str]]:
    """The groups that are trained on, and the fate of all."""
    train, respond = run.config.train, run.config.respond
    assert train is not None and respond is not None
    own = [g for g in groups if g.role == "train"]
    fates = [fate(g, *train.agreement, voted=respond.reward.kind == "majority") for g in own]
    return [g for g, f in zip(own, fates) if f == "kept"], Counter(fates)


def write_kept(policy: Path, kept: Sequence[Group]) -> None:
    """Put the round's instructions that passed the difficulty filter beside its policy: later rounds propose from them, in many shards each."""
    (policy / KEPT).write_bytes(to_jsonl(Problem(id=g.id, question=g.question) for g in kept))


def kept_questions(run: Run, *, before: int) -> tuple[list[str], dict[str, str]]:
    """Instructions of earlier rounds that passed the difficulty filter, and the digests of the files that say so."""
    questions: dict[str, None] = {}
    inputs: dict[str, str] = {}
    for round in range(1, before):
        (trained,) = run.complete(round, "train")
        (file,) = (f for f in trained.files if f.name == f"policy/{KEPT}")
        inputs[f"kept/round_{round:03d}"] = file.sha256[:16]
        questions |= dict.fromkeys(row["question"] for row in from_jsonl(run.read(trained, file)))
    return list(questions), inputs
