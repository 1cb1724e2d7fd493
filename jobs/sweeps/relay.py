"""On a node: submit what a sweep's launch had to leave, because Slurm took no more or the launcher died. Not
for people, who launch again.

`python -m jobs.sweeps.relay SWEEP_FOLDER NOTE`, in the sweep's relay job. Exits with EXIT_REQUEUE while
something is left.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.chain.window import Relay, one_turn
from jobs.plan.cluster import Slurm
from jobs.runs.queue import Submission
from jobs.sweeps import lanes
from serl.run.files import write_atomic
from serl.run.rundir import Run

LAUNCHED = "launched.json"


def hand_over(
    folder: Path, runs: Sequence[Run], num_lanes: int, cluster: Slurm, code: Path
) -> list[Submission]:
    """Submit a sweep's runs, and leave what is needed to go on with that."""
    known = {"runs": [run.root.name for run in runs], "lanes": num_lanes, "code": code.name}
    known |= {"cluster": cluster.model_dump(mode="json")}
    write_atomic(folder / LAUNCHED, json.dumps(known).encode())
    return lanes.submit(runs, num_lanes, cluster, _relay(folder, cluster, code))


def _relay(folder: Path, cluster: Slurm, code: Path) -> Relay:
    arguments = ("-m", "jobs.sweeps.relay", str(folder))
    return Relay(folder=folder, name=folder.name, cluster=cluster, code=code, arguments=arguments)


def main(folder: Path, note: Path) -> int:
    known = json.loads((folder / LAUNCHED).read_bytes())
    known["cluster"].pop("trackers", None)  # of earlier versions
    cluster = Slurm.model_validate_json(json.dumps(known["cluster"]))
    runs = [Run.open(folder.parent.parent / "runs" / name) for name in known["runs"]]
    relay = _relay(folder, cluster, folder / "code" / known["code"])
    return one_turn(note, lambda: lanes.submit(runs, known["lanes"], cluster, relay, note=note))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
