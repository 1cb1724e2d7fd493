"""What can go: `python -m jobs.gc [RUN ...] [--apply]` lists leftovers by kind, with inodes and bytes, or
removes them.

Leftovers are checkpoints, parts and files of attempts that a finished shard's manifest does not name,
temporary files, submitit's pickles and heartbeats of finished stages, shared results that no run refers to
any more, and policies that were published within a round (`train.rollout.publish_every`), once they are
scored and unless one is the best on validation.

Never touched: what a manifest names, so data and the policies of all rounds (a run without one of its
policies could be neither resumed nor checked; to be rid of them, remove the run); logs, events and reports;
any run that somebody may be at work on; what changed within the last hour (--older-than).

JSON: `applied`, `items` (each `run kind inodes bytes`, summed by run and kind), `inodes`, `bytes`, `skipped`
(sentences).
"""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from jobs.reporting.policies import best_of
from jobs.runs.find import find_run
from jobs.runs.garbage import Item, busy, of_data, of_run, remove
from jobs.runs.state import Looks, State
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say, table
from serl.run.rundir import RunError

HOUR_S = 3600.0


def body(argv: Sequence[str]) -> int:
    p = parser("gc", "List what can go, or remove it.")
    p.add_argument("run", nargs="*", help="these runs only (default: all, and what belongs to none)")
    p.add_argument("--apply", action="store_true", help="remove what is listed")
    p.add_argument(
        "--older-than", type=float, default=1.0, metavar="HOURS", help="leave what changed since (default: 1)"
    )
    args = p.parse_intermixed_args(argv)
    if not args.older_than >= 0.0:
        raise RunError(f"--older-than {args.older_than}: give hours, at least 0")
    data, looks = data_root(args), Looks()
    if args.run:
        states, faults = looks([find_run(name, data) for name in args.run]), {}
    else:
        states, faults = looks.everything(data)
    found, skipped = leftovers(states)
    skipped += map(str, faults.values())
    if not args.run:
        more, left = of_data(data)
        found, skipped = [*found, *more], [*skipped, *left]
    # Something that leaves no record, like jobs.shard, may be at work on what changed lately.
    found = [item for item in found if time.time() - item.changed > args.older_than * HOUR_S]
    if args.apply:
        found, left = remove(found, {s.run.root.name: s.run for s in states}, data)
        skipped += left
    return answer(found, skipped, applied=args.apply)


def leftovers(states: Sequence[State]) -> tuple[list[Item], list[str]]:
    """Of the runs that nobody is at work on, and why the others are left alone."""
    found: list[Item] = []
    skipped: list[str] = []
    for state in states:
        try:
            if why := busy(state):
                skipped.append(f"{state.run.root.name}: {why}")
            else:
                found += of_run(state.run, best_of(state.run))
        except RunError as e:
            skipped.append(str(e))
    return found, skipped


def answer(found: Sequence[Item], skipped: Sequence[str], *, applied: bool) -> Answer:
    inodes: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for item in found:
        inodes[item.owner, item.kind] += item.inodes
        sizes[item.owner, item.kind] += item.bytes
    items = [{"run": o, "kind": k, "inodes": n, "bytes": sizes[o, k]} for (o, k), n in sorted(inodes.items())]
    rows = [(i["run"] or "(none)", i["kind"], f"{i['inodes']:,}", f"{i['bytes'] / 1e6:,.1f}") for i in items]
    if rows:
        Console().print(table(("run", "what", ">inodes", ">MB"), rows))
    for why in skipped:
        say(f"left alone: {why}", style="yellow")
    total = f"{inodes.total():,} inodes, {sizes.total() / 1e6:,.1f} MB"
    if applied:
        say(f"removed {total}" if found else "nothing was removed")
    else:
        say(f"{total} can go: add --apply" if found else "nothing can go")
    fields = {"applied": applied, "items": items, "inodes": inodes.total(), "bytes": sizes.total()}
    return Answer(fields=fields | {"skipped": list(skipped)})


if __name__ == "__main__":
    main(body)
