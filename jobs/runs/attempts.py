"""Every attempt at a shard, from what it left behind: the logs of its ranks and its events, in one order of
time.

Slurm appends the output of a requeued job to the same file, so a log is cut where submitit says that it
starts anew; which attempt that is, the task says next. A line without a time of its own has that of the line
before. Times in logs are taken to be of this machine's time zone. Text of logs is shown, never believed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from jobs.runs.failures import THIS_IS, failure
from jobs.runs.progress import event_files
from jobs.runs.queue import EXIT_REQUEUE, Submission, recorded
from jobs.runs.state import queue_or_silence
from jobs.runs.stillborn import Stillborn, stillborn
from serl.run.events import parsed
from serl.run.rundir import Run, RunError, Shard
from serl.stages.kind import job_name, stage_of

_START = re.compile(
    r"submitit INFO \((?P<time>[-0-9]+ [0-9:]+,\d+)\) - Starting with JobEnvironment\("
    r"job_id=(?P<job>\w+), hostname=(?P<host>[^,]+), .*global_rank=(?P<rank>\d+)\("
)
_CLOCK = r"(?P<t>\d\d:\d\d:\d\d)"
_TIMES = (
    re.compile(rf"\(?\[?(?P<y>20\d\d)-(?P<m>\d\d)-(?P<d>\d\d)[ T]{_CLOCK}(?:[,.](?P<f>\d{{3}}))?"),
    re.compile(rf"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<m>\d\d)-(?P<d>\d\d) {_CLOCK}"),
    re.compile(rf"^\[?[DIWEF](?P<m>\d\d)(?P<d>\d\d) {_CLOCK}\.\d"),
)
SILENT = "no last word"
ASKED = f"exit code {EXIT_REQUEUE}"
_SLURM_ENDS = (
    "DUE TO JOB REQUEUE", "DUE TO PREEMPTION", "DUE TO TIME LIMIT", "DUE TO NODE", "oom_kill", "CANCELLED AT"
)  # fmt: skip
_ENDS = {"stopped": "stopped at a safe point", "halted": "halted by a rule"}
_LOCAL = re.compile(r"shard_(\d{5})\.a(\d+)")
WORDY = ("time", "kind", "stage", "round", "shard", "index", "attempt")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Line:
    """One line of a log, or one event: `source` names its file and `number` its place there."""

    time: float
    rank: int
    source: str
    number: int
    text: str


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at a shard. `how` says how it ended, as far as anything tells."""

    shard: Shard
    id: str
    hosts: dict[str, None] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)
    lines: list[Line] = field(default_factory=list)
    last_kind: str = ""
    how: str = ""

    @property
    def began(self) -> float:
        return min((line.time for line in self.lines), default=0.0)

    @property
    def ended(self) -> float:
        return max((line.time for line in self.lines), default=0.0)


@dataclass(slots=True, kw_only=True)
class _Segment:
    """What one rank wrote between two starts; named after its turn in the file where it did not come to say
    which attempt it is.
    """

    id: str
    host: str
    rank: int
    start: float
    lines: list[Line]


def attempts(run: Run, shards: Sequence[Shard]) -> dict[Shard, list[Attempt]]:
    """Every attempt at each shard, in order of time."""
    roots = _roots(run)
    submissions = {s.token: s for s in recorded(run)}
    born = {b.shard: b for b in _stillborn(run, list(submissions.values()))}
    events = {root: event_files(root) for root in roots}
    found = {}
    for shard in shards:
        tries: dict[str, Attempt] = {}
        for root in roots:
            for path, id, rank in events[root].get((shard.round, shard.stage, shard.index), ()):
                _add_events(tries.setdefault(id, Attempt(shard=shard, id=id)), path, rank)
            for path, local in _logs(root, shard, submissions):
                _add_segments(tries, shard, _segments(path, local))
        for attempt in tries.values():
            attempt.lines.sort(key=lambda line: (line.time, line.rank, line.source, line.number))
            attempt.how = _how(run, attempt)
        if dead := born.get(shard):
            newest = f"{dead.job}, start 1"
            tries.setdefault(newest, Attempt(shard=shard, id=newest)).how = dead.reason
        found[shard] = sorted(tries.values(), key=lambda a: a.began)
    return found


def _stillborn(run: Run, submissions: Sequence[Submission]) -> list[Stillborn]:
    queue, silence = queue_or_silence() if submissions else ([], "")
    return [] if silence else stillborn(run, submissions, queue)


def _roots(run: Run) -> list[Path]:
    """The folders of the run, and of others that worked on the stages that it shares with them."""
    shared = (
        shard for job in run.shared if run.config.has(*stage_of(job)) for shard in run.shards(*stage_of(job))
    )
    made = (m.run for shard in shared if (m := run.manifest(shard)))
    names = dict.fromkeys(filter(None, [*(s.run for s in recorded(run)), *made]))
    return list(dict.fromkeys([run.root, *(run.root.parent / name for name in names)]))


def _add_events(attempt: Attempt, path: Path, rank: int) -> None:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    for number, text in enumerate(lines):
        if not (event := parsed(text)):
            continue
        told = f"* {_told(event)}"
        attempt.lines.append(Line(time=event["time"], rank=rank, source=path.name, number=number, text=told))
        attempt.ranks.add(rank)
        if "host" in event:
            attempt.hosts[event["host"]] = None
        if rank == 0:
            attempt.last_kind = event["kind"] + (f": {event['error']}" if event.get("error") else "")


def _told(event: dict) -> str:
    if event["kind"] == "progress":
        return f"{event['done']} of {event['total']} {event['unit']}"
    more = ", ".join(f"{k} {v}" for k, v in event.items() if k not in WORDY)
    return event["kind"] + (f": {more}" if more else "")


def _logs(root: Path, shard: Shard, submissions: Mapping[str, Submission]) -> Iterator[tuple[Path, str]]:
    """The logs of a shard's attempts; with the attempt's name where the folder tells it."""
    folder = root / "logs" / job_name(shard.round, shard.stage)
    for attempt in sorted(folder.iterdir()) if folder.is_dir() else ():
        local, submission = _LOCAL.fullmatch(attempt.name), submissions.get(attempt.name)
        for path in sorted(attempt.glob("*_log.*")):
            parts = path.name.split("_")  # job, element, rank, log.out; else job, rank, log.out
            if local and int(local[1]) == shard.index:
                yield path, f"{parts[0]}-{local[2]}"
            elif submission and submission.job == folder.name:
                position = int(parts[1]) if len(parts) == 4 else 0
                if shard.index in submission.shards[position : position + 1]:
                    yield path, ""


def _segments(path: Path, local: str) -> Iterator[_Segment]:
    current: _Segment | None = None
    before: list[Line] = []
    now, year, turn = 0.0, datetime.now().year, 0
    for number, text in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n")):
        text = text.rpartition("\r")[2]
        if start := _START.search(text):
            if current:
                yield current
            began = datetime.strptime(start["time"], "%Y-%m-%d %H:%M:%S,%f")
            now, year, turn, rank = began.timestamp(), began.year, turn + 1, int(start["rank"])
            id = local or f"{start['job']}, start {turn}"
            current = _Segment(id=id, host=start["host"], rank=rank, start=now, lines=before)
            before = []
        else:
            now = max(now, _time(text, year) or now)
            if current and text.startswith(THIS_IS):
                current.id = text.removeprefix(THIS_IS).strip()
        if text.strip():
            rank = current.rank if current else 0
            line = Line(time=now, rank=rank, source=path.name, number=number, text=text)
            (current.lines if current else before).append(line)
    if current:
        yield current
    elif before:
        job, _, rank = path.name.partition("_log")[0].rpartition("_")
        id = local or f"{job}, start 1"
        yield _Segment(id=id, host="", rank=int(rank or 0), start=path.stat().st_mtime, lines=before)


def _time(text: str, year: int) -> float | None:
    """The time that a line says it was written at."""
    for pattern in _TIMES:
        if found := pattern.search(text[:120]):
            told = {"y": year, "f": "000"} | {k: v for k, v in found.groupdict().items() if v}
            try:
                return datetime.fromisoformat("{y}-{m}-{d}T{t}.{f}".format(**told)).timestamp()
            except ValueError:  # digits that are no date
                continue
    return None


def _add_segments(tries: dict[str, Attempt], shard: Shard, segments: Iterable[_Segment]) -> None:
    for s in segments:
        attempt = tries.setdefault(s.id, Attempt(shard=shard, id=s.id))
        attempt.ranks.add(s.rank)
        attempt.lines += [line if line.time else replace(line, time=s.start, rank=s.rank) for line in s.lines]
        if s.host:
            attempt.hosts[s.host] = None


def _how(run: Run, attempt: Attempt) -> str:
    try:
        manifest = run.manifest(attempt.shard)
    except RunError as e:
        return str(e)
    if manifest and manifest.attempt == attempt.id:
        return "done"
    if attempt.last_kind == "done":
        return "done, after another attempt was"
    record = failure(run, attempt.shard)
    if record and record["attempt"] == attempt.id:
        return str(record["reason"])
    if attempt.last_kind.startswith("failed") or attempt.last_kind in _ENDS:
        return _ENDS.get(attempt.last_kind, attempt.last_kind)
    return _last_words(attempt.lines)


def _last_words(lines: Sequence[Line]) -> str:
    """What the log alone tells: a wish to be queued again, Slurm's own line, or the last exception."""
    if any(ASKED in line.text for line in lines):
        return "asked to be queued again"
    for line in reversed(lines):
        if (
            "*** STEP" in line.text and "DUE TO" not in line.text
        ):  # srun ends the others of a task that failed
            continue
        if end := next((e for e in _SLURM_ENDS if e in line.text), None):
            return f"ended by Slurm: {end.lower()}"
    traces = [i for i, line in enumerate(lines) if line.text.startswith("Traceback")]
    if not traces:
        return SILENT
    raised = (line.text[:160] for line in lines[traces[-1] + 1 :] if line.text[:1].isalpha())
    return next(raised, "raised")
