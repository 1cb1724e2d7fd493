"""Figures in W&B and MLflow: nothing twice, nothing unfinished, and one sentence where a package is not there."""

import json
import sys
from types import SimpleNamespace

import pytest
from report_run import do_round, do_score, make_run

from jobs import report
from jobs.chain.launched import freeze_cluster
from jobs.plan.cluster import Slurm
from jobs.reporting import trackers
from jobs.reporting.trackers import check, mirror
from serl.run.rundir import Run


@pytest.fixture
def made(tmp_path, small_tree) -> Run:
    run = make_run(tmp_path, small_tree)
    do_round(run, 0)
    return run


class FakeWandb:
    """As much of wandb as is used, keeping what was logged."""

    Error = RuntimeError

    def __init__(self) -> None:
        self.api, self.inits, self.logged, self.finished = SimpleNamespace(api_key=None), [], [], 0
        self.fails = False

    def Settings(self, **settings):
        return settings

    def init(self, **options):
        self.inits.append(options)
        return self

    def log(self, figures: dict, step: int) -> None:
        if self.fails:
            raise self.Error("the service is away")
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(trackers, "check", lambda names: None)
    return fake


def test_a_package_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match=r"wandb is not installed here; `slurm/python -m pip install wandb`, or take it out of trackers",
    ):
        check(["wandb"])
    check([])


def test_a_round_is_sent_once_and_only_when_it_is_done(made, wandb):
    assert "1 rounds written" in mirror(made, ["wandb"])[0]
    do_score(made, 1)
    assert mirror(made, ["wandb"]) == ["wandb: nothing new"]
    assert [step for step, _ in wandb.logged] == [0] and wandb.logged[0][1]["score/sums/pass_at_1"] > 0
    (options,) = wandb.inits
    assert (options["id"], options["mode"], options["resume"]) == (
        trackers.identity(made),
        "offline",
        "allow",
    ) and wandb.finished == 1


def test_the_same_configuration_with_other_code_is_another_run(made, tmp_path):
    """Else a run that is launched again after a fix would be shown with the figures of the old one."""
    again = Run.create(tmp_path / "again" / "runs" / "made-up", made.config, "another commit")
    assert again.digest == made.digest and trackers.identity(again) != trackers.identity(
        made
    ) == trackers.identity(Run.open(made.root))


def test_a_run_on_slurm_is_mirrored_by_its_report_wherever_its_own_cluster_file_says(made, wandb, capsys):
    """`jobs.report RUN` knows no cluster; the run does."""
    freeze_cluster(made, Slurm(data="data", trackers=("wandb",)))
    told = report.body([str(made.root)])
    assert "1 rounds written" in told.fields["trackers"][0] and [step for step, _ in wandb.logged] == [0]


def test_a_service_that_fails_fails_nothing_and_is_tried_again(made, wandb):
    wandb.fails = True
    assert "the service is away; the report is complete" in mirror(made, ["wandb"])[0]
    assert wandb.finished == 1 and not (made.root / "trackers" / "wandb.json").exists()
    wandb.fails = False
    mirror(made, ["wandb"])
    assert json.loads((made.root / "trackers" / "wandb.json").read_bytes()) == {"rounds": [0]}


def test_names_that_mlflow_would_take_for_a_file_and_a_folder_stay_apart():
    assert (
        trackers._key("seconds/train") == "seconds/train"
        and trackers._key("seconds/train/steps") == "seconds/train.steps"
    )
    assert trackers._key("score/a+b/pass@1") == "score/a_b.pass_1"


def test_the_real_wandb_writes_offline_without_a_key(made, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for expected in ("1 rounds", "nothing new"):
        assert expected in mirror(made, ["wandb"])[0]
    assert len(list((made.root / "trackers" / "wandb").glob("offline-run-*"))) == 1


def test_the_real_mlflow_has_one_run_and_every_round_once(made, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "1 rounds sent" in mirror(made, ["mlflow"])[0]
    do_round(made, 1)
    assert "1 rounds sent" in mirror(made, ["mlflow"])[0] and mirror(made, ["mlflow"]) == [
        "mlflow: nothing new"
    ]
    client = mlflow.MlflowClient(tracking_uri=(made.data_root / "mlruns").as_uri())
    (there,) = client.search_runs([client.get_experiment_by_name("serl").experiment_id])
    assert (
        there.data.params["train.objective.kind"] == "reinforce_pp"
        and there.data.tags["serl_digest"] == made.digest
    )
    assert [m.step for m in client.get_metric_history(there.info.run_id, "score/sums.pass_at_1")] == [0, 1]
