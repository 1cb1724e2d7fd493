"""What this process may use of its machine: cores and memory, by its affinity and the limits of its control
group, whichever version of those the kernel has.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # version 1 writes a number that no machine has


def cores(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """Whole cores; at least one."""
    allowed = len(os.sched_getaffinity(0))
    quotas = [share for folder in _folders("cpu", groups, mount) if (share := _quota(folder)) is not None]
    return max(1, int(min([allowed, *quotas])))


def memory_bytes(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """What is free of the machine, or of what the control group leaves of it."""
    free = [psutil.virtual_memory().available]
    for folder in _folders("memory", groups, mount):
        limit = _first(folder, "memory.max", "memory.limit_in_bytes")
        used = _first(folder, "memory.current", "memory.usage_in_bytes") or 0
        if limit is not None and limit < UNLIMITED:
            free.append(max(0, limit - used + _given_back(folder)))
    return min(free)


def _folders(controller: str, groups: Path, mount: Path) -> Iterator[Path]:
    """The group's own folder and all above it, which bind it too. Inside a container the path may be the
    host's: then only the top is there.
    """
    lines = groups.read_text(encoding="ascii", errors="replace").splitlines() if groups.is_file() else []
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            top = mount / "unified" if (mount / "unified").is_dir() else mount
        elif controller in names.split(","):
            top = next((mount / n for n in (names, controller) if (mount / n).is_dir()), mount / names)
        else:
            continue
        inside = top / path.lstrip("/")
        yield from (f for f in (inside, *inside.parents) if f == top or top in f.parents)


def _quota(folder: Path) -> float | None:
    """Cores, as a share of time; None where there is no limit."""
    told = _text(folder / "cpu.max").split()
    if len(told) != 2:
        told = [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if not all(number.isdigit() for number in told) or not int(told[1]):  # "max", or -1
        return None
    return int(told[0]) / int(told[1])


def _given_back(folder: Path) -> int:
    """Pages of files that count as used and go when memory is asked for."""
    rows = (line.split() for line in _text(folder / "memory.stat").splitlines())
    told = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
    return told.get("total_inactive_file", told.get("inactive_file", 0))


def _first(folder: Path, *names: str) -> int | None:
    found = (_text(folder / name) for name in names)
    return next((int(text) for text in found if text.isdigit()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # not there, or not ours to read
        return ""
