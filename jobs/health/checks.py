"""Whether a Slurm site is as runs need it: what the site says in, findings with their remedies out; pure."""

import re
from dataclasses import dataclass
from typing import Literal

from jobs.chain.queue import DEFAULT_MAX_ARRAY
from jobs.health.site import Site, kind_of_preemption

Level = Literal["ok", "warning", "problem"]

OLDEST = (20, 11)
SMALL_ARRAY = 101
SHORT_MEMORY_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: what was looked at, what was found, and what to do about it (empty where all is well)."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Check:
    return Check(level="ok", subject=subject, found=found)


def warning(subject: str, found: str, remedy: str) -> Check:
    return Check(level="warning", subject=subject, found=found, remedy=remedy)


def problem(subject: str, found: str, remedy: str) -> Check:
    return Check(level="problem", subject=subject, found=found, remedy=remedy)


def check_site(site: Site) -> list[Check]:
    """What the whole site has in common; `stage_checks` looks at what each stage asks for."""
    checks = (
        check_version,
        check_requeue,
        check_delay,
        check_signal,
        check_arrays,
        check_memory,
        check_accounting,
    )
    return [check(site) for check in checks]


def check_version(site: Site) -> Check:
    text = site.settings.get("SLURM_VERSION", "")
    found = re.match(r"(\d+)\.(\d+)", text)
    if not found:
        return warning(
            "Slurm version",
            f"unknown ({text or 'scontrol does not say'})",
            "go on, and tell what does not work",
        )
    if (int(found[1]), int(found[2])) < OLDEST:
        return warning(
            "Slurm version",
            text,
            f"older than {OLDEST[0]}.{OLDEST[1]:02d}; try a small run first: requeue and signals differ between versions",
        )
    return ok("Slurm version", text)


def check_requeue(site: Site) -> Check:
    if site.number("JobRequeue") == 0:
        return ok("JobRequeue", "0: jobs are not requeued by default; ours ask for it with --requeue")
    return ok("JobRequeue", site.settings.get("JobRequeue", "1"))


def check_delay(site: Site) -> Check:
    """A requeued job waits until its old credential has expired."""
    found = re.search(r"cred_expire=(\d+)", site.settings.get("AuthInfo", ""))
    return ok("requeue delay", f"about {found[1] if found else 120} s before a requeued job may start again")


def check_signal(site: Site) -> Check:
    new, old = (
        site.has("PreemptParameters", "send_user_signal"),
        site.has("SlurmctldParameters", "preempt_send_user_signal"),
    )
    if kind_of_preemption(site) == "none":
        return ok("signal on preemption", "none needed: nothing is preempted here")
    if new or old:
        key = "PreemptParameters=send_user_signal" if new else "SlurmctldParameters=preempt_send_user_signal"
        return ok("signal on preemption", f"USR2 ({key})")
    return ok(
        "signal on preemption", "TERM only (no send_user_signal), which our jobs hold and act on just as well"
    )


def check_arrays(site: Site) -> Check:
    size = site.number("MaxArraySize")
    if size is None:
        return warning("MaxArraySize", "unknown", f"arrays are split at {DEFAULT_MAX_ARRAY} tasks")
    if size < 2:
        return problem(
            "MaxArraySize",
            str(size),
            "this site has no job arrays: ask for MaxArraySize of at least 101, or use one shard per stage",
        )
    if size < SMALL_ARRAY:
        return warning(
            "MaxArraySize",
            str(size),
            f"stages of more than {size} shards become several arrays; fewer, longer shards are kinder",
        )
    return ok("MaxArraySize", f"{size}: arrays of up to as many tasks")


def check_memory(site: Site) -> Check:
    seconds = site.number("MinJobAge")
    if seconds is not None and seconds < SHORT_MEMORY_S:
        return warning(
            "MinJobAge",
            f"{seconds} s",
            "Slurm forgets finished jobs at once: dependencies on them are void, and jobs that start early wait at their gates",
        )
    return ok("MinJobAge", "unknown" if seconds is None else f"{seconds} s")


def check_accounting(site: Site) -> Check:
    kind = site.settings.get("AccountingStorageType", "accounting_storage/none").rpartition("/")[2]
    if kind in ("none", "(null)", ""):
        return warning(
            "accounting", "none", "runs work; the GPU-hours that preemption and failures cost cannot be told"
        )
    if site.associations is None:
        return warning(
            "accounting",
            f"{kind}, but sacctmgr does not answer",
            "account and QOS are not checked; is slurmdbd up?",
        )
    return ok("accounting", kind)
