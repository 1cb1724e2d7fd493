"""Whether a site can give what each stage asks for: a site and a cluster file in, findings with their remedies out; pure."""

import re
from collections.abc import Iterator, Sequence

from jobs.health.checks import Check, ok, problem, warning
from jobs.health.site import Nodes, Partition, Site, kind_of_preemption
from jobs.plan.cluster import Resources, Slurm
from serl.stages import kinds

SHORT_GRACE_S = 30
SHORT_SIGNAL_S = 60  # Slurm looks at time limits twice a minute
FEW_JOBS = 200


def check_lead_time(cluster: Slurm) -> Check:
    subject = "signal_s"
    shortest = min((cluster.resources_of(kind).time_min, name) for name, kind in kinds().items())
    if cluster.signal_s >= shortest[0] * 60:
        return problem(
            subject,
            f"{cluster.signal_s} s before the end of {shortest[1]}'s {shortest[0]} min",
            "lower signal_s or raise time_min: the job is asked to stop at once",
        )
    if cluster.signal_s < SHORT_SIGNAL_S:
        return warning(
            subject,
            f"{cluster.signal_s} s",
            f"Slurm acts on limits every 30 s, and a step and a save must fit: {SHORT_SIGNAL_S} or more",
        )
    return ok(subject, f"{cluster.signal_s} s before the time limit")


def check_stages(site: Site, cluster: Slurm) -> Iterator[Check]:
    """Stages that ask for the same are judged once, together."""
    groups: dict[str, list[str]] = {}
    for name, kind in kinds().items():
        groups.setdefault(cluster.resources_of(kind).model_dump_json(), []).append(name)
    for names in groups.values():
        yield from check_resources(site, cluster.resources_of(kinds()[names[0]]), ", ".join(names))


def check_resources(site: Site, asked: Resources, stages: str) -> Iterator[Check]:
    name = asked.partition or site.default_partition
    if name is None:
        yield problem(
            f"partition ({stages})",
            "none given, and the site has no default",
            f"partition: one of {', '.join(site.partitions)}",
        )
        return
    for part in name.split(","):
        partition = site.partitions.get(part)
        if partition is None:
            yield problem(
                f"partition {part} ({stages})",
                "there is none of that name",
                f"partition: one of {', '.join(site.partitions) or '(none seen)'}",
            )
            continue
        faults = [
            *_access(partition, asked),
            *_limits(partition, asked),
            *_sizes([n for n in site.nodes if n.partition == part], asked),
        ]
        yield from (problem(f"partition {part} ({stages})", found, remedy) for found, remedy in faults)
        if not faults:
            yield ok(f"partition {part} ({stages})", _summary(site, part, asked))
        yield check_preemption(site, partition, asked, stages)
    yield from check_charge(site, asked, stages)


def _summary(site: Site, partition: str, asked: Resources) -> str:
    nodes = [n for n in site.nodes if n.partition == partition]
    kinds = sorted({f"{n.gpus} x {'/'.join(n.gpu_types) or 'GPU'}" for n in nodes if n.gpus})
    have = f"{sum(n.count for n in nodes)} nodes" + (f" with {', '.join(kinds)}" if kinds else "")
    return f"{have}; asked: {asked.nodes} x {asked.gpus_per_node} GPUs, {asked.time_min} min"


def _access(partition: Partition, asked: Resources) -> Iterator[tuple[str, str]]:
    if not partition.up:
        yield "it is not up", "choose another, or wait for the site"
    if (
        partition.accounts is not None
        and asked.account is not None
        and asked.account not in partition.accounts
    ):
        yield f"account {asked.account} may not use it", f"account: one of {', '.join(partition.accounts)}"
    if partition.qos is not None and asked.qos is not None and asked.qos not in partition.qos:
        yield f"QOS {asked.qos} may not use it", f"qos: one of {', '.join(partition.qos)}"


def _limits(partition: Partition, asked: Resources) -> Iterator[tuple[str, str]]:
    if partition.max_minutes is not None and asked.time_min > partition.max_minutes:
        yield (
            f"time_min {asked.time_min} is over its limit",
            f"time_min: {partition.max_minutes} or less; a job that needs longer saves and goes on",
        )
    if partition.max_nodes is not None and asked.nodes > partition.max_nodes:
        yield f"nodes {asked.nodes} is over its limit", f"nodes: {partition.max_nodes} or less"


def _sizes(nodes: Sequence[Nodes], asked: Resources) -> Iterator[tuple[str, str]]:
    """What no node, or too few nodes, can give; each fault alone, so that its remedy is clear."""
    if not nodes:
        yield "it has no nodes", "choose another partition"
        return
    matching = [n for n in nodes if _matches(asked.constraint, n.features)]
    if not matching:
        features = sorted(set().union(*(n.features for n in nodes)))
        yield (
            f"no node has {asked.constraint}",
            f"constraint: of {', '.join(features)}"
            if features
            else "leave constraint out: nodes here have none",
        )
        return
    cpus, memory_mb = asked.cpus_per_task * asked.tasks_per_node, asked.mem_gb * 1024
    most = {
        "cpus": max(n.cpus for n in matching),
        "memory": max(n.memory_mb for n in matching),
        "gpus": max(n.gpus for n in matching),
    }
    if cpus > most["cpus"]:
        yield (
            f"{asked.tasks_per_node} tasks x {asked.cpus_per_task} CPUs on a node of {most['cpus']}",
            "lower cpus_per_task or tasks_per_node",
        )
    if memory_mb > most["memory"]:
        yield (
            f"mem_gb {asked.mem_gb} on a node of {most['memory'] // 1024}",
            f"mem_gb: {most['memory'] // 1024} or less",
        )
    if asked.gpus_per_node > most["gpus"]:
        yield (
            f"{asked.gpus_per_node} GPUs on a node of {most['gpus']}",
            f"gpus_per_node: {most['gpus']} or less, or a partition with larger nodes",
        )
    enough = sum(
        n.count
        for n in matching
        if n.cpus >= cpus and n.memory_mb >= memory_mb and n.gpus >= asked.gpus_per_node
    )
    if 0 < enough < asked.nodes:
        yield f"{asked.nodes} nodes asked of {enough} that fit", f"nodes: {enough} or less"
    if asked.gpus_per_node and asked.tasks_per_node > 1 and asked.tasks_per_node != asked.gpus_per_node:
        yield (
            f"{asked.tasks_per_node} tasks share {asked.gpus_per_node} GPUs of a node",
            "tasks_per_node: one for each GPU",
        )


def _matches(constraint: str | None, features: frozenset[str]) -> bool:
    """Only names joined by | or & are understood; what else Slurm allows is taken on trust."""
    if constraint is None or not re.fullmatch(r"[\w.+-]+([|&,][\w.+-]+)*", constraint):
        return True
    return any(set(re.split("[&,]", choice)) <= features for choice in constraint.split("|"))


def check_preemption(site: Site, partition: Partition, asked: Resources, stages: str) -> Check:
    """What happens to these jobs when others want their nodes."""
    subject = f"preemption ({stages})"
    kind = kind_of_preemption(site)
    mode, grace = partition.preempt_mode, partition.grace_s
    if kind == "qos":
        own = (site.qos or {}).get(asked.qos or "normal")
        mode = (
            own.preempt_mode
            if own and own.preempt_mode not in ("cluster", "")
            else site.settings.get("PreemptMode", "OFF")
        )
        grace = own.grace_s if own else 0
    mode = mode.upper()
    if kind == "none" or mode == "OFF":
        return ok(subject, "never")
    if "CANCEL" in mode:
        return problem(
            subject,
            f"jobs of {partition.name} are cancelled, not requeued",
            "choose a partition or QOS with PreemptMode=REQUEUE; here jobs.resume would have to follow each time",
        )
    if "REQUEUE" not in mode:
        return warning(
            subject,
            f"jobs of {partition.name} are suspended, and keep their GPU memory ({mode})",
            "prefer a partition or QOS with PreemptMode=REQUEUE",
        )
    if grace == 0:
        return warning(
            subject,
            "requeued without grace: what is not yet committed is done again",
            "ask the site for a GraceTime of a minute or two; keep shards short",
        )
    if grace < SHORT_GRACE_S:
        return warning(
            subject,
            f"requeued after {grace} s of grace",
            "a training save may take longer (status shows it); ask the site for more",
        )
    return ok(subject, f"requeued after {grace} s of grace")


def check_charge(site: Site, asked: Resources, stages: str) -> Iterator[Check]:
    """Account and QOS, where accounting tells what this user may use."""
    if not site.associations:
        return
    accounts = sorted({a.account for a in site.associations})
    if asked.account is not None and asked.account not in accounts:
        yield problem(
            f"account ({stages})",
            f"{asked.account} is not among yours",
            f"account: one of {', '.join(accounts)}",
        )
        return
    usable = [
        a
        for a in site.associations
        if asked.account in (None, a.account)
        and a.partition in ("", *(asked.partition or site.default_partition or "").split(","))
    ]
    allowed = sorted({q for a in usable for q in a.qos})
    if asked.qos is not None and asked.qos not in allowed:
        yield problem(
            f"QOS ({stages})",
            f"{asked.qos} is not among yours",
            f"qos: one of {', '.join(allowed) or '(none)'}, or leave it out",
        )
    limits = [
        n
        for n in [
            *(a.max_submit for a in usable),
            *(q.max_submit for n, q in (site.qos or {}).items() if n == asked.qos),
        ]
        if n is not None
    ]
    if limits and min(limits) < FEW_JOBS:
        yield warning(
            f"jobs in the queue ({stages})",
            f"at most {min(limits)}",
            "array tasks count one each; what does not fit a relay submits later, which needs two places at least: ask the site for more if that is slow",
        )
