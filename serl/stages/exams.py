"""Examinations of policies: which stages grade a round, on what, and what came of it.

A round may have several, on other engines or with other settings. A benchmark that two of them ask is two
series, of which those after the first have their stage in front: sums, and exam/sums.
"""

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


def exams(config: RunConfig, round: int) -> list[Stage]:
    return [s for s in config.at(round) if s.kind.gives == GIVES]


def benchmarks(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What policies are scored on, by the benchmarks' own names: to be reported, and to choose by."""
    stages = [s for s in config.stages if s.kind.gives == GIVES]
    reported = dict.fromkeys(name for s in stages for name in show_of(s.kind).benchmarks(s.section))
    apart = dict.fromkeys(name for s in stages for name in show_of(s.kind).validation(s.section))
    return tuple(reported), tuple(apart)


def asked(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The series that a run reports, and those that it only chooses by."""
    known = _series(config)
    stages = [s for s in config.stages if s.kind.gives == GIVES]
    apart = dict.fromkeys(known[s.name, n] for s in stages for n in show_of(s.kind).validation(s.section))
    named = dict.fromkeys(known[s.name, n] for s in stages for n in show_of(s.kind).benchmarks(s.section))
    return tuple(name for name in named if name not in apart), tuple(apart)


def scored_rounds(run: Run) -> list[int]:
    """The rounds of which every examination is done."""
    stages = [(n, exams(run.config, n)) for n in range(run.config.rounds + 1)]
    return [n for n, found in stages if found and all(_done(run, stage) for stage in found)]


def _done(run: Run, stage: Stage) -> bool:
    return all(run.done(shard) for shard in run.shards(stage.round, stage.name))


def grades(run: Run, stage: Stage) -> list[Grade]:
    """The graded responses of one examination, under the names of its series."""
    rows = [Grade(**row) for m in left(run, stage) for row in from_jsonl(run.read(m))]
    names = _series(run.config)
    told = {row.benchmark: names.get((stage.name, row.benchmark), row.benchmark) for row in rows}
    return [row if told[b := row.benchmark] == b else replace(row, benchmark=told[b]) for row in rows]


def round_grades(run: Run, round: int) -> list[Grade]:
    """All graded responses of a round."""
    return [row for stage in exams(run.config, round) for row in grades(run, stage)]


def _series(config: RunConfig) -> Mapping[tuple[str, str], str]:
    """By stage and benchmark the name of the series: the benchmark's own where in no round another stage has
    asked it before.
    """
    names: dict[tuple[str, str], str] = {}
    before: dict[tuple[int, str], str] = {}
    for s in config.stages:
        if s.kind.gives == GIVES:
            show = show_of(s.kind)
            for name in (*show.benchmarks(s.section), *show.validation(s.section)):
                first = before.setdefault((s.round, name), s.name) == s.name
                names[s.name, name] = names.get((s.name, name), name) if first else f"{s.name}/{name}"
    return names
