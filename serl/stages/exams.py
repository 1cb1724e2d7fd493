"""Examinations of policies: which stages grade a round, on what, and what came of it.

A round may have several, on other engines or with other settings. A benchmark that two of them ask is two
series, of which those after the first have their stage in front: sums, and exam/sums.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from evaluation.stored import Grade
from serl.config.run import RunConfig
from serl.records import from_jsonl
from serl.run.rundir import Run
from serl.stages.kind import Stage
from serl.stages.read import left
from serl.stages.show import show_of

GIVES = "grades"


def exams(config: RunConfig, round: int, milestone: int = 0) -> list[Stage]:
    """Of a round's last policy, or of the one that was published at a milestone."""
    return [s for s in config.at(round) if s.kind.gives == GIVES and s.milestone == milestone]


def benchmarks(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What policies are scored on, by the benchmarks' own names: to be reported, and to choose by."""
    stages = [s for s in config.stages if s.kind.gives == GIVES]
    reported = dict.fromkeys(name for s in stages for name in show_of(s.kind).benchmarks(s.section))
    apart = dict.fromkeys(name for s in stages for name in show_of(s.kind).validation(s.section))
    return tuple(reported), tuple(apart)


def asked(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The series that a run reports, and those that it only chooses by."""
    known = _series(config)
    stages = [s for s in config.stages if s.kind.gives == GIVES and not s.milestone]
    apart = dict.fromkeys(known[s.name, n] for s in stages for n in show_of(s.kind).validation(s.section))
    named = dict.fromkeys(known[s.name, n] for s in stages for n in show_of(s.kind).benchmarks(s.section))
    return tuple(name for name in named if name not in apart), tuple(apart)


def scored(run: Run) -> list[tuple[int, int]]:
    """The policies of which every examination is done, in the order in which they came: their round, and the
    milestone where they were published within that (0: they are its last).
    """
    stages = [s for s in run.config.stages if s.kind.gives == GIVES]
    places = sorted({(s.round, s.milestone) for s in stages}, key=lambda at: (at[0], at[1] or math.inf))
    return [at for at in places if all(_done(run, stage) for stage in exams(run.config, *at))]


def scored_rounds(run: Run) -> list[int]:
    """The rounds whose last policy is among them."""
    return [round for round, milestone in scored(run) if not milestone]


def _done(run: Run, stage: Stage) -> bool:
    """A milestone that its training did not come to is never examined."""
    found = [run.manifest(shard) for shard in run.shards(stage.round, stage.name)]
    return all(found) and not (stage.milestone and any(m.over for m in found if m))


def grades(run: Run, stage: Stage) -> list[Grade]:
    """The graded responses of one examination, under the names of its series."""
    rows = [Grade(**row) for m in left(run, stage) for row in from_jsonl(run.read(m))]
    names = _series(run.config)
    told = {row.benchmark: names.get((stage.listed, row.benchmark), row.benchmark) for row in rows}
    return [row if told[b := row.benchmark] == b else replace(row, benchmark=told[b]) for row in rows]


def round_grades(run: Run, round: int, milestone: int = 0) -> list[Grade]:
    """All graded responses of a policy."""
    return [row for stage in exams(run.config, round, milestone) for row in grades(run, stage)]


def _series(config: RunConfig) -> Mapping[tuple[str, str], str]:
    """By stage and benchmark the name of the series: the benchmark's own where in no round another stage has
    asked it before.
    """
    names: dict[tuple[str, str], str] = {}
    before: dict[tuple[int, str], str] = {}
    for s in config.stages:
        if s.kind.gives == GIVES and not s.milestone:
            show = show_of(s.kind)
            for name in (*show.benchmarks(s.section), *show.validation(s.section)):
                first = before.setdefault((s.round, name), s.name) == s.name
                names[s.name, name] = names.get((s.name, name), name) if first else f"{s.name}/{name}"
    return names
