"""Run one shard here and now, in this process, for debugging: `python -m jobs.shard RUN ROUND STAGE [INDEX]`.

JSON: `shard` (as text), `attempt` (that made it), `done_before`, `seconds`, `counts`, `digest`.
"""

import time
from collections.abc import Sequence

from jobs.plan.cluster import Local, Machine, this_machine
from jobs.plan.memory import share_here
from jobs.runs.find import check_goes_on, find_run
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
    return run_here(run, chosen(run, args.round, args.stage, args.index), this_machine(Local()))


def chosen(run: Run, round: int, stage: str, index: int) -> Shard:
    own = ", ".join(s.name for s in run.config.at(round))
    if not own:
        raise RunError(f"{run.root.name} has no round {round}; its rounds are 0 to {run.config.rounds}")
    if not run.config.has(round, stage):
        raise RunError(f"{run.root.name} has no stage {stage} in round {round}; it has {own}")
    shards = run.shards(round, stage)
    if not 0 <= index < len(shards):
        raise RunError(f"{stage} has shards 0 to {len(shards) - 1}, not {index}")
    return shards[index]


def run_here(run: Run, shard: Shard, machine: Machine) -> Answer:
    from serl.stages.work import Work, execute

    if done := run.manifest(shard):
        print(f"{shard} is done already, by attempt {done.attempt}")
        return _answer(done, done_before=True)
    check_goes_on(run)
    attempt = f"here-{time.time_ns()}"
    share = share_here(run.config.stage(shard.round, shard.stage), run.config, machine, run.data_root)
    writer = f"{shard.stage}-r{shard.round:03d}-{shard.index:05d}-{attempt}-0"
    told = {"stage": shard.stage, "round": shard.round, "shard": shard.index}
    work = Work(
        run=run,
        shard=shard,
        attempt_id=attempt,
        device=machine.device,
        cores=machine.cores,
        events=Events(run.root / "events", writer, **told),
        stop=Stop().listen(),
        cache_gib=share.cache_gib if share else None,
    )
    manifest = execute(work)
    counts = ", ".join(f"{k} {v:g}" for k, v in sorted(manifest.counts.items()))
    print(f"{shard} done in {manifest.seconds:.1f} s: {counts}")
    return _answer(manifest, done_before=False)


def _answer(m: Manifest, *, done_before: bool) -> Answer:
    fields = {k: getattr(m, k) for k in ("attempt", "seconds", "digest")} | {"counts": dict(m.counts)}
    return Answer(fields=fields | {"shard": str(m.shard), "done_before": done_before})


if __name__ == "__main__":
    main(body)
