"""Jobs that ended before a word of ours: a wrong interpreter, a path that nodes lack, a module that is not
there.

Such a job leaves no event and no record of a failure. What is left is its Slurm log, if it could be opened,
and how Slurm says that the job ended.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.runs.failures import failure, job_of
from jobs.runs.progress import EventFiles, event_files
from jobs.runs.queue import Queued, SlurmError, Submission, ask_slurm
from serl.run.rundir import Run, Shard
from serl.stages.kind import job_name, stage_of

MAX_ASKED = 8  # jobs, or arrays of them, of which the controller is asked one by one
MAX_SAID = 300
SILENT = "its log says nothing"
BEGAN = "Starting with JobEnvironment("
_NOISE = re.compile(r"srun: |slurmstepd[^:]*: (?:error: )?\*\*\* STEP|\s*$")
_SPEAKER = re.compile(r"^(?:slurmstepd[^:]*|\S*slurm_script): (?:error: )?")
_EXIT = re.compile(r"srun: error: .*Exited with exit code (\d+)")
_ENDED_BY_SLURM = re.compile(
    r"\*\*\* JOB .*(?:CANCELLED|DUE TO)|DUE TO (?:PREEMPTION|TIME LIMIT|JOB REQUEUE|NODE)"
)
_NO_FAULT = ("CANCELLED", "PREEMPTED", "TIMEOUT", "REQUEUED", "NODE_FAIL", "PENDING", "RUNNING", "COMPLETING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stillborn:
    """A job that did nothing: `said` is the last line of its log; `code` is empty where only Slurm knows."""

    shard: Shard
    job: str
    said: str
    code: str
    log: Path | None
    folder: Path

    @property
    def reason(self) -> str:
        code = f" (exit code {self.code})" if self.code else ""
        return f"job {self.job} ended before its Python began: {self.said or SILENT}{code}"

    def record(self) -> dict[str, str | int | float]:
        """As a failure is recorded; `alike` is the same for all that died of one cause."""
        alike = re.sub(r"\d+", "", f"{self.said} {self.code}") if self.log else "no log"
        known = {"shard": str(self.shard), "attempt": f"{self.job}-0", "times": 1}
        return known | {"reason": self.reason, "alike": alike}


def stillborn(
    run: Run, submissions: Sequence[Submission], queue: Iterable[Queued], *, ask: bool = True
) -> list[Stillborn]:
    """Of the shards that are neither done nor at work nor known to have failed, those whose newest job never
    got to our Python; a job that was cancelled is none. `ask`: Slurm, where no log tells.
    """
    busy = {(q.token, q.position) for q in queue}
    newest = _newest(run, submissions)
    events = event_files(run.root) if newest else {}
    found = [
        born
        for shard, (submission, position) in newest.items()
        if (submission.token, position) not in busy
        and (born := _examine(run, shard, submission, position, events))
    ]
    unknown = [born.job for born in found if not born.code] if ask else []
    ends = (_controller(unknown) | _accounts(unknown)) if unknown else {}
    return [told for born in found if (told := _with_end(born, ends))]


def _newest(run: Run, submissions: Sequence[Submission]) -> dict[Shard, tuple[Submission, int]]:
    """The last submission of each missing shard, and its place there."""
    last = {(s.job, index): (s, i) for s in submissions if s.id for i, index in enumerate(s.shards)}
    names = dict.fromkeys(job for job, _ in last)
    shards = [
        shard for job in names if run.config.has(*stage_of(job)) for shard in run.shards(*stage_of(job))
    ]
    keys = {shard: (job_name(shard.round, shard.stage), shard.index) for shard in shards}
    return {shard: last[key] for shard, key in keys.items() if key in last and not run.done(shard)}


def _examine(
    run: Run, shard: Shard, submission: Submission, position: int, events: EventFiles
) -> Stillborn | None:
    job = f"{submission.id}_{position}" if submission.array else str(submission.id)
    record = failure(run, shard)
    spoke = any(job_of(id) == job for _, id, _ in events.get((shard.round, shard.stage, shard.index), ()))
    if spoke or (record and job_of(record["attempt"]) == job):
        return None
    folder = run.root.parent / (submission.run or run.root.name) / "logs" / submission.job / submission.token
    logs = sorted(folder.glob(f"{job}_*_log.out"))
    lines = [line for path in logs for line in path.read_text(errors="replace").splitlines()]
    began = any(BEGAN in line for line in lines)
    if any(_ENDED_BY_SLURM.search(line) for line in lines) or (began and not _raised(lines)):
        return None
    codes = [found[1] for line in lines if (found := _EXIT.search(line))]
    words = [line for line in lines if not _NOISE.match(line)]
    said = _SPEAKER.sub("", words[-1])[:MAX_SAID] if words else ""
    code, log = codes[-1] if codes else "", logs[0] if logs else None
    return Stillborn(shard=shard, job=job, said=said, code=code, log=log, folder=folder)


def _raised(lines: Sequence[str]) -> bool:
    return any(line.startswith("Traceback") or "ERROR" in line for line in lines)


def _with_end(born: Stillborn, ends: Mapping[str, tuple[str, str]]) -> Stillborn | None:
    """With what Slurm says of its end. Without a log of its own that alone tells whether it was a failure."""
    state, code = ends.get(born.job, ("", ""))
    if state.startswith(_NO_FAULT) or (not state and not born.log):
        return None
    said = born.said or (
        SILENT if born.log else f"no log; Slurm says {state}: does its node see {born.folder}?"
    )
    return replace(born, said=said, code=born.code or code)


def _controller(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The state and exit code of each; a controller forgets a job minutes after its end."""
    found: dict[str, tuple[str, str]] = {}
    for job in list(dict.fromkeys(job.partition("_")[0] for job in jobs))[:MAX_ASKED]:
        try:
            text = ask_slurm(["scontrol", "--oneliner", "show", "job", job])
        except SlurmError:
            continue
        for line in text.splitlines():
            told = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
            element = told.get("ArrayTaskId", "")
            name = f"{job}_{element}" if element.isdigit() else job
            why = told.get("Reason", "None")
            state = told.get("JobState", "") + ("" if why == "None" else f" ({why})")
            found[name] = (state, _code(told.get("ExitCode", "")))
    return found


def _accounts(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The same from the accounts, which forget nothing; empty where a site keeps none."""
    try:
        text = ask_slurm(["sacct", "-X", "-n", "-P", "-j", ",".join(jobs), "-o", "JobID,State,ExitCode"])
    except SlurmError:
        return {}
    rows = (line.split("|") for line in text.splitlines())
    return {row[0]: (row[1], _code(row[2])) for row in rows if len(row) == 3 and row[2]}


def _code(told: str) -> str:
    """Of Slurm's code:signal."""
    code, _, number = told.partition(":")
    return code if number in ("", "0") else f"{code}, signal {number}"
