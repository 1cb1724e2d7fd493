"""Drive a local run to its end, from launch or resume alike: claim it, clear leftovers, run the chain under a live table, report."""

import signal

from rich.console import Console
from rich.live import Live

from jobs.cluster import Local, Machine
from jobs.local import GRACE_S, LocalChain, end_leftovers
from jobs.progress import Board
from jobs.report import write_report
from jobs.runs import claim
from serl.preempt import Stop
from serl.rundir import Run


def drive(run: Run, cluster: Local, machine: Machine) -> int:
    console = Console()
    claim(run.root)
    if left := end_leftovers(run, GRACE_S):
        console.print(f"ended {left} processes that an earlier launcher had left behind")
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop.request)
    chain = LocalChain(run, cluster, machine, stop)
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
