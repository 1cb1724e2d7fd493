"""What Slurm's accounts say of jobs: one line for each run of a job, of which a requeue makes several; one
question for a whole run.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.runs.queue import SlurmError, ask_slurm

SACCT_FIELDS = "JobID,State,Submit,Start,End"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of sacct. Times in seconds since the epoch; `end` is None while it runs."""

    job: str
    state: str
    submit: float
    start: float
    end: float | None

    @property
    def wait_s(self) -> float:
        return max(0.0, self.start - self.submit)


def ask_sacct(ids: Sequence[str]) -> list[Record]:
    """All runs of these jobs, oldest first: one call. Empty where Slurm keeps no accounts."""
    command = ["sacct", "-D", "-X", "-n", "-P", "-j", ",".join(ids), "-o", SACCT_FIELDS]
    try:
        text = ask_slurm(command)
    except SlurmError:  # accounting is a luxury: the events tell nearly the same
        return []
    return list(_records(text.splitlines()))


def _records(lines: Iterable[str]) -> Iterable[Record]:
    for line in lines:
        fields = line.split("|")
        if len(fields) == len(SACCT_FIELDS.split(",")):
            job, state, *times = fields
            submit, start, end = (_seconds(t) for t in times)
            if submit is not None and start is not None:
                yield Record(job=job, state=state.split(" ")[0], submit=submit, start=start, end=end)


def _seconds(text: str) -> float | None:
    """Slurm writes local time; Unknown and None for what has not happened."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def by_attempt(records: Sequence[Record], attempts: Sequence[str]) -> dict[tuple[str, int], Record]:
    """By job and restart; without jobs of which fewer are kept than there were attempts."""
    runs: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        runs[r.job].append(r)
    needed: dict[str, int] = {}
    for job, restart in map(split_attempt, attempts):
        needed[job] = max(needed.get(job, 0), restart + 1)
    return {
        (job, n): r
        for job, several in runs.items()
        if len(several) >= needed.get(job, 1)
        for n, r in enumerate(sorted(several, key=lambda r: r.start))
    }


def split_attempt(attempt: str) -> tuple[str, int]:
    """The job and how often it was started before."""
    job, _, restart = attempt.rpartition("-")
    return job, int(restart) if restart.isdigit() else 0
