"""Finding runs, freezing their code, and the record of what was submitted."""

import difflib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serl.run.files import append_row, fsync_tree, read_rows, rename_if_absent, sha256, write_if_absent
from serl.run.rundir import Run, RunError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "serl", "evaluation", "slurm")  # what a run takes along: jobs start in its copy


def find_run(name: str, data: Path) -> Run:
    """The run of that name under the data root, or at that path."""
    by_path = Path(name)
    root = by_path if (by_path / "run.json").is_file() else data / "runs" / name
    if not (root / "run.json").is_file():
        known = [r.name for r in list_runs(data)]
        near = difflib.get_close_matches(Path(name).name, known, n=3) or known[:5]
        hint = (
            f"runs there: {', '.join(near)}"
            if near
            else "there are no runs there; set --data or $SERL_DATA to the data root you launched with"
        )
        raise RunError(f"{root}: no such run; {hint}")
    return Run.open(root.resolve())


def check_goes_on(run: Run) -> None:
    """Refuses to go on with a run of an earlier version: other code would make later rounds differ."""
    if run.old:
        where = (
            f"cd {run.root / 'code'} && slurm/python -m jobs.resume {run.root.name} --data {run.data_root}"
        )
        here = f" --cluster {ROOT / 'configs' / 'clusters' / 'local.yaml'}"  # its copy of the code has none
        local = not (run.root / "launched.json").exists()
        raise RunError(
            f"{run.root}: launched by an earlier version, so its own copy of the code must finish it: "
            f"`{where}{here if local else ''}`"
        )


def list_runs(data: Path) -> list[Path]:
    return sorted(p.parent for p in data.glob("runs/[!.]*/run.json") if p.is_file())


def code_version() -> str:
    """The commit that is checked out, marked where the working tree differs; "unversioned" outside git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", *PACKAGES) else commit
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def _git(*words: str) -> str:
    return subprocess.run(
        ("git", *words), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def code_files(root: Path) -> list[Path]:
    """What `freeze_code` copies of our own code, or has copied."""
    files = (p for package in PACKAGES for p in (root / package).rglob("*"))
    return sorted(p for p in files if p.is_file() and "__pycache__" not in p.parts)


def frozen_digest() -> str:
    """Of all that `freeze_code` copies: runs of one sweep share one copy of the same code."""
    told = "".join(f"{p.relative_to(ROOT)} {sha256(p)}\n" for p in code_files(ROOT))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def freeze_code(target: Path, users: Sequence[Path] = ()) -> None:
    """Copy the code that jobs import, and packages of the user's own, so that no edit changes a run."""
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, temporary / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in users:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, temporary / path.name)
    fsync_tree(temporary)
    if not rename_if_absent(temporary, target):
        shutil.rmtree(temporary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process for good: `born` (clock ticks since boot) and `host` tell it from others of its number."""

    host: str
    pid: int
    born: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        return cls(host=socket.gethostname(), pid=pid, born=born(pid) or 0)

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    def alive(self) -> bool:
        """Known on its own host only; elsewhere it is taken to be alive."""
        return not self.here or born(self.pid) == self.born


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A process tree that a launcher started for a shard, and the process that leads it."""

    number: int
    job: str
    shard: int
    process: Process


class Journal:
    """`jobs.jsonl`: every submission of a run, in order, one launcher writing at a time."""

    def __init__(self, root: Path):
        self._path = root / "jobs.jsonl"

    def submissions(self) -> list[Submission]:
        """Without a torn line's: the process it spoke of stops by itself, its launcher being gone."""
        return [Submission(**row | {"process": Process(**row["process"])}) for row in read_rows(self._path)]

    def add(self, submission: Submission) -> None:
        append_row(self._path, asdict(submission))


def claim(root: Path, watch: str = "status {} --watch", stop: str = "cancel {}") -> None:
    """Become the launcher of a run, or of a sweep, at `root`; refuses while another one lives.

    Claims are numbered and the next number is taken by link-if-absent, so of two launchers that find the last
    one dead only one goes on.
    """
    folder = root / "launchers"
    folder.mkdir(exist_ok=True)
    me = Process.of(os.getpid())
    while True:
        number, last = _last_claim(folder)
        if last and last != me and last.alive():
            doubt = "" if last.here else f" (if that process is gone, remove {folder})"
            raise RunError(
                f"{root}: process {last.pid} on {last.host} is running it{doubt}; "
                f"watch it with `python -m jobs.{watch.format(root.name)}` "
                f"or end it with `python -m jobs.{stop.format(root.name)}`"
            )
        if write_if_absent(folder / f"{number + 1:06d}.json", json.dumps(asdict(me)).encode()):
            return


def release(root: Path) -> None:
    """Nobody launches it any more: a launcher elsewhere cannot see that this process is gone."""
    number, last = _last_claim(root / "launchers")
    if last == Process.of(os.getpid()):
        write_if_absent(root / "launchers" / f"{number:06d}.released", b"")


def end_launcher(root: Path, grace_s: float) -> bool:
    """Ask the live launcher to stop at safe points, and wait; whether one was here. Not elsewhere."""
    launcher = launcher_of(root)
    if launcher is None:
        return False
    if not launcher.here:
        raise RunError(
            f"{root.name} is being run by process {launcher.pid} on {launcher.host}: cancel it there"
        )
    os.kill(launcher.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while launcher.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    return True


def what_was_cancelled(here: bool, queued: int) -> str:
    """In words."""
    did = [
        *(["stopped here"] if here else []),
        *([f"cancelled {queued} jobs in the queue"] if queued else []),
    ]
    return " and ".join(did) or "nothing of it is running"


def launcher_of(root: Path) -> Process | None:
    """The live launcher of a run, if any."""
    _, last = _last_claim(root / "launchers")
    return last if last and last.alive() else None


def _last_claim(folder: Path) -> tuple[int, Process | None]:
    numbers = [int(p.stem) for p in folder.glob("*.json") if p.stem.isdigit()] if folder.is_dir() else []
    if not numbers:
        return 0, None
    if (folder / f"{max(numbers):06d}.released").exists():
        return max(numbers), None
    return max(numbers), Process(**json.loads((folder / f"{max(numbers):06d}.json").read_bytes()))


def born(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is none, or its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
