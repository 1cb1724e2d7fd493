"""Scalars and hyperparameters for TensorBoard: derived, and rewritten whole each time, so that nothing
appears twice.

A run's rounds and turns lie in `<run>/tensorboard/`, a sweep's table of trials in
`<data>/sweeps/<name>/tensorboard`.
"""

import io
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serl.run.files import write_atomic

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

ENDS = {"running": 1, "success": 2, "failure": 3}  # tensorboard.hparams.Status


class Scalar(NamedTuple):
    """A figure at a step, and when that was."""

    tag: str
    step: int
    value: float
    time: float = 0.0


class Session(NamedTuple):
    """A trial: what it overrides, its scalars, and how it ended (of ENDS)."""

    name: str
    group: str
    settings: Mapping[str, float | str]
    scalars: Sequence[Scalar]
    end: str


def write_scalars(folder: Path, scalars: Sequence[Scalar]) -> None:
    """Replace what the folder holds."""
    current = folder / f"events.out.tfevents.{time.time():.6f}.rounds"
    began = min((s.time for s in scalars if s.time), default=0.0)
    _write(current, [(_scalar(s), s.step, s.time) for s in scalars], began)
    for old in folder.iterdir():
        if old.name.startswith("events.") and old.name < current.name:
            old.unlink(missing_ok=True)  # a report written at the same time may have removed it


def write_hparams(folder: Path, sessions: Sequence[Session], metrics: Iterable[str]) -> None:
    """The experiment, and a run for each session; those that are gone go."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2, summary_v2

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and old.name not in {s.name for s in sessions}:
            shutil.rmtree(old, ignore_errors=True)
    keys = dict.fromkeys(key for s in sessions for key in s.settings)
    values = {key: {s.settings[key] for s in sessions if key in s.settings} for key in keys}
    hparams = [summary_v2.HParam(key, summary_v2.Discrete(sorted(found))) for key, found in values.items()]
    shown = [summary_v2.Metric(f"final/{name}", display_name=name) for name in metrics]
    experiment = summary_v2.hparams_config_pb(hparams, shown, time_created_secs=0)
    file = "events.out.tfevents.0.sweep"
    _write(folder / file, [(experiment, 0, 0.0)])
    for session in sessions:
        start = summary_v2.hparams_pb(dict(session.settings), trial_id=session.group, start_time_secs=0)
        told = plugin_data_pb2.SessionEndInfo(status=ENDS[session.end])
        end = _described(
            metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=told)
        )
        scalars = [(_scalar(s), s.step, s.time) for s in session.scalars]
        _write(folder / session.name / file, [(start, 0, 0.0), *scalars, (end, 0, 0.0)])


def _scalar(s: Scalar) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=s.tag, simple_value=s.value)])


def _described(tag: str, content: object) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    about = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _write(path: Path, events: "Iterable[tuple[Summary, int, float]]", began: float = 0.0) -> None:
    """One event file. A viewer that has an old one open is told to forget its steps before it reads the new
    ones.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    sink = io.BytesIO()
    writer = RecordWriter(sink)
    forget = SessionLog(status=SessionLog.START)
    first = [
        Event(wall_time=began, file_version="brain.Event:2"),
        Event(wall_time=began, step=0, session_log=forget),
    ]
    for event in (*first, *(Event(wall_time=at, step=step, summary=s) for s, step, at in events)):
        writer.write(event.SerializeToString())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, sink.getvalue())
