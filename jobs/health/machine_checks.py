"""Whether a machine, as jobs.health.canary measured it, can do its part of a run; pure but for `check_data`, which reads the data root."""

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmark import benchmark_names, load_benchmark
from jobs.health.canary import ENGINES, Facts, Files
from jobs.health.checks import Check, ok, problem, warning
from jobs.plan.cluster import Resources
from serl.engines.hf_folder import validate_model_folder
from serl.text.problems import GENERATED_BENCHMARKS

SHARED = (
    "lustre",
    "nfs",
    "nfs4",
    "gpfs",
    "beegfs",
    "ceph",
    "wekafs",
    "panfs",
    "glusterfs",
    "9p",
    "cifs",
    "virtiofs",
)
MIN_FREE_BYTES = 50 * 10**9
MIN_FREE_INODES = 100_000
MIN_CACHE_BYTES = 5 * 10**9
SLOW_PUBLISH_MS = 2000
SLOW_IMPORT_S = 90
MAX_SKEW_S = 5.0
MANY_STRIPES = 8
PYTHONS = ("3.11", "3.12")


def check_machine(facts: Facts, asked: Resources | None, *, node: bool, several: bool) -> list[Check]:
    """Findings about one machine. `node`: it is a compute node, of a job that asked for `asked`, where that is known.

    `several`: its files must be seen by other machines.
    """
    checks = [*_files(facts.files, several), *_python(facts, node=node, several=several)]
    if node:
        checks += [*_node(facts, in_job=asked is not None), _gpus(facts, asked)]
    return [
        Check(level=c.level, subject=f"{facts.host}: {c.subject}", found=c.found, remedy=c.remedy)
        for c in checks
    ]


def _files(files: Files, several: bool) -> Iterator[Check]:
    if files.fault:
        yield problem(
            f"publication in {files.path}",
            files.fault,
            "rename, link and fsync must work there: choose another file system for the data root",
        )
    elif files.publish_ms > SLOW_PUBLISH_MS:
        yield warning(
            f"publication in {files.path}",
            f"rename, link, fsync work, in {files.publish_ms:.0f} ms",
            "slow: prefer fewer and longer shards",
        )
    else:
        yield ok(f"publication in {files.path}", f"rename, link, fsync work, in {files.publish_ms:.0f} ms")
    if several and not is_shared(files.kind):
        yield warning(
            "file system",
            f"{files.kind}, which is not known to be shared",
            "the data root must be the same on all nodes; --job proves it",
        )
    else:
        yield ok("file system", f"{files.kind}; flock {_lock(files)}, which runs never use")
    yield _space(files)
    if files.stripe_count is not None:
        yield _stripes(files)
    if abs(files.clock_ahead_s) > MAX_SKEW_S:
        yield warning(
            "clock",
            f"{files.clock_ahead_s:+.0f} s against the file server",
            "ask the site to mend its time service: deadlines and ages are off by as much",
        )


def is_shared(kind: str) -> bool:
    return kind in SHARED or kind.startswith("fuse.")


def _lock(files: Files) -> str:
    return (
        "refused"
        if files.lock == "refused"
        else "of one machine only"
        if "localflock" in files.options
        else "works"
    )


def _space(files: Files) -> Check:
    found = f"{files.free_bytes / 1e9:,.0f} GB" + (
        "" if files.free_inodes is None else f", {files.free_inodes:,} inodes"
    )
    if files.free_bytes < MIN_FREE_BYTES:
        return warning(
            "free space",
            found,
            "a 7B run keeps some 100 GB of checkpoints and policies; `jobs.launch --dry-run` says how much yours writes",
        )
    if files.free_inodes is not None and files.free_inodes < MIN_FREE_INODES:
        return warning("free space", found, "few inodes: a run has some files for each shard and each job")
    return ok("free space", found)


def _stripes(files: Files) -> Check:
    count = files.stripe_count or 0
    if count == -1 or count > MANY_STRIPES:
        return warning(
            "Lustre stripes",
            "all OSTs" if count == -1 else str(count),
            f"most files are small: lfs setstripe -E 1G -c 1 -E 100G -c 4 -E -1 -c 8 {files.path}/runs",
        )
    return ok("Lustre stripes", str(count))


def _python(facts: Facts, *, node: bool, several: bool) -> Iterator[Check]:
    if not facts.python.startswith(PYTHONS):
        yield problem(
            "Python",
            f"{facts.python} at {facts.executable}",
            f"make the environment with slurm/build_env.sbatch: it needs {' or '.join(PYTHONS)}",
        )
    elif several and not node and not is_shared(facts.executable_kind):
        yield warning(
            "Python",
            f"{facts.executable} on {facts.executable_kind}",
            "nodes may not see it: put the environment ($SERL_VENV) on a shared file system",
        )
    else:
        yield ok("Python", f"{facts.python} at {facts.executable}")
    for found in facts.imports:
        needed = node or found.name not in ENGINES
        if found.fault and needed:
            yield problem(
                f"import {found.name}",
                found.fault,
                "make the environment anew with slurm/build_env.sbatch, and see `python` in the cluster file",
            )
        elif found.fault:
            yield ok(f"import {found.name}", f"{found.fault}; login nodes do without")
        elif found.seconds is not None and found.seconds > SLOW_IMPORT_S:
            yield warning(
                f"import {found.name}",
                f"{found.seconds:.0f} s",
                "every task pays this: put the environment in a squashfs image or on the node's own disk",
            )
        elif found.seconds is not None:
            yield ok(f"import {found.name}", f"{found.seconds:.1f} s")


def _node(facts: Facts, *, in_job: bool) -> Iterator[Check]:
    """`in_job`: what our scripts say before python was said here too."""
    if facts.scontrol:
        yield ok("scontrol", "there")
    else:
        yield problem(
            "scontrol",
            "not found on this node",
            "jobs requeue themselves with it: add its folder to PATH in `setup`, or ask the site to install it",
        )
    if in_job and facts.end_time is None:
        yield warning(
            "end of the job's time",
            "unknown",
            "squeue must answer on nodes: add its folder to PATH in `setup`; without it a job learns of its limit from the signal alone",
        )
    elif facts.end_time is not None:
        yield ok("end of the job's time", f"in {facts.end_time - facts.time:.0f} s")
    if is_shared(facts.caches_kind):
        yield warning(
            "caches of compiled kernels",
            f"{facts.caches} is on {facts.caches_kind}",
            "keep them on the node: add `source slurm/env.sh` to `setup`",
        )
    elif facts.caches_free_bytes < MIN_CACHE_BYTES:
        yield warning(
            "caches of compiled kernels",
            f"{facts.caches_free_bytes / 1e9:.1f} GB free at {facts.caches}",
            "set SERL_LOCAL to a larger disk of the node",
        )
    else:
        yield ok(
            "caches of compiled kernels",
            f"{facts.caches} on {facts.caches_kind}, {facts.caches_free_bytes / 1e9:,.0f} GB free",
        )


def _gpus(facts: Facts, asked: Resources | None) -> Check:
    wanted = asked.gpus_per_node if asked else len([g for g in (facts.visible_gpus or "").split(",") if g])
    seen = ", ".join(f"{facts.gpus.count(name)} x {name}" for name in dict.fromkeys(facts.gpus)) or "none"
    if wanted and len(facts.gpus) < wanted:
        return problem(
            "GPUs",
            f"{seen}; asked for {wanted}",
            "gpus_per_node and partition must be of GPU nodes; some sites want extra: {gres: 'gpu:h100:1'}",
        )
    return ok("GPUs", seen)


def check_clocks(node: Facts, submitted: float, seen: float) -> Check:
    """The node's clock must lie between submission and answer, both on the login node's clock."""
    ahead = max(0.0, node.time - seen) - max(0.0, submitted - node.time)
    if abs(ahead) > MAX_SKEW_S:
        return warning(
            f"{node.host}: clock",
            f"at least {ahead:+.0f} s against the login node",
            "ask the site to mend its time service: deadlines are off by as much",
        )
    return ok(f"{node.host}: clock", "agrees with the login node's")


def check_data(data: Path) -> Iterator[Check]:
    """What is staged under the data root: models that would load, seeds, benchmark files."""
    stage = "stage it with slurm/stage_data.sbatch"
    models = _entries(data / "models")
    for folder in models:
        try:
            validate_model_folder(folder)
        except ValueError as e:
            yield problem(f"model {folder.name}", str(e), stage)
    if models:
        yield ok("models", ", ".join(p.name for p in models))
    else:
        yield warning(
            "models",
            f"none in {data / 'models'}",
            f"{stage}, unless runs make their own base (`base: {{kind: scratch}}`)",
        )
    seeds = _entries(data / "seeds")
    yield ok("seeds", ", ".join(p.name for p in seeds) or "none; needed where a run file names one")
    wanted = [b for b in map(load_benchmark, benchmark_names()) if b.file not in GENERATED_BENCHMARKS]
    here = [b.name for b in wanted if (data / "benchmarks" / b.file).is_file()]
    yield ok("benchmarks", f"{len(here)} of {len(wanted)}" + (f": {', '.join(here)}" if here else ""))


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
