"""Who launches a run.

Claims are numbered, and the next number is taken by link-if-absent: of two that find the last claim over, one
goes on. There is no lock to be left behind.
"""

import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from serl.run.files import write_if_absent
from serl.run.rundir import RunError


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


def born(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is none, or its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Claims:
    """Numbered claims of processes on one thing; the newest holds it, until it is given up or dead."""

    folder: Path

    def newest(self) -> tuple[int, Process | None]:
        """Its number (0: nobody ever claimed it), and who holds it, unless it was given up."""
        number = max((int(p.stem) for p in self.folder.glob("*.json")), default=0)
        if not number or self.path(number, "released").exists():
            return number, None
        return number, Process(**json.loads(self.path(number).read_bytes()))

    def take(self, number: int) -> bool:
        """Whether the claim of this number is ours now."""
        self.folder.mkdir(exist_ok=True)
        me = json.dumps(asdict(Process.of(os.getpid()))).encode()
        return write_if_absent(self.path(number), me)

    def give_up(self, number: int) -> None:
        """Others elsewhere cannot see that this process is gone."""
        write_if_absent(self.path(number, "released"), b"")

    def path(self, number: int, ending: str = "json") -> Path:
        return self.folder / f"{number:06d}.{ending}"


# ------------------------------------------------------------------------------------------- launchers
def claim(root: Path, watch: str = "status {} --watch", stop: str = "cancel {}") -> None:
    """Become the launcher of a run, or of a sweep, at `root`; refuses while another one lives."""
    claims, me = Claims(root / "launchers"), Process.of(os.getpid())
    while True:
        number, last = claims.newest()
        if last and last != me and last.alive():
            doubt = "" if last.here else f" (if that process is gone, remove {claims.folder})"
            raise RunError(
                f"{root}: process {last.pid} on {last.host} is running it{doubt}; "
                f"watch it with `python -m jobs.{watch.format(root.name)}` "
                f"or end it with `python -m jobs.{stop.format(root.name)}`"
            )
        if claims.take(number + 1):
            return


def release(root: Path) -> None:
    """Nobody launches it any more."""
    claims = Claims(root / "launchers")
    number, last = claims.newest()
    if last == Process.of(os.getpid()):
        claims.give_up(number)


def launcher_of(root: Path) -> Process | None:
    """The live launcher of a run, if any."""
    _, last = Claims(root / "launchers").newest()
    return last if last and last.alive() else None


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
    did = ["stopped here"] if here else []
    did += [f"cancelled {queued} jobs in the queue"] if queued else []
    return " and ".join(did) or "nothing of it is running"
