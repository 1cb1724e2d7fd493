"""What happened, as append-only JSON lines with one writer per file.

Events are for people and plots: no stage ever reads one to decide what to do.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path


class Events:
    """The event file of one attempt of one shard."""

    def __init__(self, folder: Path, writer: str, **always: str | int):
        self._always = always
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{writer}.jsonl"
        self._file = open(file, "a", buffering=1, encoding="ascii")  # noqa: SIM115 (as long as the attempt)

    def add(self, kind: str, **fields: str | float | bool | None) -> None:
        self._file.write(
            json.dumps({"time": round(time.time(), 3), "kind": kind} | self._always | fields) + "\n"
        )


def read_events(folder: Path) -> Iterator[dict]:
    """Every event of a run, file by file."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from read_file(path)


def read_file(path: Path) -> list[dict]:
    """The events of one writer; a last line torn by a crash is left out."""
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    return [event for line in lines if line.endswith("\n") and (event := parsed(line))]


def parsed(line: str | bytes) -> dict | None:
    """The event on a line; None where it is torn, or an append after a torn one: neither is load-bearing."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
