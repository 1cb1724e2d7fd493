"""What runs of a model on a cluster have taken, so that the next one can be planned:
`<data>/calibration/CLUSTER/MODEL.json`, an entry for each run.

A run teaches whenever its report is written (`measured`), again in place of before. Work is measured in
pieces of a size (sampled tokens, tokens of an optimizer step, documents, candidates), so that other shard
counts, lengths and batches can be planned from it.
"""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from jobs.costs.simulate import HOUR_S
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Scratch
from serl.config.run import RunConfig
from serl.run.files import write_atomic
from serl.stages.kind import AT

Pieces = tuple[tuple[float, float], ...]

VERSION = 3
MAX_RUNS = 20  # the newest count
FEW = 3
UNKNOWN, LEAST = 0.15, 0.05  # log-normal sigmas: of a plan before a few were held against what came; at least
REQUEUE_S = 120.0  # where nobody has seen it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage and round of a run, as far as it was published and told of. Seconds are medians over shards.

    `shards` has, of each, the (size, seconds) of its parts, or of its mean step; `yields` what came of all.
    """

    stage: str
    round: int
    base: bool = False  # the training of a base model, which is another thing than that of a round
    wait_s: float | None = None  # from the end of what it waited for; None where it waited for nothing
    start_s: float = 0.0
    end_s: float = 0.0
    save_s: float | None = None  # of a checkpoint; None where none is seen
    shards: tuple[Pieces, ...] = ()
    yields: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a run teaches: its stages; how often nodes were taken in how many seconds of nodes, and the median
    time until a job ran again; the logarithm of what it took in units of what was planned.
    """

    run: str
    rows: tuple[Row, ...]
    taken: int = 0
    node_s: float = 0.0
    away_s: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Times:
    """What a stage took and gave, in some rounds and runs."""

    rows: Sequence[Row]

    @cached_property
    def pace(self) -> tuple[float, float]:
        """Seconds of a piece: fixed, and by its size. Fitted to all pieces, relative errors counted alike."""
        return fit([piece for r in self.rows for shard in r.shards for piece in shard])

    def seconds(self, size: float) -> float:
        fixed_s, per_size_s = self.pace
        return fixed_s + per_size_s * size

    def median(self, of: str) -> float | None:
        """Of `wait_s`, `start_s`, `end_s` or `save_s`, where it was seen."""
        seen = [value for r in self.rows if (value := getattr(r, of)) is not None]
        return statistics.median(seen) if seen else None

    def share(self, round: int, top: str, bottom: str) -> float | None:
        """A yield per another, like tokens per sample; of an unseen round, as in the last before it."""
        told = [r for r in self.rows if top in r.yields and r.yields.get(bottom)]
        if not told:
            return None
        known = max((r.round for r in told if r.round <= round), default=min(r.round for r in told))
        return statistics.fmean(r.yields[top] / r.yields[bottom] for r in told if r.round == known)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is known of a model on a cluster."""

    cluster: str
    model: str
    taught: tuple[Taught, ...] = ()

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for x in self.taught for row in x.rows)

    @cached_property
    def _stages(self) -> dict[tuple[str, bool], Times]:
        keys = {(r.stage, r.base) for r in self.rows}
        return {key: Times([r for r in self.rows if (r.stage, r.base) == key]) for key in keys}

    def of(self, stage: str, round: int = 1) -> Times:
        """A stage's, at milestones, too; the training of a base model is another thing than a round's."""
        stage = stage.partition(AT)[0]
        base = round == 0 and (stage, True) in self._stages
        return self._stages.get((stage, base), Times(()))

    def knows(self, stage: str, round: int) -> bool:
        return any(r.shards for r in self.of(stage, round).rows)

    def waited_s(self, stage: str, round: int) -> float:
        """From the end of what a stage waits for until it begins; where it waits for nothing, as any does."""
        own = self.of(stage, round).median("wait_s")
        return self._waited_s if own is None else own

    @property
    def _waited_s(self) -> float:
        return Times(self.rows).median("wait_s") or 0.0

    @property
    def preempt_per_hour(self) -> float:
        """How often a node was taken away there."""
        hours = sum(x.node_s for x in self.taught) / HOUR_S
        return sum(x.taken for x in self.taught) / hours if hours else 0.0

    @property
    def requeue_s(self) -> float:
        """From a node's being taken away until its task may start again, beyond what every start waits."""
        away = [x.away_s for x in self.taught if x.away_s is not None]
        return max(0.0, statistics.median(away) - self._waited_s) if away else REQUEUE_S

    @property
    def doubt(self) -> float:
        """How far plans lay from what came: the sigma of which half the errors stay within 0.67."""
        errors = [abs(x.error) for x in self.taught if x.error is not None]
        return max(LEAST, statistics.median(errors) / 0.67) if len(errors) >= FEW else UNKNOWN


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


# ---------------------------------------------------------------------------------- where it is kept
def cluster_label(cluster: Local | Slurm) -> str:
    """What two cluster files have to share for times on one to say something of the other."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            return f"local-{machine.device}{machine.slots}"
        case Slurm():
            gpus = f"gpu{cluster.gpus_per_node}" if cluster.gpus_per_node else "cpu"
            words = ("slurm", cluster.partition or "default", cluster.constraint, gpus)
            return _word("-".join(w for w in words if w))


def model_label(config: RunConfig) -> str:
    """What decides how fast a model is: its sizes, or the folder that it lies in."""
    if isinstance(config.base, Scratch):
        a = config.base.architecture
        return f"llama-{a.hidden}-{a.layers}-{a.intermediate}-{a.vocabulary}"
    return _word(Path(config.base.path).name)


def _word(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)[:100] or "model"


def load_calibration(data: Path, cluster: str, model: str) -> Calibration:
    """A file that cannot be read, or of another version, is as good as none."""
    try:
        content = json.loads(_home(data, cluster, model).read_bytes())
        told = content["taught"] if content["version"] == VERSION else ()
        taught = TypeAdapter(tuple[Taught, ...]).validate_python(told)
    except (OSError, ValueError, KeyError, TypeError):
        taught = ()
    return Calibration(cluster=cluster, model=model, taught=taught)


def keep(data: Path, cluster: str, model: str, mine: Taught) -> Calibration:
    """In place of what the same run taught before, behind the newest of the others."""
    others = [x for x in load_calibration(data, cluster, model).taught if x.run != mine.run]
    known = Calibration(cluster=cluster, model=model, taught=(*others[1 - MAX_RUNS :], mine))
    content = {"version": VERSION, "taught": [asdict(x) for x in known.taught]}
    path = _home(data, cluster, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1).encode())
    return known


def _home(data: Path, cluster: str, model: str) -> Path:
    return data / "calibration" / cluster / f"{model}.json"
