"""Whether a machine, as jobs.health.canary measured it, can do its part of a run.

Pure but for `check_data`, which reads the data root.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evaluation.benchmark import benchmark_names, load_benchmark
from jobs.health.canary import ENGINES, Facts, Files
from jobs.health.checks import Check, judged
from jobs.plan.cluster import Resources
from serl.engines.hf_folder import validate_model_folder
from serl.text.problems import GENERATED_BENCHMARKS

SHARED = "lustre nfs nfs4 gpfs beegfs ceph wekafs panfs glusterfs 9p cifs virtiofs".split()
MIN_FREE_BYTES = 50 * 10**9
MIN_FREE_INODES = 100_000
MIN_CACHE_BYTES = 5 * 10**9
SLOW_PUBLISH_MS = 2000
SLOW_IMPORT_S = 90
MAX_SKEW_S = 5.0
MANY_STRIPES = 8
PYTHONS = ("3.11", "3.12")


def check_machine(facts: Facts, asked: Resources | None, *, node: bool, several: bool) -> list[Check]:
    """Findings about one machine.

    `node`: it is a compute node, of a job that asked for `asked`, where that is known. `several`: its files
    must be seen by other machines.
    """
    checks = [*_files(facts.files, several), _python(facts, abroad=several and not node)]
    checks += _imports(facts, node=node)
    if node:
        checks += [*_node(facts, in_job=asked is not None), _gpus(facts, asked)]
    return [replace(c, subject=f"{facts.host}: {c.subject}") for c in checks]


def is_shared(kind: str) -> bool:
    return kind in SHARED or kind.startswith("fuse.")


def _files(files: Files, several: bool) -> Iterator[Check]:
    amiss = "rename, link and fsync must work there: choose another file system for the data root"
    yield judged(
        f"publication in {files.path}",
        files.fault or f"rename, link, fsync work, in {files.publish_ms:.0f} ms",
        (files.fault, "problem", amiss),
        (files.publish_ms > SLOW_PUBLISH_MS, "warning", "slow: prefer fewer and longer shards"),
    )
    alone = several and not is_shared(files.kind)
    found = f"{files.kind}, which is not known to be shared" if alone else files.kind
    proof = "the data root must be the same on all nodes; --job proves it"
    yield judged("file system", found, (alone, "warning", proof))
    inodes = files.free_inodes
    large = (
        "a 7B run keeps some 100 GB of checkpoints and policies; "
        "`jobs.launch --dry-run` says how much yours writes"
    )
    few = "few inodes: a run has some files for each shard and each job"
    yield judged(
        "free space",
        f"{files.free_bytes / 1e9:,.0f} GB" + ("" if inodes is None else f", {inodes:,} inodes"),
        (files.free_bytes < MIN_FREE_BYTES, "warning", large),
        (inodes is not None and inodes < MIN_FREE_INODES, "warning", few),
    )  # fmt: skip
    if (count := files.stripe_count) is not None:
        small = f"most files are small: lfs setstripe -E 1G -c 1 -E 100G -c 4 -E -1 -c 8 {files.path}/runs"
        found = "all OSTs" if count == -1 else str(count)
        yield judged("Lustre stripes", found, (count == -1 or count > MANY_STRIPES, "warning", small))
    if abs(files.clock_ahead_s) > MAX_SKEW_S:
        remedy = "ask the site to mend its time service: deadlines and ages are off by as much"
        yield Check("warning", "clock", f"{files.clock_ahead_s:+.0f} s against the file server", remedy)


def _python(facts: Facts, *, abroad: bool) -> Check:
    """`abroad`: other machines are to use it, too."""
    old = not facts.python.startswith(PYTHONS)
    make = f"make the environment with slurm/build_env.sbatch: it needs {' or '.join(PYTHONS)}"
    hidden = abroad and not old and not is_shared(facts.executable_kind)
    found = f"{facts.python} at {facts.executable}"
    return judged(
        "Python", f"{facts.executable} on {facts.executable_kind}" if hidden else found,
        (old, "problem", make),
        (hidden, "warning", "nodes may not see it: put the environment ($SERL_VENV) on a shared file system"),
    )  # fmt: skip


def _imports(facts: Facts, *, node: bool) -> Iterator[Check]:
    anew = "make the environment anew with slurm/build_env.sbatch, and see `python` in the cluster file"
    dear = "every task pays this: put the environment in a squashfs image or on the node's own disk"
    for found in facts.imports:
        subject, seconds = f"import {found.name}", found.seconds
        if found.fault:
            does_without = not node and found.name in ENGINES
            said = f"{found.fault}; login nodes do without" if does_without else found.fault
            yield judged(subject, said, (not does_without, "problem", anew))
        elif seconds is not None:
            yield judged(subject, f"{seconds:.1f} s", (seconds > SLOW_IMPORT_S, "warning", dear))


def _node(facts: Facts, *, in_job: bool) -> Iterator[Check]:
    """`in_job`: what our scripts say before python was said here too."""
    missing = "jobs requeue themselves with it: add its folder to PATH in `setup`, or ask the site for it"
    found = "there" if facts.scontrol else "not found on this node"
    yield judged("scontrol", found, (not facts.scontrol, "problem", missing))
    silent = (
        "squeue must answer on nodes: add its folder to PATH in `setup`; "
        "without it a job learns of its limit from the signal alone"
    )
    if in_job or facts.end_time is not None:
        found = "unknown" if facts.end_time is None else f"in {facts.end_time - facts.time:.0f} s"
        yield judged("end of the job's time", found, (facts.end_time is None, "warning", silent))
    found = f"{facts.caches} on {facts.caches_kind}, {facts.caches_free_bytes / 1e9:,.1f} GB free"
    yield judged(
        "caches of compiled kernels", found,
        (is_shared(facts.caches_kind), "warning", "keep them on the node: `source slurm/env.sh` in `setup`"),
        (facts.caches_free_bytes < MIN_CACHE_BYTES, "warning", "set SERL_LOCAL to a larger disk of the node"),
    )  # fmt: skip


def _gpus(facts: Facts, asked: Resources | None) -> Check:
    given = [g for g in (facts.visible_gpus or "").split(",") if g]
    wanted = asked.gpus_per_node if asked else len(given)
    seen = ", ".join(f"{facts.gpus.count(name)} x {name}" for name in dict.fromkeys(facts.gpus)) or "none"
    remedy = "gpus_per_node and partition must be of GPU nodes; some sites want extra: {gres: 'gpu:h100:1'}"
    few = len(facts.gpus) < wanted
    return judged("GPUs", f"{seen}; asked for {wanted}" if few else seen, (few, "problem", remedy))


def check_clocks(node: Facts, submitted: float, seen: float) -> Check:
    """The node's clock must lie between submission and answer, both on the login node's clock."""
    ahead = max(0.0, node.time - seen) - max(0.0, submitted - node.time)
    wrong = abs(ahead) > MAX_SKEW_S
    found = f"at least {ahead:+.0f} s against the login node" if wrong else "agrees with the login node's"
    remedy = "ask the site to mend its time service: deadlines are off by as much"
    return judged(f"{node.host}: clock", found, (wrong, "warning", remedy))


def check_data(data: Path) -> Iterator[Check]:
    """What is staged under the data root: models that would load, seeds, benchmark files."""
    stage = "stage it with slurm/stage_data.sbatch"
    models = _entries(data / "models")
    for folder in models:
        try:
            validate_model_folder(folder)
        except ValueError as e:
            yield Check("problem", f"model {folder.name}", str(e), stage)
    found = ", ".join(p.name for p in models) or f"none in {data / 'models'}"
    own = f"{stage}, unless runs make their own base (`base: {{kind: scratch}}`)"
    yield judged("models", found, (not models, "warning", own))
    seeds = _entries(data / "seeds")
    yield judged("seeds", ", ".join(p.name for p in seeds) or "none; needed where a run file names one")
    wanted = [b for b in map(load_benchmark, benchmark_names()) if b.file not in GENERATED_BENCHMARKS]
    here = [b.name for b in wanted if (data / "benchmarks" / b.file).is_file()]
    listed = f": {', '.join(here)}" if here else ""
    yield judged("benchmarks", f"{len(here)} of {len(wanted)}{listed}")


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
