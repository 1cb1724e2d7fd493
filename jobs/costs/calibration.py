"""What runs on a cluster have taken, so that the next one can be planned:
`<data>/calibration/CLUSTER/MODEL.json` holds a row for each published shard,
`<data>/calibration/CLUSTER.json` a row for each run: how often nodes were taken away.

Rows are learned whenever a run's report is written, again for the same run in place of before. Work is
measured in pieces of a size (sampled tokens, tokens of an optimizer step, documents, candidates), so that
other shard counts, lengths and batches can be planned from it.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from jobs.costs.measured import Row, Seen, rows, seen_by
from jobs.costs.weather import HOUR_S, TakingRate
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Scratch
from serl.config.run import RunConfig
from serl.engines.hf_folder import model_folder
from serl.run.files import write_atomic
from serl.run.rundir import Run
from serl.stages.cost import Rate

T = TypeVar("T")

VERSION = 1
MAX_RUNS, MAX_SEEN = 20, 100  # the newest count
UNKNOWN = 0.15  # log-normal sigma of what one observation says nothing about
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


def _once(method: Callable[..., T]) -> Callable[..., T]:
    """Rows never change, so neither does what follows from them."""

    @wraps(method)
    def known(self: "Calibration", *args: str | int) -> T:
        key = (method.__name__, *args)
        if key not in self._found:
            self._found[key] = method(self, *args)
        return self._found[key]  # type: ignore[return-value]

    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is known of a model on a cluster; `seen` of the cluster alone. Spreads are log-normal sigmas."""

    cluster: str
    model: str
    rows: tuple[Row, ...] = ()
    seen: tuple[Seen, ...] = ()
    _found: dict[tuple, object] = field(default_factory=dict, compare=False, repr=False)

    @_once
    def of(self, stage: str, round: int = 1) -> list[Row]:
        """Shards of a stage; the training of a base model is another thing than that of a round."""
        mine = [r for r in self.rows if r.stage == stage]
        base = round == 0 and any(r.base for r in mine)
        return [r for r in mine if r.base == base]

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(r.run for r in self.rows))

    def knows(self, stage: str, round: int) -> bool:
        return any(r.pieces for r in self.of(stage, round))

    @_once
    def pace(self, stage: str, round: int) -> Pace:
        """Fitted to all pieces of the stage, relative errors counted alike."""
        mine = [r for r in self.of(stage, round) if r.pieces]
        assert mine, f"{stage}: ask `knows` first"
        fixed, per_size = fit([p for r in mine for p in r.pieces])
        errors: dict[tuple[str, int], list[float]] = defaultdict(list)
        for r in mine:
            errors[r.run, r.round].append(_error(r, lambda size: fixed + per_size * size))
        within = [v - statistics.fmean(job) for job in errors.values() if len(job) > 1 for v in job]
        return Pace(
            fixed_s=fixed, per_size_s=per_size, job_sigma=_sigma([*map(statistics.fmean, errors.values())]),
            task_sigma=_sd(within) if within else 0.05,
        )  # fmt: skip

    @_once
    def waited(self, stage: str, round: int) -> Rate:
        """Seconds from the end of what a stage waits for until its processes are there."""
        return _measure(_waits(self.of(stage, round)) or _waits(self.rows))

    @_once
    def started(self, stage: str, round: int) -> Rate:
        """Seconds from a process's birth to its first piece."""
        return _measure([r.boot_s + r.start_s for r in self.of(stage, round)])

    @_once
    def ended(self, stage: str, round: int) -> Rate:
        return _measure([r.end_s for r in self.of(stage, round)])

    @_once
    def saved(self, stage: str, round: int) -> Rate:
        """Seconds of a checkpoint."""
        return _measure([r.save_s for r in self.of(stage, round) if r.save_s])

    @property
    def taken(self) -> TakingRate | None:
        """How often a node is taken away there; None where no run was on Slurm."""
        hours = sum(s.node_s for s in self.seen) / HOUR_S
        return TakingRate(taken=sum(s.taken for s in self.seen), node_hours=hours) if hours else None

    @property
    def requeue_s(self) -> float:
        """From a node's being taken away until its task may start again, beyond what every start waits."""
        away = statistics.median([s.away_s for s in self.seen if s.away_s is not None] or [0.0])
        return max(0.0, away - _measure(_waits(self.rows)).value)

    @_once
    def share(self, stage: str, round: int, top: str, bottom: str) -> Rate | None:
        """A yield per another, like tokens per sample; of an unseen round, as in the last before it."""
        yields: dict[tuple[int, str], list] = defaultdict(list)
        for r in self.of(stage, round):
            if top in r.yields and bottom in r.yields:
                yields[r.round, r.run].append(r.yields)
        by_round: dict[int, list[float]] = defaultdict(list)
        for (number, _), own in yields.items():
            if total := sum(y[bottom] for y in own):
                by_round[number].append(sum(y[top] for y in own) / total)
        if not by_round:
            return None
        known = max((r for r in by_round if r <= round), default=min(by_round))
        path = [statistics.fmean(v) for _, v in sorted(by_round.items())]
        drift = [_log(b / a) for a, b in pairwise(path) if a > 0 and b > 0]
        beyond = math.sqrt(statistics.fmean(d * d for d in drift)) if drift else UNKNOWN
        values, spread = by_round[known], min(UNKNOWN, max(0.05, beyond / 2))
        if len(values) > 1:
            spread = _sd([_log(v) for v in values if v > 0])
        sigma = math.hypot(spread, beyond * math.sqrt(abs(round - known)))
        return Rate(value=statistics.fmean(values), sigma=sigma)

    @property
    def doubt(self) -> float:
        """How far whole runs lie from each other at equal work: what the next one may differ by."""
        by_run: dict[str, list[float]] = defaultdict(list)
        for r in self.rows:
            pace = self.pace(r.stage, 0 if r.base else 1) if r.pieces else None
            if pace and sum(pace(size) for size, _ in r.pieces):
                by_run[r.run].append(_error(r, pace))
        means = [statistics.fmean(v) for v in by_run.values()]
        return max(0.03, _sd(means)) if len(means) > 1 else 0.06


def fit(pieces: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, per size), neither negative, of least relative squares; one rate where sizes hardly differ."""
    known = [(x, max(y, 1e-6)) for x, y in pieces]
    sizes = [x for x, _ in known]
    if max(sizes) <= 0:
        return statistics.fmean(y for _, y in known), 0.0
    if len(known) < 4 or max(sizes) < 1.3 * max(min(sizes), 1e-9):
        return 0.0, sum(y for _, y in known) / sum(sizes)
    w = [1 / y**2 for _, y in known]
    sw, sx, sy = sum(w), sum(k * x for k, x in zip(w, sizes)), sum(k * y for k, (_, y) in zip(w, known))
    sxx, sxy = sum(k * x * x for k, x in zip(w, sizes)), sum(k * x * y for k, (x, y) in zip(w, known))
    slope = (sw * sxy - sx * sy) / (sw * sxx - sx * sx)
    fixed = (sy - slope * sx) / sw
    if fixed < 0:
        return 0.0, sxy / sxx
    return (sy / sw, 0.0) if slope < 0 else (fixed, slope)


def _error(row: Row, pace: Callable[[float], float]) -> float:
    """By what factor, as a logarithm, a shard's pieces took longer than expected."""
    expected = sum(pace(size) for size, _ in row.pieces)
    return _log(sum(s for _, s in row.pieces) / max(expected, 1e-9))


def _waits(rows: Iterable[Row]) -> list[float]:
    return [r.wait_s for r in rows if r.wait_s is not None]


def _measure(values: Sequence[float]) -> Rate:
    """Median, and the spread around it; nothing known is nothing."""
    middle = statistics.median(values) if values else 0.0
    logs = [_log(v / middle) for v in values if v > 0 and middle > 0]
    return Rate(value=middle, sigma=_sigma(logs) if values else 0.0)


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
    of_model, of_cluster = _files(data, cluster, model)
    known, seen = _recall(of_model, Row), _recall(of_cluster, Seen)
    return Calibration(cluster=cluster, model=model, rows=known, seen=seen)


def learn(run: Run, cluster: str) -> Calibration:
    """Put what a run says in place of what was learned from it before."""
    model = model_label(run.config, run.data_root)
    of_model, of_cluster = _files(run.data_root, cluster, model)
    _keep(of_model, run, Row, tuple(rows(run)), MAX_RUNS)
    _keep(of_cluster, run, Seen, tuple(seen_by(run)), MAX_SEEN)
    return load_calibration(run.data_root, cluster, model)


def _files(data: Path, cluster: str, model: str) -> tuple[Path, Path]:
    home = data / "calibration"
    return home / cluster / f"{model}.json", home / f"{cluster}.json"


def _recall(path: Path, kind: type[T]) -> tuple[T, ...]:
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            content = content["rows"] if content["version"] == VERSION else []
        return TypeAdapter(tuple[kind, ...]).validate_python(content)
    except (OSError, ValueError, KeyError):
        return ()


def _keep(path: Path, run: Run, kind: type[T], mine: tuple[T, ...], most: int) -> None:
    if mine:
        others = [r for r in _recall(path, kind) if r.run != run.root.name]
        kept = [*dict.fromkeys(r.run for r in others)][1 - most :]
        content = [asdict(r) for r in (*(r for r in others if r.run in kept), *mine)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"version": VERSION, "rows": content}, indent=1).encode())
