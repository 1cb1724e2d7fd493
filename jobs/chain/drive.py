"""Bring a run to its end, from launch or resume alike: here under a live table, or handed over to Slurm."""

import signal

from rich.console import Console
from rich.live import Live

from jobs.chain.local import GRACE_S, Halted, LocalChain, end_leftovers
from jobs.chain.slurm import submit_missing
from jobs.chain.window import RELAY
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm, this_machine
from jobs.runs.processes import claim
from jobs.runs.progress import Board
from jobs.shell.screen import say
from serl.run.rundir import Run
from serl.run.signals import Stop


def drive(run: Run, cluster: Local | Slurm) -> int:
    match cluster:
        case Local():
            return run_here(run, cluster, Stop())
        case Slurm():
            return _hand_over(run, cluster)


def _hand_over(run: Run, cluster: Slurm) -> int:
    """Submit what is missing, and leave: nobody is needed from here on."""
    for s in submit_missing(run, cluster):
        rest = f"Slurm takes no more jobs for now: job {s.id} submits the rest"
        say(rest if s.job == RELAY else f"{s.job}: {len(s.shards)} shards as job {s.id}")
    say(f"{run.root.name} is in the queue; look with `python -m jobs.status {run.root.name} --watch`")
    return 0


def run_here(run: Run, cluster: Local, stop: Stop) -> int:
    """The chain on this machine, to its end or until `stop` is asked."""
    console = Console()
    claim(run.root)
    if left := end_leftovers(run, GRACE_S):
        say(f"ended {left} processes that an earlier launcher had left behind", console=console)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop.request)
    from jobs.costs.forecast import freeze_forecast

    freeze_forecast(run, cluster, plan(run.config, run.done))
    chain = LocalChain(run, cluster, this_machine(cluster), stop)
    board = Board(run, console)
    halted: Halted | None = None
    with Live(board, console=console, refresh_per_second=2, transient=False) as live:
        try:
            chain.finish(tick=board.look)
        except Halted as e:
            halted = e
        finally:
            board.look(force=True)
            live.refresh()
    _report(Run.open(run.root), console)
    if halted:
        raise halted
    return 0


def _report(run: Run, console: Console) -> None:
    """What came of the run, written; loaded only here, at the end."""
    from jobs.reporting.written import write_report

    paths, summary = write_report(run)
    console.print(summary)
    say(f"report: {paths.html}", console=console)
