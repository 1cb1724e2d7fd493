"""A process that stands still is ended, its stacks in its log, so that its job can be tried again, on other
nodes if one is to blame.

Work names the phase it is in, which costs a clock reading. A thread writes that down now and then (one small
file per rank, rewritten in place) and ends the process when a phase outlasts its limit. Peers that fell
silent, say because the kernel stopped them, cannot end themselves: the others name them and, on the same
machine, kill them. Heartbeats decide nothing else; no stage reads one.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from serl.run.events import Events
from serl.run.files import write_atomic, write_if_absent

EXIT_HUNG = os.EX_TEMPFAIL  # asks for another attempt
SLOWER = 10  # times its longest predecessor of the same kind, a phase may take
STRIKES = 2
MAX_EXCLUDED = 8
LAST_WORDS_S = 60.0
RECORD_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A rank's last sign of life. `number` counts up while its watchdog lives; `born` tells its process from
    a later one of the same pid.
    """

    attempt: str
    rank: int
    host: str
    pid: int
    born: float
    number: int
    phase: str
    phase_s: float
    hung: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Where a rank is watched: `folder` takes the heartbeats of its job, `suspects` the hangs of the run.

    `host` is what the scheduler calls this machine, which may be less than it calls itself: no other name can
    be excluded.
    """

    folder: Path
    suspects: Path
    events: Events
    job: str
    attempt: str
    rank: int
    size: int
    hang_s: float
    host: str
    beat_s: float = 10.0

    def heartbeat(self, rank: int) -> Path:
        return self.folder / f"heartbeat-{self.job}-{rank:05d}.json"

    @property
    def exclusion(self) -> Path:
        """Where a job's batch script finds the nodes that its next attempt should do without."""
        return self.folder / f"exclude-{self.job}"


class Watchdog:
    """The phase of this process, and since when."""

    def __init__(self) -> None:
        self._phase, self._since = "start", time.monotonic()
        self._longest_s: Counter[str] = Counter()

    def phase(self, name: str) -> None:
        """Say what comes now. Phases are of one kind if their names share the first word, as "step 3" and
        "step 4" do.
        """
        now = time.monotonic()
        self._longest_s[_kind(self._phase)] = max(self._longest_s[_kind(self._phase)], now - self._since)
        self._phase, self._since = name, now

    def limit_s(self, hang_s: float) -> float:
        """How long the present phase may last."""
        return max(hang_s, SLOWER * self._longest_s[_kind(self._phase)])

    def guard(self, post: Post) -> None:
        """From now on, end this process when a phase outlasts its limit."""
        threading.Thread(target=self._watch, args=(post,), name="watchdog", daemon=True).start()

    def _watch(self, post: Post) -> None:
        me = psutil.Process()
        beat = Beat(
            attempt=post.attempt, rank=post.rank, host=post.host, pid=me.pid, born=me.create_time(),
            number=0, phase="", phase_s=0.0, hung=False,
        )  # fmt: skip
        seen, lasted_s = self._since, 0.0
        file = os.open(post.heartbeat(post.rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        while True:
            # Time is counted by beats: a job that its cluster suspends for an hour has not stood still for
            # one.
            seen, lasted_s = self._since, lasted_s + post.beat_s if seen == self._since else 0.0
            beat = _write(file, replace(beat, phase=self._phase, phase_s=round(lasted_s, 1)))
            limit_s = self.limit_s(post.hang_s)
            if lasted_s > limit_s:
                _end(post, file, replace(beat, hung=True), limit_s)
            # From C, for a thread that holds the interpreter's lock and so stops this one too: its stacks at
            # least get into the log.
            faulthandler.dump_traceback_later(limit_s + LAST_WORDS_S)
            time.sleep(post.beat_s)


def _kind(phase: str) -> str:
    return phase.partition(" ")[0]


def _write(file: int, beat: Beat) -> Beat:
    """The next beat, in place of the last one."""
    beat = replace(beat, number=beat.number + 1)
    try:
        os.pwrite(file, json.dumps(asdict(beat)).encode().ljust(RECORD_BYTES), 0)
    except OSError:  # a full disk must not end the watch; the number counts on
        pass
    return beat


def read_beats(post: Post) -> dict[int, Beat]:
    """The last signs of life of all ranks of this attempt; a rank that never gave one is left out."""
    beats = {}
    for rank in range(post.size):
        try:
            beat = Beat(**json.loads(post.heartbeat(rank).read_bytes()))
        except (
            FileNotFoundError,
            json.JSONDecodeError,
            TypeError,
        ):  # not there yet, or caught in the middle of being written
            continue
        if beat.attempt == post.attempt:
            beats[rank] = beat
    return beats


def silent(before: Mapping[int, Beat], after: Mapping[int, Beat]) -> list[Beat]:
    """Ranks that gave no sign of life in between, and did not say that they are leaving."""
    return [
        b for rank, b in after.items() if rank in before and before[rank].number == b.number and not b.hung
    ]


def _end(post: Post, file: int, beat: Beat, limit_s: float) -> None:
    """Say what is known, wait for what the peers have to say, and leave. A file system that hangs, too, must
    not keep us.
    """
    last = threading.Timer(LAST_WORDS_S + 4 * post.beat_s, os._exit, (EXIT_HUNG,))
    last.daemon = True
    last.start()
    remedy = "if this was work and no hang, raise hang_s in the cluster file"
    print(
        f"\n{beat.host}: {beat.phase!r} has lasted {beat.phase_s:.0f} s, its limit is {limit_s:.0f} s; "
        f"{remedy}. All stacks:",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(all_threads=True)
    before = read_beats(post)
    for _ in range(3):
        beat = _write(file, beat)
        time.sleep(post.beat_s)
    after = read_beats(post)
    missing = silent(before, after)
    hosts = sorted({b.host for b in missing or after.values()} or {beat.host})
    post.events.add(
        "hung",
        phase=beat.phase,
        seconds=beat.phase_s,
        host=beat.host,
        silent=", ".join(f"rank {b.rank} on {b.host}" for b in missing),
    )
    record_hang(post, hosts, beat)
    _kill([b for b in missing if b.host == beat.host])
    os._exit(EXIT_HUNG)


def _kill(peers: Sequence[Beat]) -> None:
    """End silent peers on this machine, and our own children, which would outlive us."""
    victims = psutil.Process().children(recursive=True)
    for beat in peers:
        if psutil.pid_exists(beat.pid):
            victims.append(psutil.Process(beat.pid))
    born = {b.pid: b.born for b in peers}
    for process in victims:
        try:
            if born.get(process.pid, process.create_time()) == process.create_time():
                process.kill()
        except psutil.NoSuchProcess:
            continue


def record_hang(post: Post, hosts: Sequence[str], beat: Beat) -> None:
    """One record for each attempt that hung, by whichever rank is first: it names the hosts that may be to
    blame.
    """
    strike(post, hosts, beat.phase, beat.phase_s)


def strike(post: Post, hosts: Sequence[str], phase: str, seconds: float = 0.0) -> None:
    """Note against hosts that an attempt came to grief there; the next attempt does without those that have
    enough.
    """
    post.suspects.mkdir(exist_ok=True)
    note = {"hosts": list(hosts), "attempt": post.attempt, "phase": phase, "seconds": seconds}
    note |= {"time": round(time.time(), 3)}
    write_if_absent(post.suspects / f"{post.attempt}.json", json.dumps(note).encode())
    if names := excluded(post.suspects):
        write_atomic(post.exclusion, ",".join(names).encode())


def excluded(suspects: Path) -> list[str]:
    """The hosts that further attempts should do without. Each hang is one strike, shared by all hosts that
    may be to blame.
    """
    strikes: Counter[str] = Counter()
    for path in sorted(suspects.glob("*.json")):
        hosts = json.loads(path.read_bytes())["hosts"]
        strikes.update({host: 1 / len(hosts) for host in hosts})
    return [host for host, n in strikes.most_common(MAX_EXCLUDED) if n > STRIKES - 1e-9]
