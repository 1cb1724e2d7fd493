"""The record of a round's checkup in the run directory: its vitals, the alarms they raised, and whether a
person accepted them.

Beside the policy that the round was to train. It is a function of the data that it names; where it is of
other data it counts for nothing, and is made again. The acceptance is a person's and is never made again.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from serl.config.run import RunConfig
from serl.run.files import write_atomic, write_if_absent
from serl.run.rundir import Run, RunError
from serl.safety.vitals import Alarm, Vitals


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """`inputs` are the digests of the round's groups (and instructions); `verdict` is what the alarms ask for
    before anybody accepts them.
    """

    vitals: Vitals
    alarms: tuple[Alarm, ...]
    inputs: dict[str, str]

    @property
    def verdict(self) -> Literal["go", "hold", "stop"]:
        actions = {a.action for a in self.alarms}
        return "stop" if "stop" in actions else "hold" if "hold" in actions else "go"

    @property
    def reason(self) -> str:
        """The alarms that end or hold the run, in one sentence each."""
        return "; ".join(a.sentence for a in self.alarms if a.action != "warn")


class Unsafe(Exception):
    """Training must not go on; the message says why, and what a person can do."""

    @property
    def verdict(self) -> Literal["hold", "stop"]:
        return self.args[0]

    def __str__(self) -> str:
        return self.args[1]


def checked_rounds(config: RunConfig) -> list[int]:
    """The rounds whose data is looked at."""
    rounds = range(1, config.rounds + 1)
    return [r for r in rounds if (training := config.training(r)) and training.kind.watched(training, config)]


def save_checkup(run: Run, checkup: Checkup) -> None:
    path = _path(run, checkup.vitals.round)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(checkup), indent=1).encode())


def read_checkup(run: Run, round: int) -> Checkup | None:
    """None before the round was looked at, and where the record was written by another version."""
    try:
        saved = json.loads(_path(run, round).read_bytes())
        alarms = tuple(Alarm(**a) for a in saved["alarms"])
        return Checkup(vitals=Vitals(**saved["vitals"]), alarms=alarms, inputs=saved["inputs"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def accepted(run: Run, round: int) -> bool:
    """Whether a person has said that the run goes on in spite of that round's alarms."""
    return _acceptance(run, round).exists()


def accept(run: Run, round: int) -> Checkup:
    """Let the run go on in spite of the round's alarms; later rounds are then measured by this one. Accepting
    twice is accepting once.
    """
    checkup = read_checkup(run, round) if round in checked_rounds(run.config) else None
    if checkup is None or checkup.verdict == "go":
        waiting = [
            str(c.vitals.round)
            for c in checkups(run)
            if c.verdict != "go" and not accepted(run, c.vitals.round)
        ]
        there = (
            f"round {waiting[0]} waits for that"
            if waiting
            else "no round waits for that; resume without --accept"
        )
        raise RunError(f"{run.root}: round {round} raised no alarm that ends or holds the run; {there}")
    note = {"time": int(time.time()), "alarms": [a.sentence for a in checkup.alarms]}
    write_if_absent(_acceptance(run, round), json.dumps(note, indent=1).encode())
    return checkup


def checkups(run: Run) -> list[Checkup]:
    """Of every round that was looked at, in order."""
    return [c for r in checked_rounds(run.config) if (c := read_checkup(run, r))]


def halted(run: Run, found: Sequence[Checkup] | None = None) -> Checkup | None:
    """The checkup that a run waits at: it ends or holds it, and nobody has accepted it."""
    return next(
        (
            c
            for c in (checkups(run) if found is None else found)
            if c.verdict != "go" and not accepted(run, c.vitals.round)
        ),
        None,
    )


def last_good(run: Run, checkup: Checkup) -> str:
    """The policy from before the alarm, in words: a round's checkup is of the policy of the round before, so
    the good one is one further back.
    """
    number = checkup.vitals.round - 2
    return "the base model (round 0)" if number == 0 else f"round {number}'s, {_home(run, number) / 'policy'}"


def refusal(run: Run, checkup: Checkup) -> Unsafe | None:
    """What to raise where a rule says stop or hold and nobody has accepted that."""
    if checkup.verdict == "go" or accepted(run, checkup.vitals.round):
        return None
    return Unsafe(checkup.verdict, message(run, checkup))


def message(run: Run, checkup: Checkup) -> str:
    """Why the run is halted and what can be done."""
    at, how = checkup.vitals.round, "stopped" if checkup.verdict == "stop" else "held"
    return (
        f"{how} by safety before round {at} trains, because of policy {at - 1}: {checkup.reason}. The last "
        f"good policy is {last_good(run, checkup)}; "
        f"to go on all the same: `python -m jobs.resume {run.root.name} --accept {at}`"
    )


def _home(run: Run, round: int) -> Path:
    """The folder of the training that the round's data are for."""
    training = run.config.training(round)
    assert training is not None, f"round {round} trains no policy, so nothing is looked at"
    return run.stage_dir(round, training.name)


def _path(run: Run, round: int) -> Path:
    return _home(run, round) / "checkup.json"


def _acceptance(run: Run, round: int) -> Path:
    return _home(run, round) / "accepted.json"
