"""What runs on a cluster have taken, so that the next one can be planned:
`<data>/calibration/CLUSTER/MODEL.json` holds a row for each stage and round of a run,
`<data>/calibration/CLUSTER.json` a row for each run: how often nodes were taken away.

Rows are learned whenever a run's report is written, again for the same run in place of before. Work is
measured in pieces of a size (sampled tokens, tokens of an optimizer step, documents, candidates), so that
other shard counts, lengths and batches can be planned from it.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter

from jobs.costs.measured import Pieces, Row, Seen, rows, seen_by
from jobs.costs.tasks import HOUR_S, TakingRate
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Scratch
from serl.config.run import RunConfig
from serl.engines.hf_folder import model_folder
from serl.run.files import write_atomic
from serl.run.rundir import Run
from serl.stages.cost import Rate
from serl.stages.kind import AT

T = TypeVar("T")

VERSION = 2
MAX_RUNS, MAX_SEEN = 20, 100  # the newest count
UNKNOWN = 0.15  # log-normal sigma of what one observation says nothing about
DRIFT = 0.06  # how far a yield is taken to lie from that of another run, or of the round before
SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds by size; `job_sigma` is its spread over stages, `task_sigma` over the shards of one."""

    fixed_s: float
    per_size_s: float
    job_sigma: float
    task_sigma: float

    def __call__(self, size: float) -> float:
        return self.fixed_s + self.per_size_s * size

    def error(self, pieces: Pieces) -> float:
        """By what factor, as a logarithm, a shard's pieces took longer."""
        return _log(sum(s for _, s in pieces) / max(sum(self(size) for size, _ in pieces), 1e-9))


@dataclass(frozen=True)
class Times:
    """What a stage took and gave, in some rounds and runs. Spreads are log-normal sigmas."""

    rows: Sequence[Row]

    @cached_property
    def pace(self) -> Pace:
        """Fitted to all pieces of the stage, relative errors counted alike; there has to be one."""
        worked = [r for r in self.rows if r.shards]
        fixed_s, per_size_s = fit([piece for r in worked for shard in r.shards for piece in shard])
        plain = Pace(fixed_s=fixed_s, per_size_s=per_size_s, job_sigma=0.0, task_sigma=0.05)
        errors = [[plain.error(shard) for shard in r.shards] for r in worked]
        jobs = [*map(statistics.fmean, errors)]
        within = [e - mean for own, mean in zip(errors, jobs) if len(own) > 1 for e in own]
        return replace(plain, job_sigma=_sigma(jobs), task_sigma=_sd(within) if within else plain.task_sigma)

    @cached_property
    def waited_s(self) -> float | None:
        """From the end of what a stage waits for until its processes are there; None if it waits for none."""
        waits = [r.wait_s for r in self.rows if r.wait_s is not None]
        return statistics.median(waits) if waits else None

    @cached_property
    def started_s(self) -> float:
        """From a process's birth to its first piece."""
        return statistics.median(r.start_s for r in self.rows)

    @cached_property
    def ended_s(self) -> float:
        return statistics.median(r.end_s for r in self.rows)

    @cached_property
    def saved_s(self) -> float:
        """Of a checkpoint."""
        return statistics.median([r.save_s for r in self.rows if r.save_s] or [0.0])

    def share(self, round: int, top: str, bottom: str) -> Rate | None:
        """A yield per another, like tokens per sample; of an unseen round, as in the last before it."""
        told = [r for r in self.rows if top in r.yields and r.yields.get(bottom)]
        if not told:
            return None
        known = max((r.round for r in told if r.round <= round), default=min(r.round for r in told))
        values = [r.yields[top] / r.yields[bottom] for r in told if r.round == known]
        spread = _sd([_log(v) for v in values if v > 0]) if len(values) > 1 else DRIFT
        sigma = math.hypot(spread, DRIFT * math.sqrt(abs(round - known)))
        return Rate(value=statistics.fmean(values), sigma=sigma)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is known of a model on a cluster; `seen` of the cluster alone."""

    cluster: str
    model: str
    rows: tuple[Row, ...] = ()
    seen: tuple[Seen, ...] = ()

    @cached_property
    def _stages(self) -> dict[tuple[str, bool], Times]:
        found: dict[tuple[str, bool], list[Row]] = defaultdict(list)
        for r in self.rows:
            found[r.stage, r.base].append(r)
        return {key: Times(several) for key, several in found.items()}

    def of(self, stage: str, round: int = 1) -> Times:
        """A stage's, at milestones, too; the training of a base model is another thing than a round's."""
        stage = stage.partition(AT)[0]
        base = round == 0 and (stage, True) in self._stages
        return self._stages.get((stage, base), Times(()))

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(r.run for r in self.rows))

    def knows(self, stage: str, round: int) -> bool:
        return any(r.shards for r in self.of(stage, round).rows)

    def waited_s(self, stage: str, round: int) -> float:
        """By a stage; where it waits for nothing, by any."""
        own = self.of(stage, round).waited_s
        return (Times(self.rows).waited_s or 0.0) if own is None else own

    @property
    def taken(self) -> TakingRate | None:
        """How often a node is taken away there; None where no run was on Slurm."""
        hours = sum(s.node_s for s in self.seen) / HOUR_S
        return TakingRate(taken=sum(s.taken for s in self.seen), node_hours=hours) if hours else None

    @property
    def requeue_s(self) -> float:
        """From a node's being taken away until its task may start again, beyond what every start waits."""
        away = statistics.median([s.away_s for s in self.seen if s.away_s is not None] or [0.0])
        return max(0.0, away - (Times(self.rows).waited_s or 0.0))

    @property
    def doubt(self) -> float:
        """How far whole runs lie from each other at equal work: what the next one may differ by."""
        by_run: dict[str, list[float]] = defaultdict(list)
        for times in self._stages.values():
            for r in times.rows:
                by_run[r.run] += [times.pace.error(shard) for shard in r.shards]
        means = [statistics.fmean(v) for v in by_run.values() if v]
        return max(0.03, _sd(means)) if len(means) > 1 else 0.06


def fit(pieces: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, per size), neither negative, of least relative squares; one rate where sizes hardly differ."""
    sizes, seconds = np.array(pieces, dtype=float).T
    seconds = np.maximum(seconds, 1e-6)
    if sizes.max() <= 0:
        return float(seconds.mean()), 0.0
    if len(sizes) < 4 or sizes.max() < 1.3 * sizes.min():
        return 0.0, float(seconds.sum() / sizes.sum())
    terms = np.stack([1 / seconds, sizes / seconds], axis=1)
    fixed, per_size = np.linalg.lstsq(terms, np.ones(len(sizes)))[0]
    alone = terms.sum(axis=0) / (terms**2).sum(axis=0)
    if fixed < 0:
        return 0.0, float(alone[1])
    return (float(alone[0]), 0.0) if per_size < 0 else (float(fixed), float(per_size))


def _sigma(logs: Sequence[float]) -> float:
    """Spread of the next observation: that of those seen, and the doubt about the mean of so few."""
    return max(0.02, _sd(logs) * math.sqrt(1 + 1 / len(logs))) if len(logs) > 1 else UNKNOWN


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _log(x: float) -> float:
    return math.log(max(x, 1e-9))


# ---------------------------------------------------------------------------------- where it is kept
def cluster_label(cluster: Local | Slurm) -> str:
    """What two cluster files have to share for times on one to say something of the other."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            return f"local-{machine.device}{machine.slots}"
        case Slurm():
            gpus = f"gpu{cluster.gpus_per_node}" if cluster.gpus_per_node else "cpu"
            words = ["slurm", cluster.partition or "default", cluster.constraint, gpus]
            return _word("-".join(w for w in words if w))


def model_label(config: RunConfig, data: Path) -> str:
    """The sizes of a model: what decides how fast it is."""
    if isinstance(config.base, Scratch):
        a = config.base.architecture
        return f"llama-{a.hidden}-{a.layers}-{a.intermediate}-{a.vocabulary}"
    try:
        c = json.loads((model_folder(config.base.path, data) / "config.json").read_bytes())
        sizes = [str(c[k]) for k in SIZES if k in c]
    except (OSError, ValueError):
        sizes = []
    known = "-".join([str(c.get("model_type", "model")), *sizes]) if sizes else Path(config.base.path).name
    return _word(known)


def _word(text: str) -> str:
    return "".join(ch if ch.isalnum() or ch in "._-" else "_" for ch in text)[:100] or "model"


def load_calibration(data: Path, cluster: str, model: str) -> Calibration:
    """A file that cannot be read is as good as none, and is written anew by the next report."""
    home = data / "calibration"
    of_model = _recall(home / cluster / f"{model}.json", Row)
    return Calibration(
        cluster=cluster, model=model, rows=of_model, seen=_recall(home / f"{cluster}.json", Seen)
    )


def learn(run: Run, cluster: str) -> Calibration:
    """Put what a run says in place of what was learned from it before."""
    model, home = model_label(run.config, run.data_root), run.data_root / "calibration"
    _keep(home / cluster / f"{model}.json", Row, rows(run), MAX_RUNS)
    _keep(home / f"{cluster}.json", Seen, seen_by(run), MAX_SEEN)
    return load_calibration(run.data_root, cluster, model)


def _recall(path: Path, kind: type[T]) -> tuple[T, ...]:
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            content = content["rows"] if content["version"] == VERSION else []
        return TypeAdapter(tuple[kind, ...]).validate_python(content)
    except (OSError, ValueError, KeyError):
        return ()


def _keep(path: Path, kind: type[T], mine: Sequence[T], most: int) -> None:
    """In place of what the same run said before, behind the newest of the others."""
    if mine:
        others = [r for r in _recall(path, kind) if r.run != mine[0].run]
        kept = [*dict.fromkeys(r.run for r in others)][1 - most :]
        content = [asdict(r) for r in (*(r for r in others if r.run in kept), *mine)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"version": VERSION, "rows": content}, indent=1).encode())
