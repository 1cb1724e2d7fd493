"""A finding and its remedy, and those about a whole Slurm site: what it says in, findings out; pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.chain.queue import DEFAULT_MAX_ARRAY
from jobs.health.site import Site

Level = Literal["ok", "warning", "problem"]
Ill = tuple[bool, Level, str]  # whether it is so, how bad that is, and what to do about it

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


def warning(subject: str, found: str, remedy: str) -> Check:
    return Check("warning", subject, found, remedy)


def problem(subject: str, found: str, remedy: str) -> Check:
    return Check("problem", subject, found, remedy)


def check_site(site: Site) -> Iterator[Check]:
    """What the whole site has in common; `stage_checks` looks at what each stage asks for."""
    yield _version(site.settings.get("SLURM_VERSION", ""))
    by_default = "0: jobs are not requeued by default; ours ask for it with --requeue"
    requeue = site.settings.get("JobRequeue", "1")
    yield judged("JobRequeue", by_default if requeue == "0" else requeue)
    yield _delay(site)
    yield judged("signal on preemption", _signal(site))
    yield _arrays(site.number("MaxArraySize"))
    yield _memory(site.number("MinJobAge"))
    yield _accounting(site)


def _version(text: str) -> Check:
    found = re.match(r"(\d+)\.(\d+)", text)
    if not found:
        said = f"unknown ({text or 'scontrol does not say'})"
        return warning("Slurm version", said, "go on, and tell what does not work")
    remedy = (
        f"older than {OLDEST[0]}.{OLDEST[1]:02d}; try a small run first: "
        "requeue and signals differ between versions"
    )
    return judged("Slurm version", text, ((int(found[1]), int(found[2])) < OLDEST, "warning", remedy))


def _delay(site: Site) -> Check:
    """A requeued job waits until its old credential has expired."""
    found = re.search(r"cred_expire=(\d+)", site.settings.get("AuthInfo", ""))
    seconds = found[1] if found else 120
    return judged("requeue delay", f"about {seconds} s before a requeued job may start again")


def _signal(site: Site) -> str:
    """Which signal says that a job is to give way; ours act on either."""
    if site.preemption == "none":
        return "none needed: nothing is preempted here"
    if site.has("PreemptParameters", "send_user_signal"):
        return "USR2 (PreemptParameters=send_user_signal)"
    if site.has("SlurmctldParameters", "preempt_send_user_signal"):
        return "USR2 (SlurmctldParameters=preempt_send_user_signal)"
    return "TERM only (no send_user_signal), which our jobs hold and act on just as well"


def _arrays(size: int | None) -> Check:
    subject = "MaxArraySize"
    if size is None:
        return warning(subject, "unknown", f"arrays are split at {DEFAULT_MAX_ARRAY} tasks")
    none = "this site has no job arrays: ask for MaxArraySize of at least 101, or use one shard per stage"
    few = f"stages of more than {size} shards become several arrays; fewer, longer shards are kinder"
    found = f"{size}: arrays of up to as many tasks"
    return judged(subject, found, (size < 2, "problem", none), (size < SMALL_ARRAY, "warning", few))


def _memory(seconds: int | None) -> Check:
    remedy = (
        "Slurm forgets finished jobs at once: dependencies on them are void, "
        "and jobs that start early wait at their gates"
    )
    found = "unknown" if seconds is None else f"{seconds} s"
    return judged("MinJobAge", found, ((seconds or SHORT_MEMORY_S) < SHORT_MEMORY_S, "warning", remedy))


def _accounting(site: Site) -> Check:
    kind = site.settings.get("AccountingStorageType", "").rpartition("/")[2]
    if kind in ("none", "(null)", ""):
        lost = "runs work; the GPU-hours that preemption and failures cost cannot be told"
        return warning("accounting", "none", lost)
    if site.associations is None:
        remedy = "account and QOS are not checked; is slurmdbd up?"
        return warning("accounting", f"{kind}, but sacctmgr does not answer", remedy)
    return judged("accounting", kind)
