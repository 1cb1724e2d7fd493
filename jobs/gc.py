"""What can go: `python -m jobs.gc [RUN ...] [--apply]` lists leftovers by kind, with inodes and bytes; with --apply it removes them.

Leftovers are checkpoints, parts and files of attempts that a finished shard's manifest does not name, temporary files, submitit's pickles and
heartbeats of finished stages, bytecode caches, drafts of launches that died, and shared results that no run refers to any more.

Never touched: what a manifest names, so data and the policies of all rounds (a run without one of its policies could be neither resumed nor
checked; to be rid of them, remove the run); logs, events and reports; any run that somebody may be at work on; what changed within the last
hour (--older-than). --keep-checkpoints N also thins the checkpoints of unfinished trainings, to the N newest complete ones.

JSON: `applied`, `items` (each `run kind inodes bytes`, summed by run and kind), `inodes`, `bytes`, `skipped` (sentences).
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.chain.queue import SlurmError, look_at_queue
from jobs.runs.find import find_run
from jobs.runs.garbage import Item, busy, of_data, of_run, openable, settled, still_orphan
from jobs.runs.state import activities
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import Run, RunError

HOUR_S = 3600.0


def body(argv: Sequence[str]) -> int:
    p = parser("gc", "List what can go, or remove it.")
    p.add_argument(
        "run", nargs="*", help="look at these runs only; without them, at all, and at what belongs to none"
    )
    p.add_argument("--apply", action="store_true", help="remove what is listed")
    p.add_argument(
        "--older-than", type=float, default=1.0, metavar="HOURS", help="leave what changed since (default: 1)"
    )
    p.add_argument(
        "--keep-checkpoints",
        type=int,
        metavar="N",
        help="of trainings that are not done, keep only so many complete checkpoints",
    )
    args = p.parse_intermixed_args(argv)
    if args.keep_checkpoints is not None and args.keep_checkpoints < 1:
        raise RunError("--keep-checkpoints: at least 1; the last complete checkpoint is never removed")
    if not args.older_than >= 0.0:
        raise RunError(f"--older-than {args.older_than}: give hours, at least 0")
    data = data_root(args)
    runs, skipped = ([find_run(name, data) for name in args.run], []) if args.run else openable(data)
    found: list[Item] = []
    for run, activity in zip(runs, activities(runs)):
        try:
            if why := busy(run, activity):
                skipped.append(f"{run.root.name}: {why}")
                continue
            found += of_run(run, keep_checkpoints=args.keep_checkpoints)
        except RunError as e:
            skipped.append(str(e))
    if not args.run:
        more, faults = of_data(data, _queue())
        found, skipped = found + more, skipped + faults
    found = settled(found, args.older_than * HOUR_S)
    if args.apply:
        found, left = _remove(found, {run.root.name: run for run in runs}, data)
        skipped += left
    return _told(found, skipped, applied=args.apply)


def _queue() -> list:
    try:
        return look_at_queue()
    except SlurmError:  # no Slurm here; a run that was submitted to one is skipped for it
        return []


def _remove(found: Sequence[Item], runs: dict[str, Run], data: Path) -> tuple[list[Item], list[str]]:
    """Remove, run by run, looking again at who is at work; returns what went, and why the rest did not."""
    gone: list[Item] = []
    left: list[str] = []
    by_owner: dict[str, list[Item]] = defaultdict(list)
    for item in found:
        by_owner[item.owner].append(item)
    for owner, items in by_owner.items():
        if owner and (why := busy(runs[owner], activities([runs[owner]])[0])):
            left.append(f"{owner}: {why}")
            continue
        faults: Counter[str] = Counter()
        for item in items:
            try:
                if item.kind == "orphaned shared results":
                    _remove_store(item.path, data)
                elif item.path.is_dir() and not item.path.is_symlink():
                    shutil.rmtree(item.path)
                else:
                    item.path.unlink(missing_ok=True)
                gone.append(item)
            except OSError as e:
                faults[e.strerror or str(e)] += 1
            except RunError as e:
                left.append(f"{item.path}: {e}")
        left += [
            f"{owner or 'what belongs to no run'}: {n} of {len(items)} could not be removed: {why}"
            for why, n in faults.items()
        ]
    return gone, left


def _remove_store(store: Path, data: Path) -> None:
    """Out of the way first and whole, so that a run launched meanwhile finds either all of it or nothing."""
    if not still_orphan(data, store):
        raise RunError("a run has begun to use it")
    doomed = store.with_name(f".gone-{store.name}")
    store.rename(doomed)
    shutil.rmtree(doomed)


def _told(found: Sequence[Item], skipped: Sequence[str], *, applied: bool) -> Answer:
    sums: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for item in found:
        inodes, size = sums[item.owner, item.kind]
        sums[item.owner, item.kind] = inodes + item.inodes, size + item.bytes
    table = Table(box=None, pad_edge=False)
    for name, justify in (("run", "left"), ("what", "left"), ("inodes", "right"), ("MB", "right")):
        table.add_column(name, justify=justify)
    for (owner, kind), (inodes, size) in sorted(sums.items()):
        table.add_row(Text(owner or "(none)"), kind, f"{inodes:,}", f"{size / 1e6:,.1f}")
    total = sum(i.inodes for i in found), sum(i.bytes for i in found)
    console = Console(soft_wrap=True)
    if found:
        Console().print(table)
    for why in skipped:
        console.print(f"left alone: {why}", markup=False, highlight=False, style="yellow")
    done = (
        f"removed {total[0]:,} inodes, {total[1] / 1e6:,.1f} MB"
        if applied
        else f"{total[0]:,} inodes, {total[1] / 1e6:,.1f} MB can go: add --apply"
    )
    nothing = "nothing was removed" if applied else "nothing can go"
    console.print(done if found else nothing, highlight=False)
    items = [
        {"run": owner, "kind": kind, "inodes": inodes, "bytes": size}
        for (owner, kind), (inodes, size) in sorted(sums.items())
    ]
    return Answer(
        fields={
            "applied": applied,
            "items": items,
            "inodes": total[0],
            "bytes": total[1],
            "skipped": list(skipped),
        }
    )


if __name__ == "__main__":
    main(body)
