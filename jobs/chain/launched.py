"""What a launch on Slurm leaves in the run (`launched.json`): where it submits to, what came before it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.plan.cluster import Slurm
from jobs.runs.queue import Submission, recorded
from serl.run.files import write_atomic
from serl.run.rundir import Run

LAUNCHED = "launched.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """The newest launch: its cluster file, and the tokens of all submissions that were there before."""

    cluster: Slurm
    before: frozenset[str]

    def since(self, known: Sequence[Submission]) -> list[Submission]:
        return [s for s in known if s.token not in self.before]


def freeze_cluster(run: Run, cluster: Slurm) -> None:
    known = {"before": [s.token for s in recorded(run)], "cluster": cluster.model_dump(mode="json")}
    write_atomic(run.root / LAUNCHED, json.dumps(known).encode())


def launched(run: Run) -> Launched:
    known = json.loads((run.root / LAUNCHED).read_bytes())
    known["cluster"].pop("trackers", None)  # of earlier versions
    cluster = Slurm.model_validate_json(json.dumps(known["cluster"]))
    return Launched(cluster=cluster, before=frozenset(known["before"]))


def last_cluster(run: Run) -> Slurm | None:
    """The cluster that a run was last submitted to; None where it never was."""
    return launched(run).cluster if (run.root / LAUNCHED).exists() else None
