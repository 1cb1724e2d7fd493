"""Every attempt at a shard, from what it left behind: the logs of its ranks and its events, in one order of time.

Slurm appends the output of a requeued job to the same file, so a log is cut where submitit says that it starts anew. A line without a time of
its own has that of the line before. Times in logs are taken to be of this machine's time zone. Text of logs is shown, never believed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from jobs.chain.queue import Submission, recorded
from jobs.chain.task import EXIT_REQUEUE, failure
from jobs.plan.chain import job_name
from serl.run.events import parsed
from serl.run.rundir import Run, RunError, Shard

_START = re.compile(
    r"submitit INFO \((?P<time>[-0-9]+ [0-9:]+,\d+)\) - Starting with JobEnvironment\(job_id=(?P<job>\w+), hostname=(?P<host>[^,]+), .*global_rank=(?P<rank>\d+)\("
)
_TIMES = (
    re.compile(r"\(?\[?(?P<y>20\d\d)-(?P<m>\d\d)-(?P<d>\d\d)[ T](?P<t>\d\d:\d\d:\d\d)(?:[,.](?P<f>\d{3}))?"),
    re.compile(r"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<m>\d\d)-(?P<d>\d\d) (?P<t>\d\d:\d\d:\d\d)"),
    re.compile(r"^\[?[DIWEF](?P<m>\d\d)(?P<d>\d\d) (?P<t>\d\d:\d\d:\d\d)\.\d"),
)
SILENT = "no last word"
ASKED = f"exit code {EXIT_REQUEUE}"
_SLURM_ENDS = (
    "DUE TO JOB REQUEUE",
    "DUE TO PREEMPTION",
    "DUE TO TIME LIMIT",
    "DUE TO NODE",
    "oom_kill",
    "CANCELLED AT",
)
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
    """What one rank wrote between two starts."""

    job: str
    host: str
    rank: int
    start: float
    lines: list[Line]


def attempts(run: Run, shards: Sequence[Shard]) -> dict[Shard, list[Attempt]]:
    """Every attempt at each shard, in order of time."""
    roots = _roots(run)
    submissions = {s.token: s for s in recorded(run)}
    events = {root: _event_files(root) for root in roots}
    found = {}
    for shard in shards:
        tries: dict[str, Attempt] = {}
        for root in roots:
            for path, id, rank in events[root].get((shard.round, shard.stage, shard.index), ()):
                _add_events(tries.setdefault(id, Attempt(shard=shard, id=id)), path, rank)
            segments = [s for path, local in _logs(root, shard, submissions) for s in _segments(path, local)]
            _add_segments(tries, shard, segments)
        for attempt in tries.values():
            attempt.lines.sort(key=lambda line: (line.time, line.rank, line.source, line.number))
            attempt.how = _how(run, attempt)
        found[shard] = sorted(tries.values(), key=lambda a: a.began)
    return found


def _roots(run: Run) -> list[Path]:
    """The folders of the run, and of others that worked on the stages that it shares with them."""
    names = dict.fromkeys(s.run for s in recorded(run) if s.run)
    for round, stage in _shared_stages(run):
        names |= dict.fromkeys(m.run for s in run.shards(round, stage) if (m := run.manifest(s)) and m.run)
    return list(dict.fromkeys([run.root, *(run.root.parent / name for name in names)]))


def _shared_stages(run: Run) -> list[tuple[int, str]]:
    return [(int(name[1:4]), name.partition("-")[2]) for name in run.shared]


def _event_files(root: Path) -> dict[tuple[int, str, int], list[tuple[Path, str, int]]]:
    """(path, attempt, rank) of each event file, by (round, stage, shard); one listing of the folder."""
    files: dict[tuple[int, str, int], list[tuple[Path, str, int]]] = defaultdict(list)
    for path in sorted((root / "events").glob("*.jsonl")):
        stage, round, index, *attempt = path.stem.split("-")
        if attempt and attempt[-1].isdigit():
            files[int(round[1:]), stage, int(index)].append((path, "-".join(attempt[:-1]), int(attempt[-1])))
    return files


def _add_events(attempt: Attempt, path: Path, rank: int) -> None:
    for number, text in enumerate(
        path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    ):
        if not (event := parsed(text)):
            continue
        attempt.ranks.add(rank)
        attempt.lines.append(
            Line(time=event["time"], rank=rank, source=path.name, number=number, text=f"* {_told(event)}")
        )
        if "host" in event:
            attempt.hosts[event["host"]] = None
        if rank == 0:
            attempt.last_kind = event["kind"] + (f": {event['error']}" if event.get("error") else "")


def _told(event: dict) -> str:
    if event["kind"] == "progress":
        return f"{event['done']} of {event['total']} {event['unit']}"
    more = ", ".join(f"{k} {v}" for k, v in event.items() if k not in WORDY)
    return event["kind"] + (f": {more}" if more else "")


def _logs(root: Path, shard: Shard, submissions: dict[str, Submission]) -> Iterator[tuple[Path, str]]:
    """The logs of a shard's attempts; with the attempt's name where the folder tells it."""
    folder = root / "logs" / job_name(shard.round, shard.stage)
    for attempt in sorted(folder.iterdir()) if folder.is_dir() else ():
        local, submission = _LOCAL.fullmatch(attempt.name), submissions.get(attempt.name)
        for path in sorted(attempt.glob("*_log.*")):
            parts = path.name.split("_")
            if local and int(local[1]) == shard.index:
                yield path, f"{parts[0]}-{local[2]}"
            elif submission and submission.job == folder.name:
                position = (
                    int(parts[1]) if len(parts) == 4 else 0
                )  # job, element, rank, log.out; else job, rank, log.out
                if position < len(submission.shards) and submission.shards[position] == shard.index:
                    yield path, ""


def _segments(path: Path, local: str) -> Iterator[_Segment]:
    current: _Segment | None = None
    before: list[Line] = []
    now, year = 0.0, datetime.now().year
    for number, text in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n")):
        text = text.rpartition("\r")[2]
        if start := _START.search(text):
            if current:
                yield current
            now = datetime.strptime(start["time"], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            year = int(start["time"][:4])
            current = _Segment(
                job=local or start["job"],
                host=start["host"],
                rank=int(start["rank"]),
                start=now,
                lines=before,
            )
            before = []
        else:
            now = max(now, _time(text, year) or now)
        if text.strip():
            line = Line(
                time=now, rank=current.rank if current else 0, source=path.name, number=number, text=text
            )
            (current.lines if current else before).append(line)
    if current:
        yield current
    elif before:
        yield _Segment(
            job=local or path.name.partition("_log")[0],
            host="",
            rank=0,
            start=path.stat().st_mtime,
            lines=before,
        )


def _time(text: str, year: int) -> float | None:
    """The time that a line says it was written at."""
    for pattern in _TIMES:
        if found := pattern.search(text[:120]):
            parts = found.groupdict()
            try:
                return datetime.fromisoformat(
                    f"{parts.get('y') or year}-{parts['m']}-{parts['d']}T{parts['t']}.{parts.get('f') or '000'}"
                ).timestamp()
            except ValueError:  # digits that are no date
                continue
    return None


def _add_segments(tries: dict[str, Attempt], shard: Shard, segments: Sequence[_Segment]) -> None:
    """Each segment to the attempt that it is of: the one whose events begin in it, else its own, named after its job and its turn."""
    firsts: dict[str, list[_Segment]] = defaultdict(list)
    for s in sorted((s for s in segments if s.rank == 0), key=lambda s: s.start):
        firsts[s.job].append(s)
    named: dict[int, str] = {}
    for job, mine in firsts.items():
        for turn, s in enumerate(mine):
            until = mine[turn + 1].start if turn + 1 < len(mine) else float("inf")
            ours = (
                id
                for id, a in tries.items()
                if (id == job or id.rpartition("-")[0] == job)
                and any(s.start <= line.time < until for line in a.lines)
            )
            named[id(s)] = next(ours, job if "-" in job else f"{job}, start {turn + 1}")
    for s in segments:
        leader = min(firsts.get(s.job, ()), key=lambda first: abs(first.start - s.start), default=s)
        name = named.get(id(leader), s.job)
        attempt = tries.setdefault(name, Attempt(shard=shard, id=name))
        attempt.ranks.add(s.rank)
        attempt.lines += [
            line
            if line.time
            else Line(time=s.start, rank=s.rank, source=line.source, number=line.number, text=line.text)
            for line in s.lines
        ]
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
    if attempt.last_kind.startswith("failed") or attempt.last_kind in ("stopped", "halted"):
        return {"stopped": "stopped at a safe point", "halted": "halted by a rule"}.get(
            attempt.last_kind, attempt.last_kind
        )
    if any(ASKED in line.text for line in attempt.lines):
        return "asked to be queued again"
    for line in reversed(attempt.lines):
        if end := next((e for e in _SLURM_ENDS if e in line.text), None):
            return f"ended by Slurm: {end.lower()}"
    traces = [i for i, line in enumerate(attempt.lines) if line.text.startswith("Traceback")]
    if traces:
        return next(
            (line.text[:160] for line in attempt.lines[traces[-1] + 1 :] if line.text[:1].isalpha()), "raised"
        )
    return SILENT
