"""Whether a machine, as jobs.health.canary measured it, can do its part of a run.

Pure but for `check_data`, which reads the data root.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evaluation.benchmark import benchmark_names, load_benchmark
from jobs.health.canary import ENGINES, Facts, Files
from jobs.health.checks import Check, judged, problem, warning
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
    checks = [*_files(facts.files, several), _python(facts, node=node, several=several)]
    checks += _imports(facts, node=node)
    if node:
        checks += [*_node(facts, in_job=asked is not None), _gpus(facts, asked)]
    return [replace(c, subject=f"{facts.host}: {c.subject}") for c in checks]


def _files(files: Files, several: bool) -> Iterator[Check]:
    subject = f"publication in {files.path}"
    if files.fault:
        remedy = "rename, link and fsync must work there: choose another file system for the data root"
        yield problem(subject, files.fault, remedy)
    else:
        found = f"rename, link, fsync work, in {files.publish_ms:.0f} ms"
        slow = files.publish_ms > SLOW_PUBLISH_MS
        yield judged(subject, found, (slow, "warning", "slow: prefer fewer and longer shards"))
    if several and not is_shared(files.kind):
        remedy = "the data root must be the same on all nodes; --job proves it"
        yield warning("file system", f"{files.kind}, which is not known to be shared", remedy)
    else:
        yield judged("file system", files.kind)
    yield _space(files)
    if files.stripe_count is not None:
        yield _stripes(files, files.stripe_count)
    if abs(files.clock_ahead_s) > MAX_SKEW_S:
        remedy = "ask the site to mend its time service: deadlines and ages are off by as much"
        yield warning("clock", f"{files.clock_ahead_s:+.0f} s against the file server", remedy)


def is_shared(kind: str) -> bool:
    return kind in SHARED or kind.startswith("fuse.")


def _space(files: Files) -> Check:
    inodes = files.free_inodes
    found = f"{files.free_bytes / 1e9:,.0f} GB" + ("" if inodes is None else f", {inodes:,} inodes")
    large = (
        "a 7B run keeps some 100 GB of checkpoints and policies; "
        "`jobs.launch --dry-run` says how much yours writes"
    )
    few = "few inodes: a run has some files for each shard and each job"
    return judged(
        "free space", found,
        (files.free_bytes < MIN_FREE_BYTES, "warning", large),
        (inodes is not None and inodes < MIN_FREE_INODES, "warning", few),
    )  # fmt: skip


def _stripes(files: Files, count: int) -> Check:
    remedy = f"most files are small: lfs setstripe -E 1G -c 1 -E 100G -c 4 -E -1 -c 8 {files.path}/runs"
    found = "all OSTs" if count == -1 else str(count)
    return judged("Lustre stripes", found, (count == -1 or count > MANY_STRIPES, "warning", remedy))


def _python(facts: Facts, *, node: bool, several: bool) -> Check:
    found = f"{facts.python} at {facts.executable}"
    if not facts.python.startswith(PYTHONS):
        remedy = f"make the environment with slurm/build_env.sbatch: it needs {' or '.join(PYTHONS)}"
        return problem("Python", found, remedy)
    if several and not node and not is_shared(facts.executable_kind):
        remedy = "nodes may not see it: put the environment ($SERL_VENV) on a shared file system"
        return warning("Python", f"{facts.executable} on {facts.executable_kind}", remedy)
    return judged("Python", found)


def _imports(facts: Facts, *, node: bool) -> Iterator[Check]:
    for found in facts.imports:
        subject = f"import {found.name}"
        if found.fault and (node or found.name not in ENGINES):
            remedy = (
                "make the environment anew with slurm/build_env.sbatch, and see `python` in the cluster file"
            )
            yield problem(subject, found.fault, remedy)
        elif found.fault:
            yield judged(subject, f"{found.fault}; login nodes do without")
        elif found.seconds is not None:
            slow = "every task pays this: put the environment in a squashfs image or on the node's own disk"
            yield judged(subject, f"{found.seconds:.1f} s", (found.seconds > SLOW_IMPORT_S, "warning", slow))


def _node(facts: Facts, *, in_job: bool) -> Iterator[Check]:
    """`in_job`: what our scripts say before python was said here too."""
    remedy = (
        "jobs requeue themselves with it: add its folder to PATH in `setup`, or ask the site to install it"
    )
    found = "there" if facts.scontrol else "not found on this node"
    yield judged("scontrol", found, (not facts.scontrol, "problem", remedy))
    if facts.end_time is not None:
        yield judged("end of the job's time", f"in {facts.end_time - facts.time:.0f} s")
    elif in_job:
        remedy = (
            "squeue must answer on nodes: add its folder to PATH in `setup`; "
            "without it a job learns of its limit from the signal alone"
        )
        yield warning("end of the job's time", "unknown", remedy)
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
            yield problem(f"model {folder.name}", str(e), stage)
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
