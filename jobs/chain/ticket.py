"""Whose turn it is to submit: of a launcher, a resume and a relay that come at once, one goes on while the
others wait.

A claim is over when its holder says so, is known to be dead, or, elsewhere, has not renewed it for as long as
we looked. Should a holder only have slept, two submit at once: then some jobs are in the queue twice,
`jobs.runs.queue.at_work` sees one of each, and the first manifest wins.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.runs.processes import Claims

LEASE_S = 60.0
LOOK_S = 0.5


@contextmanager
def turn(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the turn in `folder`; what this gives is to be called between two calls of sbatch."""
    claims = Claims(folder / "turns")
    while not claims.take(mine := _after_the_last(claims) + 1):
        continue
    for old in claims.folder.glob("[0-9]*"):
        if int(old.stem) < mine - 1:
            old.unlink(missing_ok=True)
    try:
        yield lambda: os.utime(claims.path(mine))
    finally:
        claims.give_up(mine)


def _after_the_last(claims: Claims) -> int:
    """The newest claim's number, once that is over."""
    try:
        number, holder = claims.newest()
        since, renewed = time.monotonic(), 0
        while holder and holder.alive() and not claims.path(number, "released").exists():
            if (now := claims.path(number).stat().st_mtime_ns) != renewed:
                since, renewed = time.monotonic(), now
            if not holder.here and time.monotonic() - since > LEASE_S:
                break
            time.sleep(LOOK_S)
        return number
    except FileNotFoundError:  # a later holder swept it away
        return _after_the_last(claims)
