"""branch: what the states of stored answers are worth, by rollouts from the beginning of each step."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise

from evaluation.judging import Judge
from serl.engines.generator import Generator
from serl.randomness import part_of
from serl.records import Group, from_jsonl, share, to_jsonl
from serl.rewards.kinds import Earnings
from serl.run.rundir import Manifest
from serl.stages import read
from serl.stages.answering import Asking
from serl.stages.branch.spec import KIND
from serl.stages.branching import rollouts, tree_of, values
from serl.stages.parts import in_parts, sampling_from
from serl.stages.work import Work
from serl.text.steps import Pieces


def run(work: Work) -> Manifest:
    """Publish `.jsonl`: of each group its id and, for each of its answers, the steps and their values."""
    section, config = work.stage.section, work.run.config
    source = KIND.data(work.stage, config)
    assert source is not None, "checked with the configuration"
    policy, digest = work.weights(section.role)
    manifests = work.run.complete(source.round, source.name)
    inputs = {f"{source.name}/r{source.round:03d}/{m.shard.index:05d}": m.digest for m in manifests}
    attempt = work.attempt({section.role: digest} | inputs)
    groups = [g for g in read.groups(work.run, source, completions=True) if g.own]
    groups = part_of(groups, section.questions, config.seed)
    mine = share(groups, work.shard.index, work.shard.count)
    judging = Judge(config.answers, workers=work.cores, limit_s=section.limit_s)
    with judging as reader, Earnings(section.reward) as earnings:
        asking = Asking(
            seed=config.seed, round=work.shard.round, stage=work.shard.stage, prompts=config.prompts,
            sampling=KIND.sampling(work.stage, config), samples=section.rollouts, earnings=earnings,
        )  # fmt: skip

        def part(engine: Generator, chosen: Sequence[Group]) -> bytes:
            pieces = Pieces(engine.tokenizer)
            tree = tree_of(chosen, pieces, section.steps)
            continued = rollouts(engine, tree.states, asking)
            walks = tree.walks(values(tree.states, continued, pieces, reader, asking))
            ends = accumulate((len(g.completions) for g in chosen), initial=0)
            spans = zip(chosen, pairwise(ends), strict=True)
            return to_jsonl({"id": g.id, "walks": list(map(asdict, walks[a:b]))} for g, (a, b) in spans)

        load = sampling_from(work, policy)
        data = b"".join(in_parts(work, attempt, load, mine, section.part_prompts, "questions", part))
    walks = [walk for row in from_jsonl(data) for walk in row["walks"]]
    counts = {
        "groups": len(mine),
        "answers": len(walks),
        "answers_whole": sum(len(w["cuts"]) == 1 for w in walks),
        "steps": sum(len(w["cuts"]) for w in walks),
    }
    return attempt.publish_bytes(".jsonl", data, len(mine), counts)
