"""Signals are held until a safe point: between parts, between optimizer steps."""

import signal
from types import FrameType


class Preempted(Exception):
    """Work stopped at a safe point; what was committed is kept and another attempt goes on from there."""


class Stop:
    """Whether this process was asked to leave."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> "Stop":
        """Take over SIGTERM and SIGUSR2 (Slurm's early warning); SIGINT belongs to the launcher."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self.request)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def safe_point(self) -> None:
        """Nothing is in flight: leave here if asked to."""
        if self.requested:
            raise Preempted
