"""What stages left, as records: the readers that other stages, reports and the browser share.

A round after the end of its phase left nothing, which is no error.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from serl.config.run import RunConfig
from serl.records import (
    Candidate,
    Group,
    Pair,
    Problem,
    from_jsonl,
    groups_from_parquet,
    pairs_from_parquet,
    to_jsonl,
)
from serl.rewards.spec import voted
from serl.rewards.vote import fate
from serl.run.rundir import Manifest, Run
from serl.stages.kind import Stage

KEPT = "kept.jsonl"  # inside a published policy
TURNS = ".turns.parquet"  # beside it: the groups that a training has sampled for itself
EVERYTHING = (0.0, 1.0)


def left(run: Run, stage: Stage) -> list[Manifest]:
    """The manifests of a stage that is done, without those that stand for nothing."""
    return [m for m in run.complete(stage.round, stage.name) if not m.over]


def candidates(run: Run, manifests: Sequence[Manifest]) -> list[Candidate]:
    """Those that passed the quality rules, of all these shards in order."""
    rows = (Candidate(**row) for m in manifests for row in from_jsonl(run.read(m)))
    return [c for c in rows if c.rejection is None]


def problems(run: Run, stage: Stage) -> list[Problem]:
    """What a stage kept of instructions, in order."""
    return [Problem(**row) for m in left(run, stage) for row in from_jsonl(run.read(m))]


def groups(run: Run, stage: Stage, *, completions: bool) -> list[Group]:
    """All groups of a stage, in order; see `groups_from_parquet`."""
    found = left(run, stage)
    return [g for m in found for g in groups_from_parquet(run.read(m), completions=completions)]


def pairs(run: Run, stage: Stage) -> list[Pair]:
    """All pairs of a stage, in order."""
    return [p for m in left(run, stage) for p in pairs_from_parquet(run.read(m))]


def scores(run: Run, stage: Stage) -> dict[str, Sequence[float]]:
    """What a stage's model gave each answer of a group, or pair, by its id."""
    rows = (row for m in left(run, stage) for row in from_jsonl(run.read(m)))
    return {row["id"]: row["scores"] for row in rows}


def turn_files(run: Run, round: int) -> list[tuple[Stage, Path]]:
    """The groups that trainings of a round have sampled for themselves, a file each."""
    stages = [s for s in run.config.at(round) if s.role]
    done = [(s, m) for s in stages for shard in run.shards(round, s.name) if (m := run.manifest(shard))]
    return [(s, run.path(m, f)) for s, m in done for f in m.files if f.name.endswith(TURNS)]


def round_groups(run: Run, round: int, *, completions: bool) -> list[Group]:
    """The groups that a round's policy is trained on, or else the first that the round has."""
    stage = run.config.judged(round) or run.config.giving(round, "groups")
    return groups(run, stage, completions=completions) if stage else []


def band(config: RunConfig, round: int) -> tuple[tuple[float, float], bool]:
    """The shares of rewarded answers between which a round's groups are trained on, and whether the vote
    decides that.

    All shares where the round trains on no groups, or by a kind without a band.
    """
    judged, training = config.judged(round), config.training(round)
    shares = getattr(training.section, "agreement", EVERYTHING) if training and judged else EVERYTHING
    source = judged or config.giving(round, "groups")
    reward = getattr(source.section, "reward", None) if source else None
    return shares, reward is None or voted(reward)


def trainable(training: Stage, source: Stage, found: Sequence[Group]) -> tuple[list[Group], Counter[str]]:
    """Of the groups of `source` those that `training` learns from, and the fate of all."""
    return in_band(training.section.agreement, found, by_vote=voted(source.section.reward))


def in_band(
    agreement: tuple[float, float], found: Sequence[Group], *, by_vote: bool
) -> tuple[list[Group], Counter[str]]:
    """The groups of which a share within `agreement` is rewarded, and the fate of all."""
    own = [g for g in found if g.own]
    fates = [fate(g, *agreement, voted=by_vote) for g in own]
    return [g for g, f in zip(own, fates) if f == "kept"], Counter(fates)


def write_kept(policy: Path, kept: Sequence[Group]) -> None:
    """Put the round's instructions that passed the difficulty filter beside its policy: later rounds propose
    from them, in many shards each.
    """
    (policy / KEPT).write_bytes(to_jsonl(Problem(id=g.id, question=g.question) for g in kept))


def kept_questions(run: Run, *, before: int) -> tuple[list[str], dict[str, str]]:
    """Instructions of earlier rounds that passed the difficulty filter, and the digests of the files that say
    so.
    """
    questions: dict[str, None] = {}
    inputs: dict[str, str] = {}
    for round in range(1, before):
        training = run.config.training(round)
        for trained in left(run, training) if training else ():
            file = next((f for f in trained.files if f.name == f"policy/{KEPT}"), None)
            if file is None:
                continue
            inputs[f"kept/round_{round:03d}"] = file.sha256[:16]
            questions |= dict.fromkeys(row["question"] for row in from_jsonl(run.read(trained, file)))
    return list(questions), inputs
