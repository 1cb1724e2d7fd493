"""On a node: start a shard a second time that is far beyond its siblings (`stragglers` in the cluster file).
No daemon watches: a job that has done its shard looks after the others before it leaves.

`python -m jobs.chain.spares RUN JOB`. Shards that are late already get a spare at once; where only a few are
left, nobody may come by again, so theirs is to begin when they would be late, and is taken back by a sibling
that ends before. At most one for each shard. Both jobs work on the same parts; the first to publish wins, and
the other ends at its next part's end (`serl.stages.parts`).
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from jobs.chain.launched import launched
from jobs.chain.sbatch import submit_spare
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Slurm, Stragglers
from jobs.runs.queue import SlurmError, ask_slurm, at_work, look_at_queue, recorded, running_s
from serl.run.files import write_if_absent
from serl.run.rundir import Run, Shard

FEW = 0.1  # share of a stage's shards that counts as the last few; one is always few


def late(
    rule: Stragglers, num_shards: int, done_s: Sequence[float], running_s: Mapping[int, float]
) -> dict[int, float]:
    """Which running shards get a spare, and in how many seconds it is to begin."""
    if not done_s or len(done_s) < rule.min_done * num_shards:
        return {}
    limit_s = rule.factor * median(done_s)
    few = num_shards - len(done_s) <= max(1, FEW * num_shards)
    return {index: max(0.0, limit_s - s) for index, s in running_s.items() if few or s > limit_s}


def look_after_siblings(run: Run, cluster: Slurm, name: str) -> None:
    assert cluster.stragglers is not None, "only jobs of a cluster with this rule look after others"
    (job,) = (job for job in plan(run.config, lambda shard: False) if job.name == name)
    manifests = {s: run.manifest(s) for s in job.missing}
    missing = {s.index: s for s, m in manifests.items() if m is None}
    known, queue = [s for s in recorded(run) if s.job == name], look_at_queue()
    spares = at_work([s for s in known if s.spare], queue)
    useless = [q.id for (_, i), q in spares.items() if q.state == "PENDING" and i not in missing]
    if useless:
        ask_slurm(["scancel", *useless])
    begun = running_s()
    firsts = at_work([s for s in known if not s.spare], queue)
    working = {i: begun[q.id] for (_, i), q in firsts.items() if i in missing and q.id in begun}
    done_s = [m.seconds for m in manifests.values() if m]
    for index, in_s in late(cluster.stragglers, job.num_shards, done_s, working).items():
        _start_spare(run, cluster, job, missing[index], in_s)


def _start_spare(run: Run, cluster: Slurm, job: Job, shard: Shard, in_s: float) -> None:
    note = run.home(shard.round, shard.stage) / "spares" / f"{job.name}-{shard.index:05d}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    told = {"shard": str(shard), "in_s": round(in_s, 1), "time": round(time.time(), 3)}
    if write_if_absent(note, json.dumps(told).encode()):
        spare = submit_spare(run, cluster, job, shard, int(in_s))
        print(f"{shard} is far beyond its siblings: job {spare.id} does it a second time, in {in_s:.0f} s")


if __name__ == "__main__":
    opened = Run.open(Path(sys.argv[1]))
    try:
        look_after_siblings(opened, launched(opened).cluster, sys.argv[2])
    except SlurmError as e:
        print(f"nobody looked after the siblings: {e}", file=sys.stderr)
