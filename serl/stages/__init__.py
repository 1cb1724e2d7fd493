"""The stages of a round: each an idempotent function of (run, shard) that publishes its shard. They know nothing of scheduling."""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path

from serl.config.base import Checkpoint
from serl.engines.hf_folder import model_folder
from serl.run.attempt import Attempt, Overtaken
from serl.run.events import Events
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.run.signals import Stop
from serl.run.watchdog import Watchdog


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One attempt at one shard: all that a stage function is told."""

    run: Run
    shard: Shard
    attempt_id: str
    device: str
    cores: int
    events: Events
    stop: Stop
    watchdog: Watchdog = dataclasses.field(default_factory=Watchdog)
    place: Mapping[str, str | float] = dataclasses.field(
        default_factory=dict
    )  # host, GPUs, ranks ...: what the start event adds for accounting

    def phase(self, name: str) -> None:
        """Say what comes now, to whoever watches for hangs."""
        self.watchdog.phase(name)

    def attempt(self, inputs: Mapping[str, str]) -> Attempt:
        return Attempt(self.run, self.shard, id=self.attempt_id, inputs=inputs)

    def progress(self, done: int, total: int, unit: str) -> None:
        self.events.add("progress", done=done, total=total, unit=unit)


def execute(work: Work) -> Manifest:
    """Run the shard's stage unless it is done already; every rank of a training job returns the manifest that rank 0 published."""
    done = work.run.manifest(work.shard)
    if (
        done is not None and work.shard.stage != "train"
    ):  # the ranks of a training job look together, lest one leaves the others waiting
        return done
    where = {"device": work.device} | work.place
    work.events.add(
        "start",
        stage=work.shard.stage,
        round=work.shard.round,
        index=work.shard.index,
        attempt=work.attempt_id,
        **where,
    )
    work.phase("import")
    module = importlib.import_module(f"serl.stages.{work.shard.stage}.run")
    work.phase("prepare")
    try:
        manifest: Manifest = module.run(work)
    except Overtaken:
        winner = work.run.manifest(work.shard)
        assert winner is not None, f"{work.shard}: published, and then not there"
        work.events.add("overtaken", by=winner.attempt)
        return winner
    work.phase("end")
    work.events.add("done", seconds=manifest.seconds)
    return manifest


def corpus_dir(run: Run) -> Path:
    """Where the corpus stage publishes: tokenizer, documents, seeds, labelled problems and benchmarks."""
    return run.stage_dir(0, "corpus") / "data"


def policy_dir(run: Run, round: int) -> tuple[Path, str]:
    """The weights that round `round` published, and their digest; refuses while they are not there."""
    if round == 0 and isinstance(run.config.base, Checkpoint):
        folder = model_folder(run.config.base.path, run.data_root)
        if not (folder / "config.json").is_file():
            raise RunError(f"{folder}: no config.json; base.path must be a Hugging Face model folder")
        return folder, run.config.base.path
    (manifest,) = run.complete(round, "train")
    return run.stage_dir(round, "train") / "policy", manifest.digest
