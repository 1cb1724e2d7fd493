"""The figures of each round as rows: for `report.csv`, and for TensorBoard with the round as step.

Both are derived: rewritten whole from the run each time, so that no round appears twice.
"""

import csv
import dataclasses
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.scores import Score
from jobs.reporting.findings import Findings, RoundFindings
from jobs.reporting.vitals import vital_facts
from serl.run.files import write_atomic
from serl.run.rundir import Run

BEST = "best_on_validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one round; error bars and n only where it is a mean over problems or questions."""

    round: int
    benchmark: str
    metric: str
    value: float
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def tag(self) -> str:
        return f"score/{self.benchmark}/{self.metric}" if self.benchmark else self.metric


def rows(findings: Findings) -> list[Row]:
    """Every figure of every round, in a fixed order; what is not known has no row."""
    found = [row for r in findings.rounds for row in (*_scores(r), *_votes(r), *_counts(r))]
    return found + list(_safety(findings)) + list(_hygiene(findings))


def to_csv(found: Sequence[Row]) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    names = [f.name for f in dataclasses.fields(Row)]
    writer.writerow(names)
    for row in found:
        writer.writerow(["" if value is None else value for value in dataclasses.astuple(row)])
    return sink.getvalue().encode("utf-8")


def write_tensorboard(run: Run, findings: Findings, found: Sequence[Row]) -> None:
    """Replace `tensorboard/rounds/`. A viewer that has the old file open is told to forget its steps before it reads the new ones."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    ended = {r.round: max((s.ended for s in r.stages), default=0.0) for r in findings.rounds}
    started = min((t for t in ended.values() if t), default=0.0)
    sink = io.BytesIO()
    writer = RecordWriter(sink)
    writer.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
    writer.write(
        Event(wall_time=started, step=0, session_log=SessionLog(status=SessionLog.START)).SerializeToString()
    )
    for row in found:
        summary = Summary(value=[Summary.Value(tag=row.tag, simple_value=row.value)])
        writer.write(Event(wall_time=ended[row.round], step=row.round, summary=summary).SerializeToString())
    folder = run.root / "tensorboard" / "rounds"
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / f"events.out.tfevents.{time.time():.6f}.rounds"
    write_atomic(current, sink.getvalue())
    for old in folder.iterdir():
        if old.name.startswith("events.") and old.name < current.name:
            old.unlink(missing_ok=True)  # a report written at the same time may have removed it


def _score(r: RoundFindings, metric: str, score: Score, benchmark: str = "") -> Row:
    s = score
    return Row(
        round=r.round,
        benchmark=benchmark,
        metric=metric,
        value=s.value,
        stderr=s.stderr,
        low=s.low,
        high=s.high,
        n=s.n,
    )


def _scores(r: RoundFindings) -> Iterator[Row]:
    for name, found in (*r.scores.items(), *r.validation.items()):
        for metric, score in found.metrics.items():
            yield _score(r, metric, score, name)
        if found.silent is not None:
            yield Row(round=r.round, benchmark=name, metric="unparsed_share", value=found.silent)
    for c in r.comparisons:
        yield Row(
            round=r.round, benchmark=c.benchmark, metric="gain_over_base", value=c.value - c.base, n=c.n
        )
        yield Row(round=r.round, benchmark=c.benchmark, metric="p_value_against_base", value=c.p, n=c.n)


def _hygiene(findings: Findings) -> Iterator[Row]:
    """The best round by validation, and overlaps: of seeds with round 0, of instructions with the last round that has any."""
    if findings.chosen:
        yield Row(round=findings.chosen.round, benchmark="", metric=BEST, value=1.0)
    last = max((r.round for r in findings.rounds if r.counts("problems")), default=0)
    for o in findings.overlap.overlaps:
        for kind, n in (("exact", o.shared.exact_ours), ("13_words", o.shared.runs_ours)):
            name = o.name.replace(" ", "_")
            yield Row(
                round=last if o.name == "instructions" else 0,
                benchmark=o.benchmark,
                metric=f"overlap/{name}/{kind}",
                value=n,
                n=o.shared.num_ours,
            )


def _safety(findings: Findings) -> Iterator[Row]:
    """The vitals that no other figure tells, and the alarms, of the rounds that safety has looked at."""
    for fact in vital_facts(findings.run):
        for name in ("conviction", "anchor_agreement", "entropy", "monotony", "length", "duplicates"):
            if fact[name] is not None:
                yield Row(round=fact["round"], benchmark="", metric=f"safety/{name}", value=fact[name])
        yield Row(round=fact["round"], benchmark="", metric="safety/alarms", value=float(len(fact["alarms"])))


def _votes(r: RoundFindings) -> Iterator[Row]:
    if r.votes is None:
        return
    v = r.votes
    means = {
        "agreement": v.agreement,
        "margin": v.margin,
        "reward_mean": v.reward,
        "kept_reward_mean": v.kept_reward,
        "kept_share": v.kept_share,
    }
    means |= {"anchor_agreement": v.anchor_agreement}
    means |= {"reward_accuracy/" + kind.replace(" ", "_"): score for kind, score in v.right.items()}
    for metric, score in means.items():
        if score.n:
            yield _score(r, metric, score)
    for verdict, n in sorted(v.fates.items()):
        yield Row(round=r.round, benchmark="", metric=f"groups/{verdict}", value=float(n))


def _counts(r: RoundFindings) -> Iterator[Row]:
    def plain(metric: str, value: float) -> Row:
        return Row(round=r.round, benchmark="", metric=metric, value=float(value))

    for passage in r.funnel:
        yield plain(f"funnel/{passage.name}", passage.count)
        for reason, n in passage.lost.items():
            yield plain(f"lost/{passage.name}/{reason}", n)
    answers = r.counts("groups")
    if answers.get("completions"):
        for name in ("unparsed", "truncated", "undecided"):
            yield plain(f"{name}_share", answers.get(name, 0) / answers["completions"])
        yield plain("response_tokens", answers.get("tokens", 0) / answers["completions"])
    for name, value in r.counts("weights").items():
        if name.startswith("mismatch_") or name in ("steps", "samples"):
            yield plain(name, value)
    if r.steps:
        for name, value in r.steps[-1].numbers.items():
            if math.isfinite(value):
                yield plain(f"last_step/{name}", value)
    for stage in r.stages:
        if stage.num_done:
            yield plain(f"seconds/{stage.stage}", stage.longest_s)
            yield plain(f"shard_seconds/{stage.stage}", stage.total_s)
    for name, seconds in r.phases.items():
        yield plain(f"seconds/train/{name}", seconds)
