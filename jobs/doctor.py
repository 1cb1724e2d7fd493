"""Whether a run would work here: `python -m jobs.doctor --cluster CLUSTER [--job]`.

Asks Slurm about itself and measures this machine; with --job also a compute node, in a job of a minute. Every
finding that is not well has its remedy. Changes nothing, except for a folder in the data root that it removes
again.

JSON: `counts` by level (ok, warning, problem) and `checks`, each `level subject found remedy`.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from jobs.health.canary import ENGINES, measure
from jobs.health.checks import Check, check_lead_time, check_site, check_stages, requests
from jobs.health.machine_checks import check_machine
from jobs.health.node import check_node, kinds_of_node
from jobs.health.site import ask_site, refusal
from jobs.plan.cluster import Local, Slurm, load_cluster
from jobs.runs.queue import SlurmError
from jobs.shell.command import EXIT_FAILED, Answer, data_root, main, parser
from jobs.shell.screen import say

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}


def body(argv: Sequence[str]) -> int:
    p = parser("doctor", "Check whether runs would work here, and say what to change.")
    p.add_argument(
        "--job",
        action="store_true",
        help="also check a compute node of every kind that stages use, in a small job",
    )
    p.add_argument(
        "--no-imports", dest="modules", action="store_const", const=(), default=ENGINES,
        help="on a compute node: do not import the engines, which takes the longest",
    )  # fmt: skip
    p.add_argument(
        "--wait", type=int, default=600, metavar="S", help="with --job: give up after so long (default: 600)"
    )
    args = p.parse_args(argv)
    checks = []
    for check in examine(load_cluster(args.cluster), data_root(args), args):
        checks.append(check)
        say(as_lines(check), markup=True)
    counts = {level: sum(c.level == level for c in checks) for level in MARKS}
    say(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems")
    fields = {"counts": counts, "checks": [asdict(c) for c in checks]}
    return Answer(code=EXIT_FAILED if counts["problem"] else 0, fields=fields)


def examine(cluster: Local | Slurm, data: Path, args: argparse.Namespace) -> Iterator[Check]:
    """All findings, as they come."""
    match cluster:
        case Local():
            parent = next(p for p in (data, *data.parents) if p.is_dir())  # a local launch makes the rest
            yield from check_machine(measure(parent, ()))
        case Slurm():
            yield from examine_slurm(cluster, data, args)


def examine_slurm(cluster: Slurm, data: Path, args: argparse.Namespace) -> Iterator[Check]:
    try:
        site = ask_site()
    except SlurmError as e:
        remedy = 'run this on a login node of the cluster; for a lab first: eval "$(slurm/lab env)"'
        yield Check("problem", "Slurm", str(e), remedy)
        return
    yield from check_site(site)
    yield check_lead_time(cluster)
    for stages, asked in requests(cluster):
        yield from check_stages(site, asked, stages, refusal(cluster, asked))
    if not data.is_dir():
        remedy = "make it, or name another with `data` in the cluster file, $SERL_DATA or --data"
        yield Check("problem", "data root", f"{data} is not there", remedy)
        return
    yield from check_machine(measure(data, ()))
    for asked in kinds_of_node(cluster) if args.job else ():
        yield from check_node(cluster, asked, data, args.modules, args.wait)


def as_lines(check: Check) -> str:
    """A finding as console markup; the remedy on a line of its own."""
    mark, style = MARKS[check.level]
    remedy = f"\n{'':9}{escape(check.remedy)}" if check.remedy else ""
    return f"[{style}]{mark:9}[/][bold]{escape(check.subject)}[/]: {escape(check.found)}{remedy}"


if __name__ == "__main__":
    main(body)
