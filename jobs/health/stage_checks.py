"""Whether a site can give what each kind of stage asks for: site and cluster file in, findings out; pure."""

import re
from collections.abc import Iterator, Sequence

from jobs.health.checks import Check, judged
from jobs.health.site import Nodes, Partition, Site
from jobs.plan.cluster import Resources, Slurm
from serl.stages import kinds

SHORT_GRACE_S = 30
SHORT_SIGNAL_S = 60  # Slurm looks at time limits twice a minute
FEW_JOBS = 200
Fault = tuple[bool, str, str]  # whether it is so, what does not fit, and the key to change


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


def requests(cluster: Slurm) -> list[tuple[list[str], Resources]]:
    """What the kinds of stages ask for; those that ask for the same once, together."""
    groups: dict[str, tuple[list[str], Resources]] = {}
    for name, kind in kinds().items():
        asked = cluster.resources_of(kind)
        groups.setdefault(asked.model_dump_json(), ([], asked))[0].append(name)
    return list(groups.values())


def check_stages(site: Site, cluster: Slurm) -> Iterator[Check]:
    for names, asked in requests(cluster):
        stages, parts = ", ".join(names), asked.partition or site.default_partition
        one_of = f"partition: one of {', '.join(site.partitions) or '(none seen)'}"
        if parts is None:
            found = "none given, and the site has no default"
            yield Check("problem", f"partition ({stages})", found, one_of)
            continue
        for part in parts.split(","):
            if partition := site.partitions.get(part):
                yield from _check_partition(site, partition, asked, stages)
            else:
                subject = f"partition {part} ({stages})"
                yield Check("problem", subject, "there is none of that name", one_of)
        if site.associations:
            yield from _charge(site, asked, stages)


def _check_partition(site: Site, partition: Partition, asked: Resources, stages: str) -> Iterator[Check]:
    subject, nodes = f"partition {partition.name} ({stages})", site.nodes_of(partition.name)
    faults = [f for f in (*_access(partition, asked), *_sizes(nodes, asked)) if f[0]]
    yield from (Check("problem", subject, found, remedy) for _, found, remedy in faults)
    if not faults:
        yield judged(subject, _summary(nodes, asked))
    yield _preemption(site, partition, asked, stages)


def _summary(nodes: Sequence[Nodes], asked: Resources) -> str:
    gpus = sorted({f"{n.gpus} x {'/'.join(n.gpu_types) or 'GPU'}" for n in nodes if n.gpus})
    have = f"{sum(n.count for n in nodes)} nodes" + (f" with {', '.join(gpus)}" if gpus else "")
    return f"{have}; asked: {asked.nodes} x {asked.gpus_per_node} GPUs, {asked.time_min} min"


def _access(partition: Partition, asked: Resources) -> Iterator[Fault]:
    """Whether the partition takes such jobs from this user at all."""
    yield not partition.up, "it is not up", "choose another, or wait for the site"
    for key, name, allowed in (
        ("account", asked.account, partition.accounts),
        ("QOS", asked.qos, partition.qos),
    ):
        if name is not None and allowed is not None:
            remedy = f"{key.lower()}: one of {', '.join(allowed)}"
            yield name not in allowed, f"{key} {name} may not use it", remedy
    for key, asks, limit, more in (
        ("time_min", asked.time_min, partition.max_minutes, "; a job that needs longer saves and goes on"),
        ("nodes", asked.nodes, partition.max_nodes, ""),
    ):
        if limit is not None:
            yield asks > limit, f"{key} {asks} is over its limit", f"{key}: {limit} or less{more}"


def _sizes(nodes: Sequence[Nodes], asked: Resources) -> Iterator[Fault]:
    """What no node, or too few nodes, can give; each fault alone, so that its remedy is clear."""
    matching = [n for n in nodes if _matches(asked.constraint, n.features)]
    if not matching:
        features = sorted(set().union(*(n.features for n in nodes)))
        others = f"constraint: of {', '.join(features)}" if features else "leave it out: nodes have none"
        yield not nodes, "it has no nodes", "choose another partition"
        yield bool(nodes), f"no node has {asked.constraint}", others
        return
    tasks, wanted = asked.tasks_per_node, asked.gpus_per_node
    cpus, memory_gb = asked.cpus_per_task * tasks, asked.mem_gb
    most_cpus, most_gpus = max(n.cpus for n in matching), max(n.gpus for n in matching)
    most_gb = max(n.memory_mb for n in matching) // 1024
    found = f"{tasks} tasks x {asked.cpus_per_task} CPUs on a node of {most_cpus}"
    yield cpus > most_cpus, found, "lower cpus_per_task or tasks_per_node"
    yield memory_gb > most_gb, f"mem_gb {memory_gb} on a node of {most_gb}", f"mem_gb: {most_gb} or less"
    remedy = f"gpus_per_node: {most_gpus} or less, or a partition with larger nodes"
    yield wanted > most_gpus, f"{wanted} GPUs on a node of {most_gpus}", remedy
    fitting = [n for n in matching if n.cpus >= cpus and n.memory_mb >= memory_gb * 1024 and n.gpus >= wanted]
    enough = sum(n.count for n in fitting)
    found = f"{asked.nodes} nodes asked of {enough} that fit"
    yield 0 < enough < asked.nodes, found, f"nodes: {enough} or less"
    shared = wanted > 0 and tasks > 1 and tasks != wanted
    yield shared, f"{tasks} tasks share {wanted} GPUs of a node", "tasks_per_node: one for each GPU"


def _matches(constraint: str | None, features: frozenset[str]) -> bool:
    """Only names joined by | or & are understood; what else Slurm allows is taken on trust."""
    if constraint is None or not re.fullmatch(r"[\w.+-]+([|&,][\w.+-]+)*", constraint):
        return True
    return any(set(re.split("[&,]", choice)) <= features for choice in constraint.split("|"))


def _preemption(site: Site, partition: Partition, asked: Resources, stages: str) -> Check:
    """What happens to these jobs when others want their nodes."""
    subject, kind = f"preemption ({stages})", site.preemption
    mode, grace = partition.preempt_mode, partition.grace_s or 0
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


def _charge(site: Site, asked: Resources, stages: str) -> Iterator[Check]:
    """Account and QOS, where accounting tells what this user may use."""
    mine = site.associations or ()
    accounts = sorted({a.account for a in mine})
    if asked.account is not None and asked.account not in accounts:
        one_of = f"account: one of {', '.join(accounts)}"
        yield Check("problem", f"account ({stages})", f"{asked.account} is not among yours", one_of)
        return
    parts = ("", *(asked.partition or site.default_partition or "").split(","))
    usable = [a for a in mine if asked.account in (None, a.account) and a.partition in parts]
    allowed = sorted({q for a in usable for q in a.qos})
    if asked.qos is not None and asked.qos not in allowed:
        remedy = f"qos: one of {', '.join(allowed) or '(none)'}, or leave it out"
        yield Check("problem", f"QOS ({stages})", f"{asked.qos} is not among yours", remedy)
    own = [q for name, q in (site.qos or {}).items() if name == asked.qos]
    limits = [limited.max_submit for limited in (*usable, *own) if limited.max_submit is not None]
    if limits and min(limits) < FEW_JOBS:
        remedy = (
            "array tasks count one each; what does not fit a relay submits later, which needs two places "
            "at least: ask the site for more if that is slow"
        )
        yield Check("warning", f"jobs in the queue ({stages})", f"at most {min(limits)}", remedy)
