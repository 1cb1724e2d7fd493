"""Weights & Biases and MLflow, where somebody wants them beside TensorBoard: the figures of every finished
round, with the round as step.

Named in the cluster file (`trackers: [wandb, mlflow]`) or for once (`jobs.report RUN --tracker wandb`),
outside the run's digest. They are fed where a report is written: at the end of a chain on one machine, and by
`jobs.report` of a run on Slurm, whose jobs hold GPUs and seldom reach a service. Both packages are optional
and imported here only. A run is one run there, found again by its digest and code; a round is sent once, when
all its stages are done, so a resume or a second report doubles nothing. Where they send to is their own
environment variables' business; without any, W&B writes offline into the run's folder and MLflow into
`mlruns` in the data root.
"""

import contextlib
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.plan.cluster import Tracker
from jobs.runs.differ import leaves
from serl.run.files import write_atomic
from serl.run.rundir import Run

if TYPE_CHECKING:
    import mlflow

    from jobs.reporting.found import Findings

PROJECT = "serl"
MARK = "rounds_done"  # what is sent last of a round
PACKAGES: Mapping[Tracker, str] = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
MAX_PARAMETER = 500


class Round(NamedTuple):
    """The figures of a round that is done, by tag, and when it ended."""

    round: int
    ended: float
    figures: Mapping[str, float]


def check(names: Sequence[Tracker]) -> None:
    """Refuses a tracker whose package is not there, before anything runs."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"trackers: {name} is not installed here; `slurm/python -m pip install {PACKAGES[name]}`, or "
                "take it out of trackers"
            )


def mirror(run: Run, names: Sequence[Tracker]) -> list[str]:
    """Send what is finished and was not sent yet; a sentence for each tracker. A service that fails fails
    nothing here.
    """
    from jobs.reporting.findings import gather

    check(names)
    if not names:
        return []
    findings = gather(run)
    done, over = _finished(findings), all(s.done for r in findings.rounds for s in r.stages)
    return [_TRACKERS[name](run, done, over) for name in dict.fromkeys(names)]


def identity(run: Run) -> str:
    """Of a run among all that a service has: the same configuration with other code is another run, and its
    figures are its own.
    """
    return hashlib.sha256(f"{run.digest} {run.code}".encode()).hexdigest()[:16]


def _finished(findings: "Findings") -> list[Round]:
    """Without which round is the best, which may change after it was sent."""
    from jobs.reporting.scalars import BEST, rows

    figures: dict[int, dict[str, float]] = {}
    for row in rows(findings):
        if math.isfinite(row.value) and row.metric != BEST:
            figures.setdefault(row.round, {})[row.tag] = row.value
    done = [r for r in findings.rounds if all(s.done for s in r.stages)]
    return [Round(r.round, max(s.ended for s in r.stages), figures.get(r.round, {})) for r in done]


def _wandb(run: Run, done: Sequence[Round], over: bool) -> str:
    """Offline where no key is known. What was sent is noted beside it, since nobody can be asked offline."""
    import wandb

    folder = run.root / "trackers"
    folder.mkdir(exist_ok=True)
    note = folder / "wandb.json"
    sent = set(json.loads(note.read_bytes())["rounds"]) if note.exists() else set()
    fresh = [r for r in done if r.round not in sent]
    if not fresh:
        return "wandb: nothing new"
    mode = None if wandb.api.api_key else "offline"
    quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    own = {"project": PROJECT, "id": identity(run), "name": run.root.name, "dir": str(folder)}
    try:
        with contextlib.ExitStack() as ending:
            config = run.config.model_dump(mode="json")
            there = wandb.init(**own, config=config, resume="allow", mode=mode, settings=quiet)
            ending.callback(there.finish)
            for r in fresh:
                there.log(dict(r.figures), step=r.round)
    except (wandb.Error, OSError) as e:
        return _failed("wandb", run, e)
    write_atomic(note, json.dumps({"rounds": sorted(sent | {r.round for r in fresh})}).encode())
    where = f"written to {folder}; `wandb sync {folder}/wandb/offline-*` sends them" if mode else "sent"
    return f"wandb: {len(fresh)} rounds {where}"


def _failed(name: Tracker, run: Run, why: Exception) -> str:
    again = f"python -m jobs.report {run.root.name} --tracker {name}"
    return f"{name}: {why}; the report is complete, `{again}` tries again"


def _mlflow(run: Run, done: Sequence[Round], over: bool) -> str:
    """A metric's time is its round's end, so that a store that knows (key, step, time) keeps one of it even
    if a sender died midway.
    """
    import mlflow
    from mlflow.entities import Metric

    # its own 7 keep a verb waiting for minutes where a server is away
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    uri = None if mlflow.tracking.is_tracking_uri_set() else _own_store(run.data_root)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        id = _mlflow_run(client, run)
        sent = {m.step for m in client.get_metric_history(id, MARK)}
        fresh = [r for r in done if r.round not in sent]
        for r in fresh:
            at = int(r.ended * 1000)
            client.log_batch(id, metrics=[Metric(_key(tag), x, at, r.round) for tag, x in r.figures.items()])
            client.log_metric(id, MARK, r.round, timestamp=at, step=r.round)
        if over:
            client.set_terminated(id, "FINISHED", int(done[-1].ended * 1000))
    except (mlflow.MlflowException, OSError) as e:
        return _failed("mlflow", run, e)
    sent_to = f"{len(fresh)} rounds sent to {uri or mlflow.get_tracking_uri()}"
    return f"mlflow: {sent_to if fresh else 'nothing new'}"


def _mlflow_run(client: "mlflow.MlflowClient", run: Run) -> str:
    """The id of the run there, which is made with its parameters if there is none."""
    from mlflow.entities import Param

    found = client.get_experiment_by_name(PROJECT)
    experiment = found.experiment_id if found else client.create_experiment(PROJECT)
    tags = {"serl_identity": identity(run), "serl_digest": run.digest, "serl_code": run.code}
    own = f"tags.serl_identity = '{tags['serl_identity']}'"
    known = client.search_runs([experiment], filter_string=own, max_results=1)
    if known:
        return known[0].info.run_id
    made = client.create_run(experiment, run_name=run.root.name, tags=tags)
    client.log_batch(made.info.run_id, params=[Param(k, v[:MAX_PARAMETER]) for k, v in parameters(run)])
    return made.info.run_id


def _own_store(data: Path) -> str:
    """A folder, though MLflow advises a database: on a shared file system many may write to folders, and to
    no SQLite file.
    """
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (data / "mlruns").as_uri()


def _key(tag: str) -> str:
    """In characters that MLflow allows; one slash only, since its folders would take a/b for the folder of
    a/b/c.
    """
    group, slash, rest = tag.partition("/")
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in group + slash + rest.replace("/", "."))


def parameters(run: Run) -> Iterator[tuple[str, str]]:
    """The configuration as dotted keys; no text of it that is empty."""
    told = leaves(run.config.model_dump(mode="json"))
    return ((key, str(value)) for key, value in told if value not in (None, "", {}))


_TRACKERS = {"wandb": _wandb, "mlflow": _mlflow}
