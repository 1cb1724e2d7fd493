"""A sweep as TensorBoard's hyperparameter table: one session for each trial, with its overrides, its scores by round and how it ended.

Derived, and rewritten whole each time: `tensorboard --logdir <data>/sweeps/<name>/tensorboard`.
"""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from jobs.reporting.sweep_findings import SweepFindings, TrialFindings, value_text
from serl.run.files import write_atomic

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorboard.compat.proto.summary_pb2 import Summary


def write_hparams(folder: Path, found: SweepFindings) -> None:
    """Write the experiment and a run for each trial that has a score; trials that are gone go."""
    keys = _columns(found)
    scored = [t for t in found.trials if t.chosen is not None]
    sessions = {t.trial.run for t in scored}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and old.name not in sessions:
            shutil.rmtree(old, ignore_errors=True)
    _write(folder, [(0, _experiment(found, keys))])
    for t in scored:
        _write(folder / t.trial.run, list(_session(found, t, keys)))


def _columns(found: SweepFindings) -> dict[str, bool]:
    """Every key that some trial overrides, and whether its values are numbers throughout."""
    keys = dict.fromkeys(key for t in found.trials for key in t.trial.overrides)
    return {
        key: all(_is_number(t.trial.overrides[key]) for t in found.trials if key in t.trial.overrides)
        for key in keys
    }


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _experiment(found: SweepFindings, keys: dict[str, bool]) -> "Summary":
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    infos = []
    for key, numeric in keys.items():
        info = api_pb2.HParamInfo(
            name=key, type=api_pb2.DATA_TYPE_FLOAT64 if numeric else api_pb2.DATA_TYPE_STRING
        )
        if not numeric:
            info.domain_discrete.extend(
                sorted({value_text(key, t.trial.overrides.get(key)) for t in found.trials})
            )
        infos.append(info)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"final/{name}"), display_name=name)
        for name in (*found.validation, *found.benchmarks)
    ]
    experiment = api_pb2.Experiment(name=found.sweep.name, hparam_infos=infos, metric_infos=metrics)
    return _summary(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment))


def _session(
    found: SweepFindings, t: TrialFindings, keys: dict[str, bool]
) -> "Iterator[tuple[int, Summary]]":
    """Start, every round's scores, the chosen policy's as `final/`, and the end."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=t.trial.id)
    for key, numeric in keys.items():
        value = t.trial.overrides.get(key)
        if numeric and value is not None:
            start.hparams[key].number_value = float(json.dumps(value))
        elif not numeric:
            start.hparams[key].string_value = value_text(key, value)
    yield (
        0,
        _summary(
            metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)
        ),
    )
    for round, means in sorted(t.means.items()):
        yield (
            round,
            Summary(
                value=[
                    Summary.Value(tag=f"score/{name}", simple_value=value) for name, value in means.items()
                ]
            ),
        )
    assert t.chosen is not None, "only trials with a score have a session"
    yield (
        t.chosen,
        Summary(
            value=[
                Summary.Value(tag=f"final/{name}", simple_value=value)
                for name, value in t.means[t.chosen].items()
            ]
        ),
    )
    status = (
        api_pb2.STATUS_SUCCESS
        if t.over
        else api_pb2.STATUS_FAILURE
        if t.word == "failed"
        else api_pb2.STATUS_RUNNING
    )
    yield (
        0,
        _summary(
            metadata.SESSION_END_INFO_TAG,
            plugin_data_pb2.HParamsPluginData(session_end_info=plugin_data_pb2.SessionEndInfo(status=status)),
        ),
    )


def _summary(tag: str, content: "Message") -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary(
        value=[
            Summary.Value(
                tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR
            )
        ]
    )


def _write(folder: Path, summaries: "list[tuple[int, Summary]]") -> None:
    """One event file, the only one of its folder; a viewer that has the old one open is told to forget its steps."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    sink = io.BytesIO()
    writer = RecordWriter(sink)
    writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    writer.write(
        Event(wall_time=0.0, step=0, session_log=SessionLog(status=SessionLog.START)).SerializeToString()
    )
    for number, (step, summary) in enumerate(summaries):
        writer.write(Event(wall_time=float(number), step=step, summary=summary).SerializeToString())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "events.out.tfevents.0.sweep", sink.getvalue())
