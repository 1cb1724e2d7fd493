"""What other nodes, shards, parts and checkpoint intervals would take, as lines of tables: the figures of
what-if.

Of shards, parts and checkpoints those of the last round of one run alone are tried. What is `wasted_s` is
start-ups, the tasks' own and the repeated ones, lost work, and what smaller parts or more saves cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.costs.played import Chain
from jobs.costs.simulate import check, study
from jobs.costs.tasks import TaskLoad, daly_interval_s, expected_s
from jobs.costs.tasks import World

HIGH = 0.9
SHARDS = (1, 2, 4, 8, 16, 32, 64, 128)
INTERVALS = (0.25, 0.5, 1.0, 2.0, 4.0)
Line = dict[str, object]


def possible(chain: Chain, worlds: Sequence[World]) -> tuple[list[World], dict[str, str]]:
    """Worlds in which the chain can run at all, and why not in others, by their nodes. Refuses if none is
    left.
    """
    fine: list[World] = []
    refused: dict[str, str] = {}
    for world in worlds:
        try:
            check(chain.loads, world)
            fine.append(world)
        except ValueError as e:
            refused[str(world.slots)] = str(e)
    if not fine:
        raise ValueError(next(iter(refused.values())))
    return fine, refused


def played(chain: Chain, world: World, histories: int) -> Line:
    result = study(chain.loads, world, histories=histories)
    plain = sum(load.seconds * load.width for load in chain.loads)
    hours = sum(load.seconds * chain.gpus[load.name] for load in chain.loads) / 3600
    figures = {"median_s": result.quantile(0.5), "high_s": result.quantile(HIGH)}
    figures |= {name: result.mean(name) for name in ("used_s", "lost_s", "repeated_s", "preemptions")}
    return {
        "nodes": world.slots,
        "array_limit": world.array_limit,
        **{name: round(x, 1) for name, x in figures.items()},
        "gpu_hours": round(hours * result.mean("used_s") / plain, 3) if plain else 0.0,
    }


def shards(chain: Chain, world: World, histories: int) -> Iterator[Line]:
    """Generating stages alone, with other numbers of shards."""
    for job in chain.last():
        most = min(max(2 * job.num_shards, 8), chain.planner.items(job))
        for count in sorted({*SHARDS, job.num_shards}) if job.of.kind.array else ():
            if count <= most:
                load = replace(chain.planner.load(job, shards=count), after=())
                result = study([load], world, histories=histories)
                wasted_s = result.mean("lost_s") + result.mean("repeated_s")
                wasted_s += sum(t.start_s for t in load.tasks) * load.width
                yield {
                    "stage": job.stage, "round": job.round, "shards": count,
                    "seconds": round(result.quantile(0.5), 1), "used_s": round(result.mean("used_s"), 1),
                    "wasted_s": round(wasted_s, 1), "now": count == job.num_shards,
                }  # fmt: skip


def parts(chain: Chain, world: World) -> Iterator[Line]:
    """Generating stages with other sizes of parts; exact, without grace."""
    for job in chain.last():
        if not job.of.kind.array:
            continue
        now: int = job.of.section.part_prompts
        rate = world.preempt_per_hour * chain.planner.site.widths[job.stage]
        ideal_s = min(t.work_s for part in (now, 4 * now) for t in chain.planner.load(job, part=part).tasks)
        for part in sorted({max(1, round(f * now)) for f in INTERVALS}):
            tasks = chain.planner.load(job, part=part).tasks
            wasted_s = sum(expected_s(t, rate) - t.end_s - ideal_s for t in tasks)
            yield {
                "stage": job.stage, "round": job.round, "part": part, "seconds": round(tasks[0].unit_s, 1),
                "wasted_s": round(wasted_s, 1), "now": part == now,
            }  # fmt: skip


def checkpoints(chain: Chain, world: World) -> Iterator[Line]:
    """Trainings with other intervals between saves, around the one that theory knows; without grace."""
    for job in chain.last():
        if job.of.kind.ranks:
            rate = world.preempt_per_hour * chain.planner.site.widths[job.stage]
            (now,) = chain.planner.load(job).tasks
            for every in sorted(_intervals(now, rate)):
                (task,) = chain.planner.load(job, keep_every=every).tasks
                yield {
                    "round": job.round, "every_steps": every, "minutes": round(every * now.unit_s / 60, 2),
                    "wasted_s": round(expected_s(task, rate) - task.work_s - task.end_s, 1),
                    "now": every == now.keep_every,
                }  # fmt: skip


def _intervals(now: TaskLoad, rate: float) -> set[int]:
    best = round(daly_interval_s(now.save_s, rate) / now.unit_s) if rate and now.save_s and now.unit_s else 0
    tried = {max(1, round(f * (best or now.keep_every))) for f in INTERVALS} | {now.keep_every}
    return {every for every in tried if every <= max(now.units, now.keep_every)}
