"""Finish a run: `python -m jobs.resume RUN [--accept ROUND]` runs exactly what has no manifest yet.

It goes on where the run was launched: on Slurm with the cluster file's content of then, unless --cluster says
otherwise.

JSON: the fields of `jobs.status RUN`, as the run stands when the verb ends.
"""

from collections.abc import Sequence

from jobs.chain.drive import drive
from jobs.chain.launched import last_cluster
from jobs.plan.chain import plan
from jobs.plan.cluster import Slurm, load_cluster
from jobs.plan.preflight import check_engine, preflight
from jobs.runs.code import code_version, freeze_code, packages_of
from jobs.runs.find import check_goes_on, find_run
from jobs.runs.queue import reach_slurm
from jobs.runs.state import state_of
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import RunError
from serl.safety.checkup import accept


def body(argv: Sequence[str]) -> int:
    p = parser("resume", "Finish a run: what is done stays, what is missing runs.", cluster=None)
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument(
        "--accept",
        type=int,
        metavar="ROUND",
        help="go on in spite of what safety says of this round; later rounds are measured by it",
    )
    args = p.parse_intermixed_args(argv)
    run = find_run(args.run, data_root(args))
    if not all(run.done(s) for stage in run.config.stages for s in run.shards(stage.round, stage.name)):
        check_goes_on(run)
    cluster = (
        last_cluster(run) or load_cluster("local") if args.cluster is None else load_cluster(args.cluster)
    )
    if args.accept is not None:
        accept(run, args.accept)
    check_engine(run.config, cluster, run.data_root)
    if isinstance(cluster, Slurm):
        reach_slurm()
    missing = plan(run.config, run.done)
    preflight(run.config, run.data_root, missing)
    if not (run.root / "code").exists() and code_version() != run.code:
        raise RunError(
            f"{run.root}: its launch died before the code was frozen; check out {run.code} and resume, or "
            "launch it anew"
        )
    freeze_code(run.root / "code", packages_of(run.config))
    code = drive(run, cluster)
    return Answer(code=code, fields=state_of(run).facts()) if args.json else code


if __name__ == "__main__":
    main(body)
