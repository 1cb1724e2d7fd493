"""How often a cluster takes away nodes from what runs there, learned from its runs: `<data>/calibration/CLUSTER.json`.

Counted are attempts that were preempted, lost their node or died without a word, and whose job Slurm started again: who cancels a job, or
resumes a run, starts another one. How often that happens in an hour of a node is the cluster's, whatever model runs. A run's row is learned
whenever its report is written, in place of the one before.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from jobs.chain.queue import Journal
from jobs.costs.accounting import account
from jobs.costs.sacct import split_attempt
from jobs.costs.tries import Try
from jobs.costs.weather import HOUR_S, Rate
from serl.run.files import write_atomic
from serl.run.rundir import Run

MAX_RUNS = 100  # the newest count
TAKEN = ("preempted", "node failure", "killed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a run saw: how often a node was taken from it in how many seconds of nodes, and the median time until its job ran again."""

    run: str
    taken: int
    node_s: float
    away_s: float | None


@dataclass(frozen=True, slots=True)
class Weather:
    """What all runs of a cluster saw."""

    rows: tuple[Row, ...] = ()

    @property
    def rate(self) -> Rate | None:
        """None where nobody has seen anything."""
        hours = sum(r.node_s for r in self.rows) / HOUR_S
        return Rate(taken=sum(r.taken for r in self.rows), node_hours=hours) if hours else None

    @property
    def away_s(self) -> float:
        """Seconds from a taking until the task works again elsewhere: its wait in the queue included."""
        return statistics.median([r.away_s for r in self.rows if r.away_s is not None] or [0.0])


def row(run: Run) -> Row | None:
    """None for a run that Slurm has had no part in: nobody takes its machine away."""
    if not Journal(run.root):
        return None
    tries = account(run).tries
    away = list(_away(tries))
    node_s = sum(t.seconds * t.nodes for t in tries)
    return Row(
        run=run.root.name,
        taken=len(away),
        node_s=round(node_s, 1),
        away_s=round(statistics.median(away), 1) if away else None,
    )


def _away(tries: Sequence[Try]) -> list[float]:
    """Of every taking, the seconds until the same job was at work again."""
    shards: dict[tuple, list[Try]] = defaultdict(list)
    for t in tries:
        shards[t.round, t.stage, t.index, split_attempt(t.id)[0]].append(t)
    return [
        max(0.0, again.begin - t.end)
        for several in shards.values()
        for t, again in pairwise(sorted(several, key=lambda t: t.begin))
        if t.ended in TAKEN
    ]


def load_weather(data: Path, cluster: str) -> Weather:
    """Nothing where nothing is known; a file that cannot be read is as good as none, and is written anew by the next report."""
    try:
        return Weather(tuple(Row(**known) for known in json.loads(_path(data, cluster).read_bytes())))
    except (OSError, ValueError, TypeError):
        return Weather()


def learn_weather(run: Run, cluster: str) -> None:
    """Put what a run saw in place of what it had seen before."""
    if mine := row(run):
        others = [r for r in load_weather(run.data_root, cluster).rows if r.run != mine.run]
        path = _path(run.data_root, cluster)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(
            path, json.dumps([asdict(r) for r in [*others[1 - MAX_RUNS :], mine]], indent=1).encode()
        )


def _path(data: Path, cluster: str) -> Path:
    return data / "calibration" / f"{cluster}.json"
