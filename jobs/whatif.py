"""When would it be done, on other nodes and in other weather? `python -m jobs.whatif CONFIG|SWEEP.yaml [--nodes 2,4,8] [--array-limit ...]`

Plays the plan of a run, or of a whole sweep with its lanes and shared stages, many times by chance, from what earlier runs on the cluster took
(`jobs.costs.calibration`). The first table has a line for every combination of the comma-separated values; the others say what number of shards and
what interval between checkpoints would use least, and what they cost now. Nothing is submitted or written.

A node is as much as the widest task takes of one: --nodes 4 means that four single-node tasks, or one four-node training, run at once. On this
machine it means its cores or GPUs.

JSON: `plan`, `refused` (why, by number of nodes), `preempt_per_hour` (the mean), `worlds`: a list of `nodes array_limit median_s high_s used_s lost_s repeated_s preemptions gpu_hours`, `shards`: of a stage and count
`stage round shards seconds used_s wasted_s now`, `parts`: `stage round part seconds wasted_s now`, `checkpoints`: `round every_steps minutes
wasted_s now`.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.costs.accounting import duration
from jobs.costs.forecast import world_of
from jobs.costs.loads import Site
from jobs.costs.played import Chain, chain_of
from jobs.costs.simulate import Study, check, study
from jobs.costs.tasks import JobLoad, daly_interval_s, expected_s
from jobs.costs.weather import World
from jobs.plan.cluster import load_cluster
from jobs.shell.command import Answer, data_root, main, parser

HIGH = 0.9
SHARDS = (1, 2, 4, 8, 16, 32, 64, 128)
INTERVALS = (0.25, 0.5, 1.0, 2.0, 4.0)
REQUEUE_S = 120.0


def body(argv: Sequence[str]) -> Answer:
    p = parser(
        "whatif",
        "When a run or a sweep would be done on other nodes, limits and preemption rates, and what would cost least.",
    )
    p.add_argument("what", metavar="CONFIG|SWEEP.yaml", type=Path, help="a run file or a sweep file")
    p.add_argument("override", nargs="*", help="changes to the run file, like respond.shards=32")
    p.add_argument(
        "--nodes",
        type=_counts,
        default=(None,),
        help="nodes to try, like 2,4,8 (default: all that the plan can use; here, this machine)",
    )
    p.add_argument(
        "--array-limit",
        type=_counts,
        default=(None,),
        help="running tasks of one array to try (default: the cluster file's)",
    )
    p.add_argument(
        "--preempt-per-hour",
        type=_rate,
        help="how often a running node is taken away (default: as the runs on this cluster have seen it)",
    )
    p.add_argument(
        "--grace-s",
        type=_rate,
        default=0.0,
        help="seconds that a preempted task has to reach a safe point (default: 0)",
    )
    p.add_argument(
        "--requeue-s",
        type=_rate,
        help=f"seconds from a preemption until the task may start again (default: as seen; else {REQUEUE_S:.0f})",
    )
    p.add_argument(
        "--queue-wait-s",
        type=_rate,
        default=0.0,
        help="mean wait in the queue before each start (default: 0)",
    )
    p.add_argument(
        "--stragglers",
        type=_rate,
        default=0.0,
        help="log-normal sigma of a task's pace, beyond what was measured (default: 0)",
    )
    p.add_argument(
        "--histories", type=_count, default=100, help="how often each line is played (default: 100)"
    )
    args = p.parse_intermixed_args(argv)
    data = data_root(args)
    chain = chain_of(args.what, args.override, load_cluster(args.cluster), data)
    base = _world(chain, args)
    worlds = [
        dataclasses.replace(base, slots=nodes or base.slots, array_limit=limit or base.array_limit)
        for nodes, limit in itertools.product(args.nodes, args.array_limit)
    ]
    worlds, refused = _possible(chain, worlds)
    found = {
        "plan": chain.name,
        "refused": refused,
        "preempt_per_hour": round(base.preempt_per_hour, 4),
        "worlds": [_played(chain, world, args.histories) for world in worlds],
        "shards": _shards(chain, worlds[0], args.histories),
        "parts": _parts(chain, worlds[0]),
        "checkpoints": _checkpoints(chain, worlds[0]),
    }
    _show(found, chain, base, Console())
    return Answer(fields=found)


def _world(chain: Chain, args: argparse.Namespace) -> World:
    """As it was seen, but for what the options say."""
    seen = world_of(chain.planner.site, chain.planner.known)
    said = (
        {"preempt_per_hour": args.preempt_per_hour, "learned": None}
        if args.preempt_per_hour is not None
        else {}
    )
    was_taken = seen.learned is not None and seen.learned.taken
    requeue_s = args.requeue_s if args.requeue_s is not None else seen.requeue_s if was_taken else REQUEUE_S
    return dataclasses.replace(
        seen,
        grace_s=args.grace_s,
        requeue_s=requeue_s,
        queue_wait_s=args.queue_wait_s,
        straggle=args.stragglers,
        **said,
    )


def _possible(chain: Chain, worlds: Sequence[World]) -> tuple[list[World], dict[str, str]]:
    """The worlds in which the chain can run at all; of the others, by their number of nodes, why not. Refuses where none is left."""
    possible: list[World] = []
    refused: dict[str, str] = {}
    for world in worlds:
        try:
            check(chain.loads, world)
            possible.append(world)
        except ValueError as e:
            refused[str(world.slots)] = str(e)
    if not possible:
        raise ValueError(next(iter(refused.values())))
    return possible, refused


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(x) for x in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: give whole numbers with commas between them, like 2,4,8"
        ) from None
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least one")
    return counts


def _count(text: str) -> int:
    if len(counts := _counts(text)) > 1:
        raise argparse.ArgumentTypeError(f"{text}: give one whole number")
    return counts[0]


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of at least 0")
    return value


# ------------------------------------------------------------------------------------------------ the tables
def _played(chain: Chain, world: World, histories: int) -> dict[str, float | int | None]:
    result = study(chain.loads, world, histories=histories)
    plain = sum(t.seconds * load.width for load in chain.loads for t in load.tasks)
    hours = (
        sum(t.seconds for load in chain.loads for t in load.tasks for _ in range(chain.gpus[load.name]))
        / 3600
    )
    return {
        "nodes": world.slots, "array_limit": world.array_limit, "median_s": _rounded(result.quantile(0.5)), "high_s": _rounded(result.quantile(HIGH)),
        "used_s": _rounded(result.mean("used_s")), "lost_s": _rounded(result.mean("lost_s")), "repeated_s": _rounded(result.mean("repeated_s")),
        "preemptions": _rounded(result.mean("preemptions")), "gpu_hours": round(hours * result.mean("used_s") / plain, 3) if plain else 0.0,
    }  # fmt: skip


def _shards(chain: Chain, world: World, histories: int) -> list[dict[str, object]]:
    """The last round's generating stages alone, with other numbers of shards: time, and what of it is start-ups and lost work."""
    last = max(job.round for job in chain.jobs)
    lines = []
    for job in chain.jobs:
        if job.round == last and job.of.kind.array:
            for count in sorted({*SHARDS, job.num_shards}):
                if count > max(2 * job.num_shards, 8) or count > chain.planner.items(job):
                    continue
                load = dataclasses.replace(chain.planner.load(job, shards=count), after=())
                result = study([load], world, histories=histories)
                lines.append(
                    {"stage": job.stage, "round": job.round, "shards": count, "seconds": _rounded(result.quantile(0.5)),
                     "used_s": _rounded(result.mean("used_s")), "wasted_s": _rounded(_wasted(load, result)), "now": count == job.num_shards}
                )  # fmt: skip
    return lines


def _wasted(load: JobLoad, result: Study) -> float:
    """Start-ups, the tasks' own and the repeated, and lost work."""
    return result.mean("lost_s") + result.mean("repeated_s") + sum(t.start_s for t in load.tasks) * load.width


def _parts(chain: Chain, world: World) -> list[dict[str, object]]:
    """The last round's generating stages with other sizes of parts: what start-ups, lost work and smaller batches cost together; without grace."""
    last = max(job.round for job in chain.jobs)
    lines: list[dict[str, object]] = []
    for job in chain.jobs:
        if job.round != last or not job.of.kind.array:
            continue
        now: int = getattr(chain.config, job.stage).part_prompts
        ideal_s = min(
            t.units * t.unit_s for part in (now, 4 * now) for t in chain.planner.load(job, part=part).tasks
        )
        for part in sorted({max(1, round(f * now)) for f in INTERVALS}):
            load = chain.planner.load(job, part=part)
            rate = world.preempt_per_hour * load.width
            wasted = sum(expected_s(t, rate) - t.end_s for t in load.tasks) - ideal_s * len(load.tasks)
            line = {
                "stage": job.stage,
                "round": job.round,
                "part": part,
                "seconds": _rounded(load.tasks[0].unit_s),
            }
            lines.append(line | {"wasted_s": _rounded(wasted), "now": part == now})
    return lines


def _checkpoints(chain: Chain, world: World) -> list[dict[str, object]]:
    """Of the last round's training: what saves, lost work and repeated start-ups cost together, by the interval; exact, without grace."""
    training = [
        job for job in chain.jobs if job.stage == "train" and job.round == max(j.round for j in chain.jobs)
    ]
    rate = world.preempt_per_hour * (chain.planner.site.widths[training[0].stage])
    lines: list[dict[str, object]] = []
    for job in training:
        (now,) = chain.planner.load(job).tasks
        best = (
            round(daly_interval_s(now.save_s, rate) / now.unit_s) if rate and now.save_s and now.unit_s else 0
        )
        tried = {max(1, round(f * (best or now.keep_every))) for f in INTERVALS} | {now.keep_every}
        for every in sorted(e for e in tried if e <= max(now.units, now.keep_every)):
            load = dataclasses.replace(now, keep_every=every)
            wasted = expected_s(load, rate) - load.units * load.unit_s - load.end_s
            line = {"round": job.round, "every_steps": every, "minutes": round(every * load.unit_s / 60, 2)}
            lines.append(line | {"wasted_s": _rounded(wasted), "now": every == now.keep_every})
    return lines


def _rounded(x: float) -> float:
    return round(x, 1)


def _show(found: Mapping[str, list], chain: Chain, base: World, console: Console) -> None:
    site: Site = chain.planner.site
    known = chain.planner.known
    console.print(
        f"{chain.name} on {site.label}, as {known.model} was measured there in {len(known.runs)} runs",
        highlight=False,
        markup=False,
    )
    if base.learned:
        seen = f"{base.learned.taken} times in {base.learned.node_hours:.1f} node-hours"
        console.print(
            f"nodes are taken away {base.learned}, as was seen there: {seen}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    table = _table(
        "nodes", "array", "done after", "90 % by", "tasks use", "lost", "restarts", "taken", "GPU-h"
    )
    for w in found["worlds"]:
        times = [duration(w[k], 1) for k in ("median_s", "high_s", "used_s", "lost_s", "repeated_s")]
        table.add_row(
            str(w["nodes"] or "all"),
            str(w["array_limit"] or "none"),
            *times,
            f"{w['preemptions']:.1f}",
            f"{w['gpu_hours']:.2f}",
        )
    console.print(table)
    for nodes, why in found["refused"].items():
        console.print(f"not on {nodes}: {why}", highlight=False, markup=False)
    if found["shards"]:
        table = _table("stage", "shards", "done after", "tasks use", "start-ups and lost", "")
        for s in found["shards"]:
            own = [t for t in found["shards"] if t["stage"] == s["stage"]]
            note = "  ".join(
                w
                for w, is_it in (("now", s["now"]), ("fastest", s is min(own, key=lambda t: t["seconds"])))
                if is_it
            )
            table.add_row(
                s["stage"],
                str(s["shards"]),
                duration(s["seconds"], 1),
                duration(s["used_s"], 1),
                duration(s["wasted_s"], 1),
                note,
            )
        console.print(table)
    if found["parts"] and any(p["wasted_s"] for p in found["parts"]):
        table = _table("stage", "items in a part", "that is", "start-ups and lost", "")
        for p in found["parts"]:
            cheapest = min(
                (q for q in found["parts"] if q["stage"] == p["stage"]), key=lambda q: q["wasted_s"]
            )
            note = "  ".join(w for w, is_it in (("now", p["now"]), ("cheapest", p is cheapest)) if is_it)
            table.add_row(
                p["stage"], str(p["part"]), duration(p["seconds"], 1), duration(p["wasted_s"], 1), note
            )
        console.print(table)
    if found["checkpoints"]:
        table = _table("checkpoint every", "that is", "saves, start-ups and lost", "")
        cheapest = min(found["checkpoints"], key=lambda c: c["wasted_s"])
        for c in found["checkpoints"]:
            note = "  ".join(w for w, is_it in (("now", c["now"]), ("cheapest", c is cheapest)) if is_it)
            table.add_row(
                f"{c['every_steps']} steps", f"{c['minutes']:.1f} min", duration(c["wasted_s"], 1), note
            )
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in ("stage", "") else "right")
    return table


if __name__ == "__main__":
    main(body)
