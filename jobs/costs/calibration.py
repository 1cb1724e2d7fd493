"""What runs on a cluster with a model of some size have taken, so that the next one can be planned: `<data>/calibration/CLUSTER/MODEL.json`.

A row is one published shard: how long it waited, started, worked and ended, on how much, and what came of it. Rows are learned from the
manifests and events of a run whenever its report is written, again for the same run in place of before. Work is measured in pieces of a size
(sampled tokens, tokens of an optimizer step, documents, candidates), so that other shard counts, lengths and batches can be planned from it.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from jobs.costs.measured import Row, rows
from jobs.costs.taken import Weather, learn_weather, load_weather
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Scratch
from serl.config.run import RunConfig
from serl.engines.hf_folder import model_folder
from serl.run.files import write_atomic
from serl.run.rundir import Run

T = TypeVar("T")

VERSION = 1
MAX_RUNS = 20  # the newest count
UNKNOWN = 0.15  # log-normal sigma of what one observation says nothing about


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure and its spread from one observation to the next, as a log-normal sigma."""

    value: float
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A piece of some size takes `fixed_s + per_size_s * size`; `job_sigma` from stage to stage, `task_sigma` among the shards of one."""

    fixed_s: float
    per_size_s: float
    job_sigma: float
    task_sigma: float

    def __call__(self, size: float) -> float:
        return self.fixed_s + self.per_size_s * size


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All that is known of one model on one cluster; `weather` of the cluster alone."""

    cluster: str
    model: str
    rows: tuple[Row, ...] = ()
    weather: Weather = field(default_factory=Weather)
    _found: dict[tuple, "Pace | Measure | None"] = field(
        default_factory=dict, compare=False, repr=False
    )  # rows never change, so neither do these

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

    def pace(self, stage: str, round: int) -> Pace:
        """Fitted to all pieces of the stage, relative errors counted alike."""
        return self._once(("pace", stage, round == 0), lambda: self._pace(stage, round))

    def _once(self, key: tuple, compute: Callable[[], T]) -> T:
        if key not in self._found:
            self._found[key] = compute()
        return self._found[key]  # type: ignore[return-value]

    def _pace(self, stage: str, round: int) -> Pace:
        rows = [r for r in self.of(stage, round) if r.pieces]
        assert rows, f"{stage}: ask `knows` first"
        fixed, per_size = fit([p for r in rows for p in r.pieces])
        residual: dict[tuple[str, int], list[float]] = {}
        for r in rows:
            expected = sum(fixed + per_size * size for size, _ in r.pieces)
            residual.setdefault((r.run, r.round), []).append(
                _log(sum(s for _, s in r.pieces) / max(expected, 1e-9))
            )
        means = [statistics.fmean(v) for v in residual.values()]
        within = [v - statistics.fmean(group) for group in residual.values() if len(group) > 1 for v in group]
        return Pace(
            fixed_s=fixed,
            per_size_s=per_size,
            job_sigma=_sigma(means),
            task_sigma=_sd(within) if within else 0.05,
        )

    def waited(self, stage: str, round: int) -> Measure:
        """Seconds from the end of what a stage waits for until its processes are there."""
        known = [r.wait_s for r in self.of(stage, round) if r.wait_s is not None]
        return self._once(("waited", stage, round == 0), lambda: _measure(known or self._waits))

    @property
    def _waits(self) -> list[float]:
        return [r.wait_s for r in self.rows if r.wait_s is not None]

    @property
    def requeue_s(self) -> float:
        """Seconds from a node's being taken away until its task may start again, beyond what every start waits."""
        return max(0.0, self.weather.away_s - _measure(self._waits).value)

    def started(self, stage: str, round: int) -> Measure:
        """Seconds from a process's birth to its first piece."""
        return self._once(
            ("started", stage, round == 0),
            lambda: _measure([r.boot_s + r.start_s for r in self.of(stage, round)]),
        )

    def ended(self, stage: str, round: int) -> Measure:
        return self._once(
            ("ended", stage, round == 0), lambda: _measure([r.end_s for r in self.of(stage, round)])
        )

    def saved(self, stage: str, round: int) -> Measure:
        """Seconds of a checkpoint."""
        return self._once(
            ("saved", stage, round == 0),
            lambda: _measure([r.save_s for r in self.of(stage, round) if r.save_s]),
        )

    def share(self, stage: str, round: int, top: str, bottom: str) -> Measure | None:
        """A yield per another, as `tokens` per `samples`, in that round; of a round that nobody has seen, as in the last one before it."""
        return self._once(
            ("share", stage, round, top, bottom), lambda: self._share(stage, round, top, bottom)
        )

    def _share(self, stage: str, round: int, top: str, bottom: str) -> Measure | None:
        by_round: dict[int, list[float]] = {}
        for run in self.runs:
            for r in {r.round for r in self.of(stage, round) if r.run == run}:
                mine = [
                    row.yields
                    for row in self.of(stage, round)
                    if row.run == run and row.round == r and bottom in row.yields and top in row.yields
                ]
                if total := sum(y[bottom] for y in mine):
                    by_round.setdefault(r, []).append(sum(y[top] for y in mine) / total)
        if not by_round:
            return None
        known = max((r for r in by_round if r <= round), default=min(by_round))
        values = by_round[known]
        path = [statistics.fmean(v) for _, v in sorted(by_round.items())]
        drift = [_log(b / a) for a, b in pairwise(path) if a > 0 and b > 0]
        beyond = math.sqrt(statistics.fmean(d * d for d in drift)) if drift else UNKNOWN
        spread = (
            _sd([_log(v) for v in values if v > 0])
            if len(values) > 1
            else min(UNKNOWN, max(0.05, beyond / 2))
        )
        return Measure(statistics.fmean(values), math.hypot(spread, beyond * math.sqrt(abs(round - known))))

    @property
    def doubt(self) -> float:
        """How far whole runs lie from each other at equal work: what the next one may differ by."""
        by_run: dict[str, list[float]] = {}
        for stage, round in {(r.stage, 0 if r.base else 1) for r in self.rows if r.pieces}:
            pace = self.pace(stage, round)
            for r in self.of(stage, round):
                if expected := sum(pace(size) for size, _ in r.pieces):
                    by_run.setdefault(r.run, []).append(_log(sum(s for _, s in r.pieces) / expected))
        means = [statistics.fmean(v) for v in by_run.values()]
        return max(0.03, _sd(means)) if len(means) > 1 else 0.06


def fit(pieces: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, per size) of seconds = fixed + per size x size, neither negative, least relative squares; one rate where sizes hardly differ."""
    known = [(x, max(y, 1e-6)) for x, y in pieces]
    sizes = [x for x, _ in known]
    if max(sizes) <= 0:
        return statistics.fmean(y for _, y in known), 0.0
    ratio = sum(y for _, y in known) / sum(sizes)
    if len(known) < 4 or max(sizes) < 1.3 * max(min(sizes), 1e-9):
        return 0.0, ratio
    w = [1 / y**2 for _, y in known]
    sw, sx, sy = sum(w), sum(k * x for k, x in zip(w, sizes)), sum(k * y for k, (_, y) in zip(w, known))
    sxx, sxy = sum(k * x * x for k, x in zip(w, sizes)), sum(k * x * y for k, (x, y) in zip(w, known))
    slope = (sw * sxy - sx * sy) / (sw * sxx - sx * sx)
    fixed = (sy - slope * sx) / sw
    if fixed < 0:
        return 0.0, sxy / sxx
    return (sy / sw, 0.0) if slope < 0 else (fixed, slope)


def _measure(values: Sequence[float]) -> Measure:
    """Median, and the spread around it; nothing known is nothing."""
    if not values:
        return Measure(0.0, 0.0)
    middle = statistics.median(values)
    return Measure(middle, _sigma([_log(v / middle) for v in values if v > 0 and middle > 0]))


def _sigma(logs: Sequence[float]) -> float:
    """Spread of the next observation, of which few were made: that of those seen, and the doubt about their mean."""
    if len(logs) < 2:
        return UNKNOWN
    return max(0.02, _sd(logs) * math.sqrt(1 + 1 / len(logs)))


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _log(x: float) -> float:
    return math.log(max(x, 1e-9))


# ------------------------------------------------------------------------------------------------ where it is kept
def cluster_label(cluster: Local | Slurm) -> str:
    """What two cluster files have to share for times on one to say something of the other."""
    match cluster:
        case Local():
            machine = this_machine(cluster)
            return f"local-{machine.device}{machine.slots}"
        case Slurm():
            words = [
                "slurm",
                cluster.partition or "default",
                cluster.constraint or "",
                f"gpu{cluster.gpus_per_node}" if cluster.gpus_per_node else "cpu",
            ]
            return _word("-".join(w for w in words if w))


def model_label(config: RunConfig, data: Path) -> str:
    """The sizes of a model: what decides how fast it is."""
    if isinstance(config.base, Scratch):
        a = config.base.architecture
        return f"llama-{a.hidden}-{a.layers}-{a.intermediate}-{a.vocabulary}"
    try:
        c = json.loads((model_folder(config.base.path, data) / "config.json").read_bytes())
        sizes = [
            str(c[k])
            for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
            if k in c
        ]
    except (OSError, ValueError):
        sizes = []
    return (
        _word("-".join([str(c.get("model_type", "model")), *sizes]))
        if sizes
        else _word(Path(config.base.path).name)
    )


def _word(text: str) -> str:
    return "".join(ch if ch.isalnum() or ch in "._-" else "_" for ch in text)[:100] or "model"


def _path(data: Path, cluster: str, model: str) -> Path:
    return data / "calibration" / cluster / f"{model}.json"


def load_calibration(data: Path, cluster: str, model: str) -> Calibration:
    """Empty where nothing is known yet; a file that cannot be read is as good as none, and is written anew by the next report."""
    try:
        content = json.loads(_path(data, cluster, model).read_bytes())
        if content["version"] != VERSION:
            raise ValueError
        rows = tuple(
            Row(**row | {"pieces": tuple((float(x), float(y)) for x, y in row["pieces"])})
            for row in content["rows"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        rows = ()
    return Calibration(cluster=cluster, model=model, rows=rows, weather=load_weather(data, cluster))


def learn(run: Run, cluster: str) -> Calibration:
    """Put what a run says in place of what was learned from it before."""
    model = model_label(run.config, run.data_root)
    before = load_calibration(run.data_root, cluster, model)
    mine = tuple(rows(run))
    others = [r for r in before.rows if r.run != run.root.name]
    kept = list(dict.fromkeys(r.run for r in others))[-(MAX_RUNS - 1) :]
    learn_weather(run, cluster)
    weather = load_weather(run.data_root, cluster)
    after = Calibration(
        cluster=cluster, model=model, rows=tuple(r for r in others if r.run in kept) + mine, weather=weather
    )
    if mine:
        path = _path(run.data_root, cluster, model)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "version": VERSION,
            "cluster": cluster,
            "model": model,
            "rows": [asdict(r) for r in after.rows],
        }
        write_atomic(path, json.dumps(content, indent=1).encode())
    return after
