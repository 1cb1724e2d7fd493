"""Scalars and hyperparameters for TensorBoard: derived, and rewritten whole each time, so that nothing
appears twice.

A run's rounds and turns lie in `<run>/tensorboard/`, a sweep's table of trials in
`<data>/sweeps/<name>/tensorboard`.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


class Scalar(NamedTuple):
    """A figure at a step, and when that was."""

    tag: str
    step: int
    value: float
    time: float = 0.0


class Session(NamedTuple):
    """A trial: what it overrides, and its scalars."""

    name: str
    group: str
    settings: Mapping[str, float | str]
    scalars: Sequence[Scalar]


def write_scalars(folder: Path, scalars: Sequence[Scalar], about: "Iterable[Summary]" = ()) -> None:
    """Replace the events that the folder holds by these. A viewer that has the old ones open is told to
    forget its steps before it reads the new ones.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    before = list(folder.glob("events.*"))
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)))
    for summary in about:
        writer.add_event(Event(summary=summary))
    for s in scalars:
        summary = Summary(value=[Summary.Value(tag=s.tag, simple_value=s.value)])
        writer.add_event(Event(wall_time=s.time, step=s.step, summary=summary))
    writer.close()
    for old in before:
        old.unlink(missing_ok=True)  # a report written at the same time may have removed it


def write_hparams(folder: Path, sessions: Sequence[Session], metrics: Iterable[str]) -> None:
    """The experiment, and a run for each session; those that are gone go."""
    from tensorboard.plugins.hparams import summary_v2

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and old.name not in {s.name for s in sessions}:
            shutil.rmtree(old, ignore_errors=True)
    keys = dict.fromkeys(key for s in sessions for key in s.settings)
    values = {key: {s.settings[key] for s in sessions if key in s.settings} for key in keys}
    hparams = [summary_v2.HParam(key, summary_v2.Discrete(sorted(found))) for key, found in values.items()]
    shown = [summary_v2.Metric(f"final/{name}", display_name=name) for name in metrics]
    write_scalars(folder, [], [summary_v2.hparams_config_pb(hparams, shown, time_created_secs=0)])
    for s in sessions:
        start = summary_v2.hparams_pb(dict(s.settings), trial_id=s.group, start_time_secs=0)
        write_scalars(folder / s.name, s.scalars, [start])
