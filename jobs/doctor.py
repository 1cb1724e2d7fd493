"""Whether a run would work here: `python -m jobs.doctor --cluster CLUSTER [--job]`.

Asks Slurm about itself and measures this machine; with --job also a compute node, in a job of a minute. Every finding that is not well has
its remedy. Changes nothing, except for a folder in the data root that it removes again.

JSON: `counts` by level (ok, warning, problem) and `checks`, each `level subject found remedy`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from jobs.chain.batch import by_the_script, directives, gpus, setup
from jobs.chain.queue import SlurmError, ask_slurm
from jobs.health.canary import ENGINES, from_json, measure
from jobs.health.checks import Check, check_site, ok, problem, warning
from jobs.health.machine_checks import check_clocks, check_data, check_machine
from jobs.health.site import (
    LIST_ASSOCIATIONS,
    LIST_NODES,
    LIST_QOS,
    SHOW_CONFIG,
    SHOW_PARTITIONS,
    Site,
    parse_associations,
    parse_nodes,
    parse_partitions,
    parse_qos,
    parse_settings,
)
from jobs.health.stage_checks import check_lead_time, check_stages
from jobs.plan.cluster import Local, Resources, Slurm, load_cluster
from jobs.runs.find import ROOT
from jobs.shell.command import EXIT_FAILED, Answer, data_root, main, parser
from serl.stages import kinds

POLL_S = 1.0
JOB_MIN = 15
SHARE_S = 30.0  # for a file written on a node to show on this one
MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}


class Unanswered(Exception):
    """A command is missing or failed; the message carries its words."""


def body(argv: Sequence[str]) -> int:
    p = parser("doctor", "Check whether runs would work here, and say what to change.")
    p.add_argument(
        "--job",
        action="store_true",
        help="also check a compute node of every kind that the stages use, in a small job",
    )
    p.add_argument(
        "--here",
        action="store_true",
        help="this machine is a compute node: check it as one, and ask Slurm nothing",
    )
    p.add_argument(
        "--no-imports",
        action="store_true",
        help="on a compute node: do not import the engines, which takes the longest",
    )
    p.add_argument(
        "--wait",
        type=int,
        default=600,
        metavar="S",
        help="with --job: give up on a job that has not answered after so long (default: 600)",
    )
    args = p.parse_args(argv)
    cluster = load_cluster(args.cluster)
    data = data_root(args)
    console = Console()
    checks = []
    for check in examine(cluster, data, args):
        checks.append(check)
        console.print(as_lines(check), highlight=False, soft_wrap=True)
    counts = {level: sum(c.level == level for c in checks) for level in MARKS}
    console.print(
        f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems", highlight=False
    )
    return Answer(
        code=EXIT_FAILED if counts["problem"] else 0,
        fields={"counts": counts, "checks": [asdict(c) for c in checks]},
    )


def examine(cluster: Local | Slurm, data: Path, args: argparse.Namespace) -> Iterator[Check]:
    """All findings, as they come."""
    match cluster:
        case _ if args.here:
            yield from check_machine(measure(data, engines(args)), None, node=True, several=True)
        case Local():
            parent = next(p for p in (data, *data.parents) if p.is_dir())  # a local launch makes the rest
            yield from check_machine(measure(parent, ()), None, node=False, several=False)
            yield from check_data(data)
        case Slurm():
            yield from examine_slurm(cluster, data, args)


def examine_slurm(cluster: Slurm, data: Path, args: argparse.Namespace) -> Iterator[Check]:
    try:
        site = ask_site()
    except Unanswered as e:
        yield problem(
            "Slurm",
            str(e),
            'run this on a login node of the cluster; for a lab first: eval "$(slurm/lab env)"',
        )
        return
    yield from check_site(site)
    yield check_lead_time(cluster)
    yield from check_stages(site, cluster)
    if not data.is_dir():
        yield problem(
            "data root",
            f"{data} is not there",
            "make it, or name another with `data` in the cluster file, $SERL_DATA or --data",
        )
        return
    yield from check_machine(measure(data, ()), None, node=False, several=True)
    yield from check_data(data)
    if args.job:
        for asked in kinds_of_node(cluster):
            yield from check_node(cluster, asked, data, engines(args), args.wait)


def engines(args: argparse.Namespace) -> tuple[str, ...]:
    """What a compute node is to import."""
    return () if args.no_imports else ENGINES


def as_lines(check: Check) -> str:
    """A finding as console markup; the remedy on a line of its own."""
    mark, style = MARKS[check.level]
    remedy = f"\n{'':9}{escape(check.remedy)}" if check.remedy else ""
    return f"[{style}]{mark:9}[/][bold]{escape(check.subject)}[/]: {escape(check.found)}{remedy}"


# -------------------------------------------------------------------------------------------------------- Slurm's words
def ask_site() -> Site:
    settings = parse_settings(ask(SHOW_CONFIG))
    partitions, default = parse_partitions(ask(SHOW_PARTITIONS))
    try:
        associations = parse_associations(ask((*LIST_ASSOCIATIONS, "where", f"user={user()}")))
        qos = parse_qos(ask(LIST_QOS))
    except Unanswered:  # no accounting, or it is down: a finding of its own
        associations = qos = None
    return Site(
        settings=settings,
        partitions=partitions,
        default_partition=default,
        nodes=parse_nodes(ask(LIST_NODES)),
        associations=associations,
        qos=qos,
    )


def ask(command: Sequence[str]) -> str:
    try:
        return ask_slurm([*command])
    except SlurmError as e:
        raise Unanswered(str(e)) from e


def user() -> str:
    return ask(("id", "--user", "--name")).strip()


# ------------------------------------------------------------------------------------------------------- a compute node
def kinds_of_node(cluster: Slurm) -> list[Resources]:
    """One small request for each kind of node that the stages use: of one GPU where they use any."""
    found: dict[tuple, Resources] = {}
    for kind in kinds().values():
        own = cluster.resources_of(kind)
        small = {
            "nodes": 1,
            "tasks_per_node": 1,
            "gpus_per_node": min(1, own.gpus_per_node),
            "time_min": min(JOB_MIN, own.time_min),
        }
        found.setdefault(
            (own.partition, own.constraint, small["gpus_per_node"]), own.model_copy(update=small)
        )
    return list(found.values())


def job_script(cluster: Slurm, asked: Resources, folder: Path, data: Path, modules: Sequence[str]) -> str:
    """The text for sbatch: the same setup and interpreter as a stage's job."""
    options = {
        "job_name": "serl-doctor",
        "chdir": str(ROOT),  # a run's jobs start in its copy of the code
        "output": str(folder / "log"),
        "time": asked.time_min,
        "nodes": 1,
        "ntasks": 1,
        "cpus_per_task": asked.cpus_per_task,
        "mem": f"{asked.mem_gb}GB",
        **{k: getattr(asked, k) for k in ("partition", "account", "qos", "constraint")},
        **gpus(asked),
        **asked.extra,
    }
    python = cluster.python or shlex.quote(sys.executable)
    command = f"srun {python} -m jobs.health.canary {shlex.quote(str(data))} {' '.join(modules)} --into {shlex.quote(str(folder / 'facts.json'))}"
    return "\n".join(["#!/bin/bash", *directives(options), "", *setup(ROOT, cluster), command, ""])


def check_node(
    cluster: Slurm, asked: Resources, data: Path, modules: Sequence[str], wait_s: int
) -> Iterator[Check]:
    """Submit, wait, judge; the job is cancelled and the folder removed whatever happens."""
    subject = f"job in {asked.partition or 'the default partition'}"
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=data))
    job = None
    try:
        (folder / "script").write_text(job_script(cluster, asked, folder, data, modules))
        submitted = time.time()
        with by_the_script():
            job = ask(("sbatch", "--parsable", str(folder / "script"))).strip().partition(";")[0]
        state = wait_for(job, folder / "facts.json", wait_s)
        if not (folder / "facts.json").exists():
            yield _no_answer(subject, job, state, folder / "log")
            return
        facts = from_json((folder / "facts.json").read_text())
        yield ok("data root", f"what {facts.host} writes there is seen here")
        yield check_clocks(facts, submitted, time.time())
        yield from check_machine(facts, asked, node=True, several=False)
    except Unanswered as e:
        yield problem(subject, str(e), "mend what sbatch names in the cluster file")
    finally:
        if job:
            subprocess.run(["scancel", job], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(job: str, answer: Path, wait_s: int) -> str:
    """Until the answer is there, the job is gone for a while, or the time is over; returns its last state with Slurm's reason."""
    deadline = time.monotonic() + wait_s
    state = ""
    while not answer.exists() and time.monotonic() < deadline:
        now = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T %r"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        state = now or state
        if not now.startswith(("PENDING", "RUNNING", "CONFIGURING", "COMPLETING")):
            deadline = min(
                deadline, time.monotonic() + (SHARE_S if now.startswith("COMPLETED") else 2 * POLL_S)
            )
        time.sleep(POLL_S)
        os.listdir(answer.parent)  # NFS then looks again at what is there
    return state


def _no_answer(subject: str, job: str, state: str, log: Path) -> Check:
    if state.startswith("PENDING"):
        return warning(
            subject,
            f"{job} has not started: {state}",
            "try again with a longer --wait, or when the queue is shorter",
        )
    last = (
        " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
        if log.exists()
        else "and no log: nodes may not see the data root"
    )
    return problem(
        subject,
        f"{job} ended without an answer: {state or 'gone'}: {last}",
        "mend `setup`, `python` or `data` in the cluster file",
    )


if __name__ == "__main__":
    main(body)
