"""What a machine can do for a run, measured on it: `python -m jobs.health.canary DATA [MODULE ...]` prints its `Facts` as JSON.

jobs.doctor runs it on the login node and, in a tiny job, on a compute node, and judges both. Files are written under the data root only,
in a folder of their own that is removed again.
"""

import argparse
import errno
import fcntl
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
from typing import Literal

from serl.run.files import fsync_dir, write_atomic, write_if_absent

ENGINES = ("torch", "transformers", "deepspeed", "vllm")
LIGHT = ("submitit", "pydantic", "yaml", "pyarrow", "math_verify")
IMPORT_LIMIT_S = 600
ASK_LIMIT_S = 30

Lock = Literal["works", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The file system of a folder; inodes are None where it does not count them, stripes where it is not Lustre."""

    path: str
    kind: str
    options: str
    free_bytes: int
    free_inodes: int | None
    stripe_count: int | None
    fault: str
    publish_ms: float
    lock: Lock
    clock_ahead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A package: how long its import took, None where it was only looked for; `fault` is empty where all is well."""

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
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return Facts(
        host=socket.gethostname(),
        time=time.time(),
        python=".".join(map(str, sys.version_info[:3])),
        executable=sys.executable,
        executable_kind=mount_of(Path(sys.prefix))[0],
        imports=tuple(_look(m) for m in (*LIGHT, *ENGINES) if m not in modules)
        + tuple(map(_import, modules)),
        gpus=_gpus(),
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        scontrol=shutil.which("scontrol") is not None,
        end_time=float(end) if end.isdigit() else None,
        caches=str(caches),
        caches_kind=mount_of(_nearest(caches))[0],
        caches_free_bytes=shutil.disk_usage(_nearest(caches)).free,
        files=measure_files(data),
    )


def measure_files(data: Path) -> Files:
    kind, options = mount_of(data)
    space = os.statvfs(data)
    fault, seconds, lock, ahead = "", 0.0, "refused", 0.0
    try:
        folder = Path(tempfile.mkdtemp(prefix=".canary-", dir=data))
    except OSError as e:
        fault = f"not writable: {e.strerror}"
    else:
        try:
            before = time.perf_counter()
            fault = publication_fault(folder)
            seconds = time.perf_counter() - before
            lock, ahead = _try_lock(folder), _clock_ahead(folder)
        finally:
            shutil.rmtree(folder)
    return Files(
        path=str(data),
        kind=kind,
        options=options,
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=space.f_favail if space.f_files else None,
        stripe_count=_stripes(data) if kind == "lustre" else None,
        fault=fault,
        publish_ms=1000 * seconds,
        lock=lock,
        clock_ahead_s=ahead,
    )


def publication_fault(folder: Path) -> str:
    """What of rename, link-if-absent and fsync does not work as publication needs it; empty where all does."""
    try:
        write_atomic(folder / "renamed", b"old")
        write_atomic(folder / "renamed", b"new")
        first, second = (
            write_if_absent(folder / "linked", b"first"),
            write_if_absent(folder / "linked", b"second"),
        )
        (folder / "folder").mkdir()
        os.rename(folder / "folder", folder / "moved")
        fsync_dir(folder)
    except OSError as e:
        return f"{e.strerror} ({errno.errorcode.get(e.errno or 0, e.errno)})"
    if (folder / "renamed").read_bytes() != b"new":
        return "a rename does not replace"
    if not first or second or (folder / "linked").read_bytes() != b"first":
        return "a link does not refuse a name that is taken"
    left = sorted(p.name for p in folder.iterdir())
    return "" if left == ["linked", "moved", "renamed"] else f"names left behind: {left}"


def mount_of(path: Path) -> tuple[str, str]:
    """Kind and options of the file system that holds `path`, from /proc/self/mountinfo."""
    found = ("unknown", "")
    longest = -1
    target = str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            kind, _, options = after.split(" ", 2)
            longest, found = len(point), (kind, options)
    return found


def _try_lock(folder: Path) -> Lock:
    with open(folder / "renamed") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "refused"
    return "works"


def _clock_ahead(folder: Path) -> float:
    """This machine's clock minus the one that stamps files, which on NFS is the server's."""
    path = folder / "stamped"
    before = time.time()
    path.write_bytes(b"x")
    stamp = path.stat().st_mtime
    return min(0.0, time.time() - stamp) + max(0.0, before - stamp)


def _stripes(data: Path) -> int | None:
    """The stripe count that new files under `data` get; None where lfs does not say."""
    found = _ask(["lfs", "getstripe", "--directory", "--stripe-count", str(data)])
    return int(found) if found and found.strip().lstrip("-").isdigit() else None


def _gpus() -> tuple[str, ...]:
    """The names of the GPUs that this process may see."""
    names = _ask(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return tuple(line.strip() for line in (names or "").splitlines() if line.strip())


def _ask(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASK_LIMIT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # the tool is not there, or cannot tell: so is the answer


def _look(module: str) -> Import:
    return Import(
        name=module, seconds=None, fault="" if importlib.util.find_spec(module) else "not installed"
    )


def _import(module: str) -> Import:
    """torch also says whether its CUDA works, where this process was given GPUs."""
    code = f"import {module}"
    if module == "torch" and os.environ.get("CUDA_VISIBLE_DEVICES"):
        code += "; assert torch.version.cuda is None or torch.cuda.is_available()"
        code += ", 'torch sees no GPU: the driver is too old for CUDA ' + torch.version.cuda"
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=IMPORT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Import(name=module, seconds=IMPORT_LIMIT_S, fault=f"not imported within {IMPORT_LIMIT_S} s")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Import(
        name=module, seconds=time.perf_counter() - start, fault="" if done.returncode == 0 else last
    )


def _nearest(path: Path) -> Path:
    """The first of `path` and its parents that is there."""
    return next(p for p in (path, *path.parents) if p.exists())


def from_json(text: str) -> Facts:
    row = json.loads(text)
    return Facts(
        **row
        | {
            "imports": tuple(Import(**i) for i in row["imports"]),
            "gpus": tuple(row["gpus"]),
            "files": Files(**row["files"]),
        }
    )


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
