"""When would it be done, on other nodes and in other weather? `python -m jobs.whatif CONFIG|SWEEP.yaml
[--nodes 2,4,8]`

Plays the plan of a run, or of a whole sweep with its lanes and shared stages, many times by chance, from what
earlier runs on the cluster took (`jobs.costs.calibration`). The first table has a line for every combination
of the comma-separated values; the others say what number of shards, what size of parts and what interval
between checkpoints would use least, and what they cost now. Nothing is submitted or written.

A node is as much as the widest task takes of one: --nodes 4 means that four single-node tasks, or one
four-node training, run at once. On this machine it means its cores or GPUs.

JSON: `plan`, `refused` (why, by number of nodes), `preempt_per_hour` (the mean), `worlds`: a list of `nodes
array_limit median_s high_s used_s lost_s repeated_s preemptions gpu_hours`, `shards`: of a stage and count
`stage round shards seconds used_s wasted_s now`, `parts`: `stage round part seconds wasted_s now`,
`checkpoints`: `round every_steps minutes wasted_s now`.
"""

import argparse
import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from jobs.costs import alternatives
from jobs.costs.accounting import duration
from jobs.costs.alternatives import Chain, chain_of
from jobs.costs.tasks import World
from jobs.plan.cluster import load_cluster
from jobs.shell.command import Answer, data_root, main, parser
from jobs.shell.screen import say, table

REQUEUE_S = 120.0


def body(argv: Sequence[str]) -> Answer:
    args = _parser().parse_intermixed_args(argv)
    data = data_root(args)
    chain = chain_of(args.what, args.override, load_cluster(args.cluster), data)
    base = _world(chain, args)
    asked = itertools.product(args.nodes, args.array_limit)
    worlds, refused = alternatives.possible(
        chain, [replace(base, slots=n or base.slots, array_limit=a or base.array_limit) for n, a in asked]
    )
    found = {
        "plan": chain.name,
        "refused": refused,
        "preempt_per_hour": round(base.preempt_per_hour, 4),
        "worlds": [alternatives.played(chain, world, args.histories) for world in worlds],
        "shards": list(alternatives.shards(chain, worlds[0], args.histories)),
        "parts": list(alternatives.parts(chain, worlds[0])),
        "checkpoints": list(alternatives.checkpoints(chain, worlds[0])),
    }
    _show(found, chain, base, Console())
    return Answer(fields=found)


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "whatif",
        "When a run or a sweep would be done on other nodes and preemption rates; what would cost least.",
    )
    p.add_argument("what", metavar="CONFIG|SWEEP.yaml", type=Path, help="a run file or a sweep file")
    p.add_argument("override", nargs="*", help="changes to the run file, like respond.shards=32")
    for option, kind, default, words in (
        ("--nodes", _counts, (None,), "nodes to try, like 2,4,8 (default: all; here, this machine)"),
        ("--array-limit", _counts, (None,), "tasks of one array at once (default: the cluster file's)"),
        ("--preempt-per-hour", _rate, None, "how often a node is taken away (default: as runs saw it)"),
        ("--grace-s", _rate, 0.0, "seconds that a preempted task has to reach a safe point (default: 0)"),
        ("--requeue-s", _rate, None,
         f"seconds from a preemption to the next start (default: as seen; else {REQUEUE_S:.0f})"),
        ("--queue-wait-s", _rate, 0.0, "mean wait in the queue before each start (default: 0)"),
        ("--stragglers", _rate, 0.0, "log-normal sigma of a task's pace, beyond what was measured"),
        ("--histories", _count, 100, "how often each line is played (default: 100)"),
    ):  # fmt: skip
        p.add_argument(option, type=kind, default=default, help=words)
    return p


def _counts(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        how = "give whole numbers with commas between them, like 2,4,8"
        raise argparse.ArgumentTypeError(f"{text}: {how}")
    counts = tuple(int(x) for x in text.split(","))
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least one")
    return counts


def _count(text: str) -> int:
    if len(counts := _counts(text)) > 1:
        raise argparse.ArgumentTypeError(f"{text}: give one whole number")
    return counts[0]


def _rate(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text}: give a number of at least 0")


def _world(chain: Chain, args: argparse.Namespace) -> World:
    """As it was seen, but for what the options say."""
    seen = chain.planner.site.world(chain.planner.known)
    if args.preempt_per_hour is not None:
        seen = replace(seen, preempt_per_hour=args.preempt_per_hour, learned=None)
    learned_s = seen.requeue_s if (taken := chain.planner.known.taken) and taken.taken else REQUEUE_S
    requeue_s = learned_s if args.requeue_s is None else args.requeue_s
    waits = {"requeue_s": requeue_s, "queue_wait_s": args.queue_wait_s}
    return replace(seen, grace_s=args.grace_s, straggle=args.stragglers, **waits)


def _show(found: Mapping[str, list], chain: Chain, base: World, console: Console) -> None:
    site, known = chain.planner.site, chain.planner.known
    say(f"{chain.name} on {site.label}, as {known.model} was measured there in {len(known.runs)} runs")
    if rate := base.learned:
        seen = f"{rate.taken} times in {rate.node_hours:.1f} node-hours"
        say(f"nodes are taken away {rate}, as was seen there: {seen}")
    header = ("nodes", "array", "done after", "90 % by", "tasks use", "lost", "restarts", "taken", "GPU-h")
    rows = [
        [str(w["nodes"] or "all"), str(w["array_limit"] or "none"),
         *(duration(w[k], 1) for k in ("median_s", "high_s", "used_s", "lost_s", "repeated_s")),
         f"{w['preemptions']:.1f}", f"{w['gpu_hours']:.2f}"]
        for w in found["worlds"]
    ]  # fmt: skip
    console.print(table([f">{name}" for name in header], rows))
    for nodes, why in found["refused"].items():
        say(f"not on {nodes}: {why}")
    columns = ("stage", ">shards", ">done after", ">tasks use", ">start-ups and lost", "")
    _choices(found["shards"], columns, ("shards", "seconds", "used_s", "wasted_s"), "fastest", console)
    columns = ("stage", ">items in a part", ">that is", ">start-ups and lost", "")
    if any(p["wasted_s"] for p in found["parts"]):
        _choices(found["parts"], columns, ("part", "seconds", "wasted_s"), "cheapest", console)
    columns = (">checkpoint every", ">that is", ">saves, start-ups and lost", "")
    _choices(found["checkpoints"], columns, ("every_steps", "minutes", "wasted_s"), "cheapest", console)


def _choices(
    lines: Sequence[dict], columns: Sequence[str], keys: Sequence[str], best: str, console: Console
) -> None:
    """A table of what could be chosen; notes say what is now, and what of its stage is best."""
    told = {"every_steps": "{} steps".format, "minutes": "{:.1f} min".format, "shards": str, "part": str}
    by = "seconds" if best == "fastest" else "wasted_s"
    rows = []
    for line in lines:
        own = [other for other in lines if other.get("stage") == line.get("stage")]
        is_best = line is min(own, key=lambda other: other[by])
        cells = [told.get(k, lambda s: duration(s, 1))(line[k]) for k in keys]
        notes = [word for word, holds in (("now", line["now"]), (best, is_best)) if holds]
        rows.append([*([line["stage"]] if "stage" in line else []), *cells, "  ".join(notes)])
    if rows:
        console.print(table(columns, rows))


if __name__ == "__main__":
    main(body)
