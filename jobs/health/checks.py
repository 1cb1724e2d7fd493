"""A finding and its remedy, and those about a Slurm site: what it says and the cluster file in, findings out;
pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.health.site import Partition, Site
from jobs.plan.cluster import Resources, Slurm
from serl.stages import kinds

Level = Literal["ok", "warning", "problem"]
Ill = tuple[object, Level, str]  # whether it is so, how bad that is, and what to do about it

OLDEST = (20, 11)
SHORT_GRACE_S = 30
SHORT_SIGNAL_S = 60  # Slurm looks at time limits twice a minute
SHOW_NODES = "sinfo --format='%P %D %c %m %G %f'"  # count, CPUs, memory, GPUs, features


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
    """What the whole site has in common."""
    version = site.settings.get("SLURM_VERSION", "")
    number = re.match(r"(\d+)\.(\d+)", version)
    old = "try a small run first: requeue and signals differ between versions"
    yield judged(
        "Slurm version",
        version or "unknown: scontrol does not say",
        (not number, "warning", "go on, and tell what does not work"),
        (number and (int(number[1]), int(number[2])) < OLDEST, "warning", old),
    )
    kind = site.settings.get("AccountingStorageType", "").rpartition("/")[2]
    none, silent = kind in ("none", "(null)", ""), site.qos is None
    lost = "runs work; why a job died before its first word cannot be told"
    yield judged(
        "accounting",
        "none" if none else f"{kind}, but sacctmgr does not answer" if silent else kind,
        (none, "warning", lost),
        (silent, "warning", "the preemption of a QOS is not checked; is slurmdbd up?"),
    )


def check_lead_time(cluster: Slurm) -> Check:
    minutes, name = min((cluster.resources_of(kind).time_min, name) for name, kind in kinds().items())
    late = cluster.signal_s >= minutes * 60
    short = f"Slurm acts on limits every 30 s, and a step and a save must fit: {SHORT_SIGNAL_S} or more"
    return judged(
        "signal_s",
        f"{cluster.signal_s} s before the " + (f"end of {name}'s {minutes} min" if late else "time limit"),
        (late, "problem", "lower signal_s or raise time_min: the job is asked to stop at once"),
        (cluster.signal_s < SHORT_SIGNAL_S, "warning", short),
    )


def requests(cluster: Slurm) -> list[tuple[str, Resources]]:
    """What the kinds of stages ask for; those that ask for the same once, together."""
    groups: dict[str, tuple[list[str], Resources]] = {}
    for name, kind in kinds().items():
        asked = cluster.resources_of(kind)
        groups.setdefault(asked.model_dump_json(), ([], asked))[0].append(name)
    return [(", ".join(names), asked) for names, asked in groups.values()]


def check_stages(site: Site, asked: Resources, stages: str, refusal: str) -> Iterator[Check]:
    """A job of these kinds of stages: whether Slurm would take it (`refusal` is what it said), and what
    becomes of it. A time limit beyond the partition's many sites take, and never start the job.
    """
    tasks, gpus, names = asked.tasks_per_node, asked.gpus_per_node, site.partitions_of(asked)
    mend = f"mend that key of the cluster file; partitions are {', '.join(site.partitions) or 'none'}, and "
    yield judged(
        f"job ({stages})",
        refusal or f"{asked.nodes} x {gpus} GPUs, {asked.time_min} min on {', '.join(names)}: Slurm takes it",
        (refusal, "problem", f"{mend}`{SHOW_NODES}` shows what their nodes have"),
    )
    if 1 < tasks != gpus > 0:
        shared = f"{tasks} tasks share {gpus} GPUs of a node"
        yield Check("problem", f"job ({stages})", shared, "tasks_per_node: one for each GPU")
    for partition in filter(None, map(site.partitions.get, names)):
        most = partition.max_minutes
        if most is not None and asked.time_min > most:
            less = f"time_min: {most} or less; a job that needs longer saves and goes on"
            found = f"time_min {asked.time_min} is over the limit of {partition.name}"
            yield Check("problem", f"job ({stages})", found, less)
        yield _preemption(site, partition, asked, stages)


def _preemption(site: Site, partition: Partition, asked: Resources, stages: str) -> Check:
    """What happens to these jobs when others want their nodes."""
    subject, kind = f"preemption ({stages})", site.preemption
    mode, grace = partition.preempt_mode, partition.grace_s
    if kind == "qos":
        own = (site.qos or {}).get(asked.qos or "normal")
        inherits = own is None or own.preempt_mode in ("cluster", "")
        mode = site.settings.get("PreemptMode", "OFF") if inherits else own.preempt_mode
        grace = own.grace_s if own else 0
    mode = mode.upper()
    if kind == "none" or mode == "OFF":
        return judged(subject, "never")
    if "CANCEL" in mode:
        found = f"jobs of {partition.name} are cancelled, not requeued"
        remedy = "a partition or QOS with PreemptMode=REQUEUE; here jobs.resume must follow each time"
        return Check("problem", subject, found, remedy)
    if "REQUEUE" not in mode:
        found = f"jobs of {partition.name} are suspended, and keep their GPU memory ({mode})"
        return Check("warning", subject, found, "prefer a partition or QOS with PreemptMode=REQUEUE")
    found, short = f"requeued after {grace} s of grace", "a training save may take longer (status shows it)"
    return judged(
        subject,
        found if grace else "requeued without grace: what is not yet committed is done again",
        (not grace, "warning", "ask the site for a GraceTime of a minute or two; keep shards short"),
        (grace < SHORT_GRACE_S, "warning", f"{short}; ask the site for more"),
    )
