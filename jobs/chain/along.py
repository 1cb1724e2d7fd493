"""On a node, beside a training: let those jobs begin that look at what it publishes along the way.

They wait in the queue for the training's job, like all that reads its results, so that they come whatever
happens here. Once the manifest of a milestone is there they are told not to wait for that job any longer. To
be killed anywhere, or to say it twice, does no harm: the next attempt of the training says it again, and its
end says it last.
"""

import re
import sys
import time
from collections.abc import Sequence

from jobs.plan.chain import after_of
from jobs.runs.queue import SlurmError, ask_slurm, at_work, look_at_queue, recorded
from serl.run.rundir import Run
from serl.stages.kind import Stage

LOOK_S = 10.0
_WAIT = re.compile(r"(\w+:(\d+))[^,?]*")


def let_begin(run: Run, training: Stage, job: str) -> None:
    """Until all milestones of the training, which is Slurm's `job`, are published and told of."""
    left = run.config.milestones(training)
    while left:
        there = [s for s in left if all(map(run.done, run.shards(s.round, s.name)))]
        if there and _told(run, there, job):
            left = [s for s in left if s not in there]
        time.sleep(LOOK_S)


def _told(run: Run, milestones: Sequence[Stage], job: str) -> bool:
    """Whether the jobs in the queue that read these milestones no longer wait for `job`."""
    names = {s.job for s in milestones}
    readers = {s.job for s in run.config.stages if names & set(after_of(run.config, s.round, s.name))}
    try:
        work = at_work(recorded(run), look_at_queue())
        waiting = [q for (name, _), q in work.items() if name in readers and q.state == "PENDING"]
        for id in sorted({q.id.partition("_")[0] for q in waiting}):
            told = ask_slurm(["squeue", "--noheader", f"--jobs={id}", "--states=PENDING", "--format=%E"])
            ask_slurm(["scontrol", "update", f"JobId={id}", f"Dependency={without(told, job)}"])
    except SlurmError as e:
        print(f"what looks at {', '.join(sorted(names))} waits a little longer: {e}", file=sys.stderr)
        return False
    return True


def without(dependency: str, job: str) -> str:
    """What a job waits for, as squeue tells it (`afterany:5(unfulfilled),afterany:6_*(unfulfilled)`), as
    scontrol takes it, but for one job.
    """
    return ",".join(dict.fromkeys(wait for wait, id in _WAIT.findall(dependency) if id != job))
