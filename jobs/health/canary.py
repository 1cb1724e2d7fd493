"""What a machine can do for a run, measured on it: `python -m jobs.health.canary DATA FILE [MODULE ...]`
writes its `Facts` to the file.

jobs.doctor runs it on the login node and, in a tiny job, on a compute node, and judges both. Files are
written under the data root only, in a folder of their own that is removed again.
"""

import errno
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
IMPORT_LIMIT_S = 600
ASK_LIMIT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A package: how long its import took, and what was wrong with it, if anything."""

    name: str
    seconds: float
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One machine, at one time. `caches` is where compiled kernels go, empty where nobody said; `fault` is
    what went wrong in `data`; inodes are None where its file system counts none.
    """

    host: str
    time: float
    imports: tuple[Import, ...]
    gpus: tuple[str, ...]
    scontrol: bool
    end_time: float | None
    caches: str
    caches_free_bytes: int
    data: str
    free_bytes: int
    free_inodes: int | None
    fault: str
    publish_ms: float


def measure(data: Path, modules: Sequence[str]) -> Facts:
    """All of it; `modules` are really imported, each in a process of its own."""
    caches = os.environ.get("VLLM_CACHE_ROOT", "")
    cached_on = (
        next(p for p in (Path(caches), *Path(caches).parents) if p.exists()) if caches else Path.home()
    )
    end, space = os.environ.get("SLURM_JOB_END_TIME", ""), os.statvfs(data)
    fault, publish_ms = _publish(data)
    return Facts(
        host=socket.gethostname(),
        time=time.time(),
        imports=tuple(map(_import, modules)),
        gpus=_gpus(),
        scontrol=shutil.which("scontrol") is not None,
        end_time=float(end) if end.isdigit() else None,
        caches=caches,
        caches_free_bytes=shutil.disk_usage(cached_on).free,
        data=str(data),
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=space.f_favail if space.f_files else None,
        fault=fault,
        publish_ms=publish_ms,
    )


def _publish(data: Path) -> tuple[str, float]:
    """What goes wrong in publishing there, and how many milliseconds that takes."""
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix=".canary-", dir=data) as name:
            fault = publication_fault(Path(name))
    except OSError as e:
        fault = f"not writable: {e.strerror}"
    return fault, 1000 * (time.perf_counter() - start)


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


def _gpus() -> tuple[str, ...]:
    """The names of the GPUs that this process may see; none where the tool is missing, or cannot tell."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASK_LIMIT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in said.splitlines() if line.strip())


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


if __name__ == "__main__":
    measured = measure(Path(sys.argv[1]), sys.argv[3:])
    write_atomic(Path(sys.argv[2]), json.dumps(asdict(measured)).encode())
