"""A finding and its remedy, and those about a whole Slurm site: what it says in, findings out; pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.health.site import Site
from jobs.runs.queue import DEFAULT_MAX_ARRAY

Level = Literal["ok", "warning", "problem"]
Ill = tuple[object, Level, str]  # whether it is so, how bad that is, and what to do about it

OLDEST = (20, 11)
SMALL_ARRAY = 101
SHORT_MEMORY_S = 60


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, what was found, and what to do about it (empty where all is well)."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def judged(subject: str, found: str, *ills: Ill) -> Check:
    """A finding as bad as the first of the ills that is so; well where none is."""
    level, remedy = next(((level, remedy) for so, level, remedy in ills if so), ("ok", ""))
    return Check(level, subject, found, remedy)


def check_site(site: Site) -> Iterator[Check]:
    """What the whole site has in common; `stage_checks` looks at what each stage asks for."""
    version = site.settings.get("SLURM_VERSION", "")
    number = re.match(r"(\d+)\.(\d+)", version)
    old = (
        f"older than {OLDEST[0]}.{OLDEST[1]:02d}; try a small run first: "
        "requeue and signals differ between versions"
    )
    yield judged(
        "Slurm version", version if number else f"unknown ({version or 'scontrol does not say'})",
        (not number, "warning", "go on, and tell what does not work"),
        (number and (int(number[1]), int(number[2])) < OLDEST, "warning", old),
    )  # fmt: skip
    by_default = "0: jobs are not requeued by default; ours ask for it with --requeue"
    requeue = site.settings.get("JobRequeue", "1")
    yield judged("JobRequeue", by_default if requeue == "0" else requeue)
    expires = re.search(r"cred_expire=(\d+)", site.settings.get("AuthInfo", ""))
    delay = f"about {expires[1] if expires else 120} s before a requeued job may start again"
    yield judged("requeue delay", delay)  # it waits until its old credential has expired
    yield judged("signal on preemption", _signal(site))
    yield from _limits(site)
    kind = site.settings.get("AccountingStorageType", "").rpartition("/")[2]
    none, silent = kind in ("none", "(null)", ""), site.associations is None
    lost = "runs work; the GPU-hours that preemption and failures cost cannot be told"
    yield judged(
        "accounting", "none" if none else f"{kind}, but sacctmgr does not answer" if silent else kind,
        (none, "warning", lost),
        (silent, "warning", "account and QOS are not checked; is slurmdbd up?"),
    )  # fmt: skip


def _signal(site: Site) -> str:
    """Which signal says that a job is to give way; ours act on either."""
    if site.preemption == "none":
        return "none needed: nothing is preempted here"
    if site.has("PreemptParameters", "send_user_signal"):
        return "USR2 (PreemptParameters=send_user_signal)"
    if site.has("SlurmctldParameters", "preempt_send_user_signal"):
        return "USR2 (SlurmctldParameters=preempt_send_user_signal)"
    return "TERM only (no send_user_signal), which our jobs hold and act on just as well"


def _limits(site: Site) -> Iterator[Check]:
    size, memory_s = site.number("MaxArraySize"), site.number("MinJobAge")
    none = "this site has no job arrays: ask for MaxArraySize of at least 101, or use one shard per stage"
    few = f"stages of more than {size} shards become several arrays; fewer, longer shards are kinder"
    yield judged(
        "MaxArraySize", "unknown" if size is None else f"{size}: arrays of up to as many tasks",
        (size is None, "warning", f"arrays are split at {DEFAULT_MAX_ARRAY} tasks"),
        (size is not None and size < 2, "problem", none),
        (size is not None and size < SMALL_ARRAY, "warning", few),
    )  # fmt: skip
    forgets = (
        "Slurm forgets finished jobs at once: dependencies on them are void, "
        "and jobs that start early wait at their gates"
    )
    found = "unknown" if memory_s is None else f"{memory_s} s"
    short = (memory_s or SHORT_MEMORY_S) < SHORT_MEMORY_S
    yield judged("MinJobAge", found, (short, "warning", forgets))
