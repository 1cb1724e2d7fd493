"""On a node: submit what a run's launch had to leave because Slurm took no more (`jobs.window`). Not for people, who have `jobs.resume`.

`python -m jobs.relay RUN NOTE`, in the run's relay job. Exits with EXIT_REQUEUE while something is left.
"""

import sys
from pathlib import Path

from jobs.batch import EXIT_REQUEUE
from jobs.queue import SlurmError
from jobs.slurm import frozen_cluster, submit_missing
from jobs.window import RELAY, come_back
from serl.rundir import Run

SOON_S = 60


def main(root: Path, note: Path) -> int:
    run = Run.open(root)
    note.unlink(missing_ok=True)
    try:
        new = submit_missing(run, frozen_cluster(run), note=note)
    except SlurmError as e:
        print(f"{e}; another try in {SOON_S} s", file=sys.stderr)
        come_back(note, None, SOON_S)
        return EXIT_REQUEUE
    for s in new:
        print("more is left" if s.job == RELAY else f"{s.job}: {len(s.shards)} shards as job {s.id}")
    return EXIT_REQUEUE if new and new[-1].job == RELAY else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
