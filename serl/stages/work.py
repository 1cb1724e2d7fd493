"""One attempt at one shard: what a stage function is told, and what it may ask about the weights of
others.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from serl.config.base import Checkpoint
from serl.config.engine import Engine
from serl.engines.hf_folder import model_folder
from serl.run.attempt import Attempt, Helped, Overtaken
from serl.run.events import Events
from serl.run.rundir import OVER, Manifest, Run, RunError, Shard
from serl.run.signals import Stop
from serl.run.watchdog import Watchdog
from serl.stages.kind import POLICY, Stage

POLICY_FOLDER = "policy"  # of a training, inside its stage's folder
DOCUMENTS, TOKENIZER = "documents.parquet", "tokenizer"  # of the base model's world, inside `corpus_dir`


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One attempt at one shard: all that a stage function is told.

    `place` is what the start event adds for accounting: host, GPUs, ranks ... `rank` of `ranks`: which
    process of its job this is; those of a generating stage share the parts of a shard. `cache_gib` is an
    engine's share of a machine without GPUs.
    """

    run: Run
    shard: Shard
    attempt_id: str
    device: str
    cores: int
    events: Events
    stop: Stop
    watchdog: Watchdog = dataclasses.field(default_factory=Watchdog)
    place: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    rank: int = 0
    ranks: int = 1
    cache_gib: float | None = None

    @property
    def stage(self) -> Stage:
        return self.run.config.stage(self.shard.round, self.shard.stage)

    @property
    def held(self) -> Engine:
        """How vLLM holds the weights; its cache is its share of the machine, where nothing was said of it."""
        engine = self.stage.kind.held(self.stage.section, self.run.config)
        if engine.kv_cache_gib is not None or self.cache_gib is None:
            return engine
        return engine.model_copy(update={"kv_cache_gib": self.cache_gib})

    def phase(self, name: str) -> None:
        """Say what comes now, to whoever watches for hangs."""
        self.watchdog.phase(name)

    def attempt(self, inputs: Mapping[str, str]) -> Attempt:
        return Attempt(self.run, self.shard, id=self.attempt_id, inputs=inputs)

    def progress(self, done: int, total: int, unit: str) -> None:
        self.events.add("progress", done=done, total=total, unit=unit)

    def weights(self, role: str) -> tuple[Path, str]:
        """The weights that a role has when this stage begins, or that it had at the milestone which the stage
        looks at, and their digest.
        """
        trained = self.run.config.trained(self.stage, role)
        if trained and trained.milestone:
            return _weights(self.run, [trained], role)
        before = (s for s in self.run.config.before(self.stage) if role in s.weights)
        return _weights(self.run, before, role)

    def skip(self, milestones: Iterable[Stage]) -> None:
        """Publish as empty what a training did not come to along the way."""
        for stage in milestones:
            (shard,) = self.run.shards(stage.round, stage.name)
            if not self.run.done(shard):
                Attempt(self.run, shard, id=self.attempt_id, inputs={}).publish([], {OVER: 1.0})


def execute(work: Work) -> Manifest | None:
    """Run the shard's stage unless it is done already; every rank of a training job returns the manifest that
    rank 0 published, one that only helped to generate none.
    """
    kind, done = work.stage.kind, work.run.manifest(work.shard)
    if done is not None and not kind.ranks:  # ranks look together, lest one leaves the others waiting
        return done
    shard, where = work.shard, {"device": work.device} | work.place
    told = {"stage": shard.stage, "round": shard.round, "index": shard.index, "attempt": work.attempt_id}
    work.events.add("start", **told, **where)
    if over(work.run, work.stage):
        work.skip(work.run.config.milestones(work.stage))
        manifest = work.attempt({}).publish([], {OVER: 1.0})
        work.events.add("done", seconds=manifest.seconds)
        return manifest
    work.phase("import")
    module = kind.module("run")
    assert module is not None, f"{kind.package} has no run.py"
    work.phase("prepare")
    try:
        manifest = module.run(work)
    except Helped:
        work.events.add("done", seconds=0.0)
        return None
    except Overtaken:
        winner = work.run.manifest(work.shard)
        assert winner is not None, f"{work.shard}: published, and then not there"
        work.events.add("overtaken", by=winner.attempt)
        return winner
    work.phase("end")
    if manifest.attempt != work.attempt_id and not kind.ranks:  # another published while we were at the last
        work.events.add("overtaken", by=manifest.attempt)
    else:
        work.events.add("done", seconds=manifest.seconds)
    return manifest


def over(run: Run, stage: Stage) -> bool:
    """Whether the stage's phase had come to its end (`until`) before its round, or its training before its
    milestone.
    """
    if stage.maker != stage.job:
        return bool(run.complete(stage.round, stage.listed))  # its training has ended without it
    if stage.milestone:
        read = [s for s in stage.kind.reads(stage, run.config) if s.milestone]
        return any(m.over for s in read for m in run.complete(s.round, s.name))
    teller = run.config.ended_by(stage)
    if teller is None:
        return False
    _, phase, _ = run.config.phase(stage.round)
    manifests = run.complete(teller.round, teller.name)
    return any(m.over or m.counts.get(phase.until or "", 0.0) for m in manifests)


def corpus_dir(run: Run) -> Path:
    """Where the base model's world is published: tokenizer, documents, seeds, labelled problems and
    benchmarks.

    Of a base model that was not made here, a folder that nobody makes.
    """
    made = run.config.giving(0, "documents")
    return run.stage_dir(0, made.name) / "data" if made else run.root / "nothing"


def policy_dir(run: Run, round: int, role: str = POLICY) -> tuple[Path, str]:
    """The weights that a role has after a round, and their digest; refuses while they are not there."""
    stages = (s for s in reversed(run.config.stages) if s.round <= round and role in s.weights)
    return _weights(run, stages, role)


def _weights(run: Run, trainings: Iterable[Stage], role: str) -> tuple[Path, str]:
    """What the nearest of these published of the role, which come nearest first; else the base model's."""
    for stage in trainings:
        (manifest,) = run.complete(stage.round, stage.name)
        folder = run.stage_dir(stage.round, stage.name) / POLICY_FOLDER
        if stage.milestone and not manifest.over and not folder.is_dir():
            raise RunError(
                f"{folder}: removed since it was looked at (jobs.gc does that); restore it, or leave what "
                "was found of it"
            )
        if not manifest.over:
            return folder / stage.kind.weights(stage.section)[role], manifest.digest
    base = run.config.base
    if not isinstance(base, Checkpoint):  # a role that nobody has trained begins as the base
        assert role != POLICY, "a base that is made here is the first training of the policy"
        return policy_dir(run, 0)
    folder = model_folder(base.path, run.data_root)
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder}: no config.json; base.path must be a Hugging Face model folder")
    return folder, base.path
