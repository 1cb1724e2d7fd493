"""On a node: submit what a run's launch had to leave because Slurm took no more (`jobs.chain.window`). Not
for people, who have `jobs.resume`.

`python -m jobs.chain.relay RUN NOTE`, in the run's relay job. Exits with EXIT_REQUEUE while something is
left.
"""

import sys
from pathlib import Path

from jobs.chain.launched import launched
from jobs.chain.slurm import submit_missing
from jobs.chain.window import one_turn
from serl.run.rundir import Run


def main(root: Path, note: Path) -> int:
    run = Run.open(root)
    return one_turn(note, lambda: submit_missing(run, launched(run).cluster, note=note))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
