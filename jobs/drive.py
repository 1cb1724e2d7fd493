"""Bring a run to its end, from launch or resume alike: here under a live table, or handed over to Slurm."""

import signal

from rich.console import Console
from rich.live import Live

from jobs.cluster import Local, Slurm, this_machine
from jobs.local import GRACE_S, LocalChain, end_leftovers
from jobs.progress import Board
from jobs.report import write_report
from jobs.runs import claim
from jobs.slurm import submit_missing
from serl.preempt import Stop
from serl.rundir import Run


def drive(run: Run, cluster: Local | Slurm) -> int:
    match cluster:
        case Local():
            return _run_here(run, cluster)
        case Slurm():
            return _hand_over(run, cluster)


def _hand_over(run: Run, cluster: Slurm) -> int:
    """Submit what is missing, and leave: nobody is needed from here on."""
    console = Console()
    for s in submit_missing(run, cluster):
        console.print(f"{s.job}: {len(s.shards)} shards as job {s.id}", highlight=False)
    console.print(f"{run.root.name} is in the queue; look with `python -m jobs.status {run.root.name} --watch`", highlight=False)
    return 0


def _run_here(run: Run, cluster: Local) -> int:
    console = Console()
    claim(run.root)
    if left := end_leftovers(run, GRACE_S):
        console.print(f"ended {left} processes that an earlier launcher had left behind")
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop.request)
    chain = LocalChain(run, cluster, this_machine(cluster), stop)
    board = Board(run, console)
    with Live(board, console=console, refresh_per_second=2, transient=False) as live:
        try:
            chain.finish(tick=board.look)
        finally:
            board.look(force=True)
            live.refresh()
    paths, summary = write_report(run)
    console.print(summary)
    console.print(f"report: {paths.html}", markup=False, highlight=False, soft_wrap=True)
    return 0
