"""On a node: submit what a sweep's launch had to leave, because Slurm took no more or the launcher died. Not for people, who launch again.

`python -m jobs.sweeps.relay SWEEP_FOLDER NOTE`, in the sweep's relay job. Exits with EXIT_REQUEUE while something is left.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.batch import EXIT_REQUEUE
from jobs.cluster import Slurm
from jobs.queue import SlurmError, Submission
from jobs.sweeps import lanes
from jobs.window import RELAY, Relay, come_back
from serl.files import write_atomic
from serl.rundir import Run

SOON_S = 60
LAUNCHED = "launched.json"


def hand_over(folder: Path, runs: Sequence[Run], num_lanes: int, cluster: Slurm, code: Path) -> list[Submission]:
    """Submit a sweep's runs, and leave what is needed to go on with that."""
    known = {"runs": [run.root.name for run in runs], "lanes": num_lanes, "cluster": cluster.model_dump(mode="json"), "code": code.name}
    write_atomic(folder / LAUNCHED, json.dumps(known).encode())
    return lanes.submit(runs, num_lanes, cluster, _relay(folder, cluster, code))


def _relay(folder: Path, cluster: Slurm, code: Path) -> Relay:
    return Relay(folder=folder, name=folder.name, cluster=cluster, code=code, arguments=("-m", "jobs.sweeps.relay", str(folder)))


def main(folder: Path, note: Path) -> int:
    known = json.loads((folder / LAUNCHED).read_bytes())
    cluster = Slurm.model_validate_json(json.dumps(known["cluster"]))
    runs = [Run.open(folder.parent.parent / "runs" / name) for name in known["runs"]]
    note.unlink(missing_ok=True)
    try:
        new = lanes.submit(runs, known["lanes"], cluster, _relay(folder, cluster, folder / "code" / known["code"]), note=note)
    except SlurmError as e:
        print(f"{e}; another try in {SOON_S} s", file=sys.stderr)
        come_back(note, None, SOON_S)
        return EXIT_REQUEUE
    for s in new:
        print("more is left" if s.job == RELAY else f"{s.run} {s.job}: {len(s.shards)} shards as job {s.id}")
    return EXIT_REQUEUE if new and new[-1].job == RELAY else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
