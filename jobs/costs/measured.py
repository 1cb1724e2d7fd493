"""What the published shards of a run took, read from its manifests and events: the raw material of `jobs.costs.calibration`."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from jobs.chain.queue import Journal
from jobs.costs.tries import attempt_files, read_rank
from jobs.plan.chain import after_of, job_name, steps
from serl.run.rundir import Manifest, Run, RunError
from serl.stages.cost import cost_of
from serl.stages.kind import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published shard. `pieces` are (size, seconds) of its parts, or of its mean optimizer step; `yields` what came of it."""

    run: str
    stage: str
    round: int
    index: int
    ranks: int = 1
    wait_s: float | None = None  # from the end of what it waited for; None where it waited for nothing
    boot_s: float = 0.0
    start_s: float = (
        0.0  # without what a training does before its first step for every token: that is a yield
    )
    end_s: float = 0.0
    save_s: float = 0.0
    pieces: tuple[tuple[float, float], ...] = ()
    yields: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    files: int = 0
    base: bool = False  # the training of a base model, which is another thing than that of a round


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A published shard: what the attempt that published it said, and when the first of all its attempts was there.

    `parts` are of all attempts, each part once: a shard that was taken away was done by several.
    """

    manifest: Manifest
    events: Sequence[dict]
    first: float
    parts: Sequence[dict]


def rows(run: Run) -> Iterator[Row]:
    """One for each shard that this run has published itself, and told of."""
    files: dict[tuple[str, int, int], dict[str, Path]] = defaultdict(dict)
    for (stage, round, index, id), path in attempt_files(run.root / "events").items():
        files[stage, round, index][id] = path
    found: dict[tuple[int, str], list[_Told]] = {}
    for round, stage in steps(run.config):
        for shard in run.shards(round, stage):
            try:
                manifest = run.manifest(shard)
            except RunError:  # a damaged shard teaches nothing; the report says so
                continue
            mine = files.get((stage, round, shard.index), {})
            if (
                manifest
                and manifest.attempt in mine
                and (told := _told(manifest, {id: read_rank(path) for id, path in mine.items()}))
            ):
                found.setdefault((round, stage), []).append(told)
    waits = _waits(run, found)
    for key, shards in found.items():
        yield from (_row(run, told, waits.get(key)) for told in shards)


def _told(manifest: Manifest, attempts: Mapping[str, list[dict]]) -> _Told | None:
    begun = {id: events for id, events in attempts.items() if events and events[0]["kind"] == "start"}
    if manifest.attempt not in begun:
        return None
    first = min(e[0]["time"] - e[0].get("boot_s", 0.0) for e in begun.values())
    parts = {e["name"]: e for events in begun.values() for e in events if _is_part(e)}
    return _Told(manifest=manifest, events=begun[manifest.attempt], first=first, parts=tuple(parts.values()))


def _is_part(event: Mapping[str, object]) -> bool:
    return event["kind"] == "phase" and " part " in str(event["name"]) and "tokens" in event


def _waits(run: Run, found: Mapping[tuple[int, str], Sequence[_Told]]) -> dict[tuple[int, str], float]:
    """Seconds from the end of the last job that a stage waits for to its first process. Here, from when something made room for it, if later."""
    ends = {job_name(*key): max(t.manifest.created for t in shards) for key, shards in found.items()}
    every = [t.manifest.created for shards in found.values() for t in shards]
    here = not Journal(run.root)
    waits = {}
    for (round, stage), shards in found.items():
        before = after_of(run.config, round, stage)
        if before and all(name in ends for name in before):
            first = min(t.first for t in shards)
            ready = max(ends[name] for name in before)
            room = max((end for end in every if ready < end <= first), default=ready) if here else ready
            waits[round, stage] = max(0.0, first - room)
    return waits


def _row(run: Run, told: _Told, wait_s: float | None) -> Row:
    manifest, events = told.manifest, told.events
    shard, first = manifest.shard, events[0]
    ranks = first.get("ranks", 1)
    begin, end = first["time"], next((e["time"] for e in events if e["kind"] == "done"), manifest.created)
    stage = run.config.stage(shard.round, shard.stage)
    if stage.kind.ranks:
        work, last, save_s, pieces = _steps(stage.section.checkpoint_every, events, ranks)
    elif stage.kind.array:
        work, last, save_s, pieces = _parts(events)
    else:
        size = cost_of(stage.kind).size(manifest.counts)
        work, last, save_s, pieces = begin, end, 0.0, ((size, end - begin),)
    logp_s = next(
        (e["seconds"] for e in events if e["kind"] == "phase" and e["name"] == "log-probabilities"), 0.0
    )
    return Row(
        run=run.root.name, stage=shard.stage, round=shard.round, index=shard.index, ranks=ranks, wait_s=wait_s, boot_s=first.get("boot_s", 0.0),
        start_s=round(max(0.0, (work or end) - begin - logp_s), 3), end_s=round(max(0.0, end - last), 3) if last else 0.0,
        save_s=round(save_s, 4), pieces=pieces,
        yields=_yields(stage, manifest, told.parts) | _logp(stage, manifest, pieces, ranks, logp_s),
        base=bool(stage.role) and not stage.round,
        bytes=sum(f.bytes for f in manifest.files), files=len(manifest.files) + 1,
    )  # fmt: skip


def _logp(
    stage: Stage, manifest: Manifest, pieces: Sequence[tuple[float, float]], ranks: int, seconds: float
) -> dict[str, float]:
    """What a training did for every token before its first step, and how many there were."""
    samples, steps = manifest.counts.get("samples", 0.0), manifest.counts.get("steps", 0.0)
    if not (seconds and samples and steps and pieces):
        return {}
    in_step = min(stage.section.batch_samples, samples * stage.section.epochs / steps)
    return {"logp_s": seconds, "tokens": samples * pieces[0][0] * ranks / in_step}


def _parts(
    events: Sequence[dict],
) -> tuple[float | None, float | None, float, tuple[tuple[float, float], ...]]:
    """When the first part was begun and the last one committed, and each part's sampled tokens and seconds."""
    load_s, begun, last, pieces = 0.0, None, None, []
    for e in events:
        if e["kind"] == "phase" and e["name"].endswith("load"):
            load_s = e["seconds"]
        elif _is_part(e):
            seconds, load_s, last = e["seconds"] - load_s, 0.0, e["time"]
            begun = begun or e["time"] - seconds
            pieces.append((float(e["tokens"]), round(seconds, 3)))
    return begun, last, 0.0, tuple(pieces)


def _steps(
    checkpoint_every: int, events: Sequence[dict], ranks: int
) -> tuple[float | None, float | None, float, tuple[tuple[float, float], ...]]:
    """When the first step was begun and the last one done, what a save takes, and the mean step: tokens of one rank, and seconds."""
    done = {
        e.get("step", e.get("done")): e
        for e in events
        if e["kind"] == "step" or (e["kind"] == "progress" and e.get("unit") == "steps")
    }
    done |= {e["step"]: e for e in events if e["kind"] == "step"}
    numbers = sorted(done)
    if len(numbers) < 2:
        return None, None, 0.0, ()
    laps = {b: done[b]["time"] - done[a]["time"] for a, b in pairwise(numbers) if b == a + 1}
    saving = {n: s for n, s in laps.items() if (n - 1) % checkpoint_every == 0}
    plain = {n: s for n, s in laps.items() if n not in saving} or laps
    step_s = statistics.fmean(plain.values())
    tokens = [done[n]["tokens_per_s"] * s / ranks for n, s in plain.items() if "tokens_per_s" in done[n]]
    save_s = (
        max(0.0, statistics.median(saving.values()) - statistics.median(plain.values())) if saving else 0.0
    )
    size = statistics.fmean(tokens) if tokens else 0.0
    return (
        done[numbers[0]]["time"] - step_s,
        done[numbers[-1]]["time"],
        save_s,
        ((_digits(size), _digits(step_s)),),
    )


def _digits(x: float) -> float:
    return float(f"{x:.6g}")


def _yields(stage: Stage, manifest: Manifest, parts: Sequence[dict]) -> dict[str, float]:
    """Counts whose ratios the next plan needs."""
    items, tokens = float(sum(e["items"] for e in parts)), float(sum(e["tokens"] for e in parts))
    found = cost_of(stage.kind).yields(stage, manifest.counts, items, tokens)
    return found | {"bytes": float(sum(f.bytes for f in manifest.files))} if found else {}
