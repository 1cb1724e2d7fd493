"""What a machine can do for a run, measured on it: `python -m jobs.health.canary DATA [MODULE ...]` prints
its `Facts`.

jobs.doctor runs it on the login node and, in a tiny job, on a compute node, and judges both. Files are
written under the data root only, in a folder of their own that is removed again.
"""

import argparse
import errno
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serl.run.files import CLAIM, fsync_dir, write_atomic, write_if_absent

ENGINES = ("torch", "transformers", "deepspeed", "vllm")
LIGHT = ("submitit", "pydantic", "yaml", "pyarrow", "math_verify")
IMPORT_LIMIT_S = 600
ASK_LIMIT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A folder's file system; inodes are None where it counts none, stripes where it is not Lustre."""

    path: str
    kind: str
    free_bytes: int
    free_inodes: int | None
    stripe_count: int | None
    fault: str
    publish_ms: float
    clock_ahead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A package: how long its import took, None where it was only looked for; a fault, or empty."""

    name: str
    seconds: float | None
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One machine, at one time."""

    host: str
    time: float
    python: str
    executable: str
    executable_kind: str
    imports: tuple[Import, ...]
    gpus: tuple[str, ...]
    visible_gpus: str | None
    scontrol: bool
    end_time: float | None
    caches: str
    caches_kind: str
    caches_free_bytes: int
    files: Files


def measure(data: Path, modules: Sequence[str]) -> Facts:
    """All of it; `modules` are really imported, each in a process of its own, the others only looked for."""
    caches = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm")
    cached_on = next(p for p in (caches, *caches.parents) if p.exists())
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    looked = (_look(m) for m in (*LIGHT, *ENGINES) if m not in modules)
    return Facts(
        host=socket.gethostname(),
        time=time.time(),
        python=".".join(map(str, sys.version_info[:3])),
        executable=sys.executable,
        executable_kind=file_system(Path(sys.prefix)),
        imports=(*looked, *map(_import, modules)),
        gpus=_gpus(),
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        scontrol=shutil.which("scontrol") is not None,
        end_time=float(end) if end.isdigit() else None,
        caches=str(caches),
        caches_kind=file_system(cached_on),
        caches_free_bytes=shutil.disk_usage(cached_on).free,
        files=measure_files(data),
    )


def measure_files(data: Path) -> Files:
    kind, space = file_system(data), os.statvfs(data)
    fault, seconds, ahead = "", 0.0, 0.0
    try:
        with tempfile.TemporaryDirectory(prefix=".canary-", dir=data) as name:
            before = time.perf_counter()
            fault = publication_fault(Path(name))
            seconds, ahead = time.perf_counter() - before, _clock_ahead(Path(name))
    except OSError as e:
        fault = f"not writable: {e.strerror}"
    return Files(
        path=str(data),
        kind=kind,
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=space.f_favail if space.f_files else None,
        stripe_count=_stripes(data) if kind == "lustre" else None,
        fault=fault,
        publish_ms=1000 * seconds,
        clock_ahead_s=ahead,
    )


def publication_fault(folder: Path) -> str:
    """What of rename, link-if-absent and fsync is not as publication needs it; empty where all is."""
    try:
        write_atomic(folder / "renamed", b"old")
        write_atomic(folder / "renamed", b"new")
        first = write_if_absent(folder / "linked", b"first")
        second = write_if_absent(folder / "linked", b"second")
        (folder / "folder").mkdir()
        os.rename(folder / "folder", folder / "moved")
        fsync_dir(folder)
    except OSError as e:
        return f"{e.strerror} ({errno.errorcode.get(e.errno or 0, e.errno)})"
    if (folder / "renamed").read_bytes() != b"new":
        return "a rename does not replace"
    if not first or second or (folder / "linked").read_bytes() != b"first":
        return "a link does not refuse a name that is taken"
    left = sorted(p.name for p in folder.iterdir() if not p.name.endswith(CLAIM))
    return "" if left == ["linked", "moved", "renamed"] else f"names left behind: {left}"


def file_system(path: Path) -> str:
    """The kind of the file system that holds `path`, from /proc/self/mountinfo."""
    found, longest, target = "unknown", -1, str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            longest, found = len(point), after.split(" ", 1)[0]
    return found


def _clock_ahead(folder: Path) -> float:
    """This machine's clock minus the one that stamps files, which on NFS is the server's."""
    path = folder / "stamped"
    before = time.time()
    path.write_bytes(b"x")
    stamp = path.stat().st_mtime
    return min(0.0, time.time() - stamp) + max(0.0, before - stamp)


def _stripes(data: Path) -> int | None:
    """The stripe count that new files under `data` get; None where lfs does not say."""
    found = _ask(["lfs", "getstripe", "--directory", "--stripe-count", str(data)]).strip()
    return int(found) if found.lstrip("-").isdigit() else None


def _gpus() -> tuple[str, ...]:
    """The names of the GPUs that this process may see."""
    names = _ask(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return tuple(line.strip() for line in names.splitlines() if line.strip())


def _ask(command: list[str]) -> str:
    """Nothing where the tool is not there, or cannot tell: so is the answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASK_LIMIT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _look(module: str) -> Import:
    fault = "" if importlib.util.find_spec(module) else "not installed"
    return Import(name=module, seconds=None, fault=fault)


def _import(module: str) -> Import:
    """torch also says whether its CUDA works, where this process was given GPUs."""
    code = f"import {module}"
    if module == "torch" and os.environ.get("CUDA_VISIBLE_DEVICES"):
        code += "; assert torch.version.cuda is None or torch.cuda.is_available()"
        code += ", 'torch sees no GPU: the driver is too old for CUDA ' + torch.version.cuda"
    command, start = [sys.executable, "-c", code], time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_LIMIT_S)
    except subprocess.TimeoutExpired:
        return Import(name=module, seconds=IMPORT_LIMIT_S, fault=f"not imported within {IMPORT_LIMIT_S} s")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    fault = "" if done.returncode == 0 else last
    return Import(name=module, seconds=time.perf_counter() - start, fault=fault)


def from_json(text: str) -> Facts:
    from pydantic import TypeAdapter  # the canary itself must run where nothing is installed

    return TypeAdapter(Facts).validate_json(text)


def body(argv: Sequence[str]) -> int:
    p = argparse.ArgumentParser(
        prog="python -m jobs.health.canary", description="Measure what this machine can do for a run."
    )
    p.add_argument("data", type=Path, help="the data root")
    p.add_argument("modules", nargs="*", help="packages to import, like torch vllm")
    p.add_argument("--into", type=Path, help="write there instead of printing")
    args = p.parse_args(argv)
    text = json.dumps(asdict(measure(args.data, args.modules)))
    if args.into:
        write_atomic(args.into, text.encode())
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(body(sys.argv[1:]))
