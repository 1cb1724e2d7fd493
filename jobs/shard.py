"""Run one shard here and now, in this process, for debugging: `python -m jobs.shard RUN ROUND STAGE [INDEX]`.

JSON: `shard` (as text), `attempt` (that made it), `done_before`, `seconds`, `counts`, `digest`.
"""

import time
from collections.abc import Sequence

from jobs.plan.chain import steps
from jobs.plan.cluster import Local, Machine, this_machine
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.events import Events
from serl.run.rundir import Manifest, Run, RunError, Shard
from serl.run.signals import Stop


def body(argv: Sequence[str]) -> Answer:
    p = parser("shard", "Run one shard here and now, without a job around it.")
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument("round", type=int)
    p.add_argument("stage", help="as it is called in the run file")
    p.add_argument("index", type=int, nargs="?", default=0)
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    if (args.round, args.stage) not in steps(run.config):
        raise RunError(
            f"{run.root.name} has no stage {args.stage} in round {args.round}; its rounds are 0 to {run.config.rounds}"
        )
    shards = run.shards(args.round, args.stage)
    if not 0 <= args.index < len(shards):
        raise RunError(f"{args.stage} has shards 0 to {len(shards) - 1}, not {args.index}")
    return run_here(run, shards[args.index], this_machine(Local()))


def run_here(run: Run, shard: Shard, machine: Machine) -> Answer:
    from serl.stages.work import Work, execute

    if done := run.manifest(shard):
        print(f"{shard} is done already, by attempt {done.attempt}")
        return _answer(done, done_before=True)
    attempt = f"here-{time.time_ns()}"
    events = Events(
        run.root / "events",
        f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-{attempt}-0",
        stage=shard.stage,
        round=shard.round,
        shard=shard.index,
    )
    manifest = execute(
        Work(
            run=run,
            shard=shard,
            attempt_id=attempt,
            device=machine.device,
            cores=machine.cores,
            events=events,
            stop=Stop().listen(),
        )
    )
    print(
        f"{shard} done in {manifest.seconds:.1f} s: "
        + ", ".join(f"{k} {v:g}" for k, v in sorted(manifest.counts.items()))
    )
    return _answer(manifest, done_before=False)


def _answer(m: Manifest, *, done_before: bool) -> Answer:
    shown = {
        "shard": str(m.shard),
        "attempt": m.attempt,
        "seconds": m.seconds,
        "counts": dict(m.counts),
        "digest": m.digest,
    }
    return Answer(fields=shown | {"done_before": done_before})


if __name__ == "__main__":
    main(body)
