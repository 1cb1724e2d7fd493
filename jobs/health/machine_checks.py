"""Whether a machine, as jobs.health.canary measured it, can do its part of a run; pure."""

from collections.abc import Iterator
from dataclasses import replace

from jobs.health.canary import Facts
from jobs.health.checks import Check, judged
from jobs.plan.cluster import Resources

MIN_FREE_BYTES = 50 * 10**9
MIN_FREE_INODES = 100_000
MIN_CACHE_BYTES = 5 * 10**9
SLOW_PUBLISH_MS = 2000
SLOW_IMPORT_S = 90


def check_machine(facts: Facts, asked: Resources | None = None) -> list[Check]:
    """Findings about one machine; `asked` is what its job asked for, if it is a compute node."""
    checks = [*_files(facts), *_imports(facts)]
    if asked:
        checks += [*_node(facts), _gpus(facts, asked)]
    return [replace(c, subject=f"{facts.host}: {c.subject}") for c in checks]


def _files(facts: Facts) -> Iterator[Check]:
    amiss = "rename, link and fsync must work there: choose another file system for the data root"
    yield judged(
        f"publication in {facts.data}",
        facts.fault or f"rename, link, fsync work, in {facts.publish_ms:.0f} ms",
        (facts.fault, "problem", amiss),
        (facts.publish_ms > SLOW_PUBLISH_MS, "warning", "slow: prefer fewer and longer shards"),
    )
    inodes = facts.free_inodes
    large = (
        "a 7B run keeps some 100 GB of checkpoints and policies; "
        "`jobs.launch --dry-run` says how much yours writes"
    )
    few = "few inodes: a run has some files for each shard and each job"
    yield judged(
        "free space",
        f"{facts.free_bytes / 1e9:,.0f} GB" + ("" if inodes is None else f", {inodes:,} inodes"),
        (facts.free_bytes < MIN_FREE_BYTES, "warning", large),
        (inodes is not None and inodes < MIN_FREE_INODES, "warning", few),
    )


def _imports(facts: Facts) -> Iterator[Check]:
    anew = "make the environment anew with slurm/build_env.sbatch, and see `python` in the cluster file"
    dear = "every task pays this: put the environment in a squashfs image or on the node's own disk"
    for found in facts.imports:
        yield judged(
            f"import {found.name}",
            found.fault or f"{found.seconds:.1f} s",
            (found.fault, "problem", anew),
            (found.seconds > SLOW_IMPORT_S, "warning", dear),
        )


def _node(facts: Facts) -> Iterator[Check]:
    missing = "jobs requeue themselves with it: add its folder to PATH in `setup`, or ask the site for it"
    found = "there" if facts.scontrol else "not found on this node"
    yield judged("scontrol", found, (not facts.scontrol, "problem", missing))
    silent = (
        "squeue must answer on nodes: add its folder to PATH in `setup`; "
        "without it a job learns of its limit from the signal alone"
    )
    found = "unknown" if facts.end_time is None else f"in {facts.end_time - facts.time:.0f} s"
    yield judged("end of the job's time", found, (facts.end_time is None, "warning", silent))
    yield judged(
        "caches of compiled kernels",
        f"{facts.caches or 'in the home folder'}, {facts.caches_free_bytes / 1e9:,.1f} GB free",
        (not facts.caches, "warning", "keep them on the node: `source slurm/env.sh` in `setup`"),
        (facts.caches_free_bytes < MIN_CACHE_BYTES, "warning", "set SERL_LOCAL to a larger disk of the node"),
    )


def _gpus(facts: Facts, asked: Resources) -> Check:
    wanted = asked.gpus_per_node
    seen = ", ".join(f"{facts.gpus.count(name)} x {name}" for name in dict.fromkeys(facts.gpus)) or "none"
    remedy = "gpus_per_node and partition must be of GPU nodes; some sites want extra: {gres: 'gpu:h100:1'}"
    few = len(facts.gpus) < wanted
    return judged("GPUs", f"{seen}; asked for {wanted}" if few else seen, (few, "problem", remedy))
