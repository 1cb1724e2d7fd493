"""Signals are held until a safe point: between parts, between optimizer steps."""

import signal
import time
from types import FrameType

MARGIN_S = 10.0  # for processes to end after the last save


class Preempted(Exception):
    """Work stopped at a safe point; what was committed is kept and another attempt goes on from there."""


class Stop:
    """Whether this process was asked to leave, or has to because its time is over: `end` in seconds since the
    epoch, where there is one.
    """

    def __init__(self, end: float | None = None) -> None:
        self.requested = False
        self.end = end

    def listen(self) -> "Stop":
        """Take over SIGTERM and SIGUSR2 (Slurm's early warning), those that came before and were blocked too;
        SIGINT belongs to the launcher.
        """
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self.request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def ignore(self) -> None:
        """Nothing is left to save; python itself would die of a signal while it ends, and look killed."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def due(self, next_s: float = 0.0) -> bool:
        """Whether to leave now, since asked to or since the next `next_s` seconds of work would not be saved
        in time.
        """
        return self.requested or (self.end is not None and time.time() + next_s + MARGIN_S > self.end)

    def safe_point(self, next_s: float = 0.0) -> None:
        """Nothing is in flight: leave here if it is due."""
        if self.due(next_s):
            raise Preempted
