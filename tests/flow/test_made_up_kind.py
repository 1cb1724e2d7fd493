"""A kind that a stranger adds: one package, named in the run file, and every verb and both executors know it.

Nothing of the project is touched. The phase also ends by itself (`until`): what comes after is empty.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from chain import kill, manifests, open_run, run_verb, tasks_of, verb, wait_for
from lab import CLUSTER, preempt, running_lab, wait_until

from jobs.chain.cancel import live
from tests.conftest import ROOT, SMALL

pytestmark = pytest.mark.timeout(400)
PACKAGE = Path(__file__).parent / "made_up_kind"
PONDER = {"shards": 2, "parts": 3, "part_s": 0.7, "settled_in": 2}


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A data root, the stranger's package in a folder of its own, and a run file that names it."""
    shutil.copytree(PACKAGE, tmp_path / "strangers/made_up_kind")
    base = tmp_path / "models/base"
    base.mkdir(parents=True)
    (base / "config.json").write_text('{"model_type": "none"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_text("\x02" + "\0" * 7 + "{}")
    phase = {"rounds": 3, "stages": ["muse"], "until": "settled", "muse": {"kind": "ponder", **PONDER}}
    tree = {key: SMALL[key] for key in ("base", "prompts", "engine")} | {
        "name": "strange",
        "phases": {"think": phase},
    }
    tree["plugins"] = ["made_up_kind.ponder"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path / 'strangers'}")
    return tmp_path


def check(data: Path) -> None:
    """All that was asked for is there, once; every verb reads it, from its own copy of the stranger's package."""
    run = open_run(data, "strange")
    found = manifests(run)
    assert {k: m.rows for k, m in ((k, m.files[0]) for k, m in found.items() if m.files)} == {
        f"{round}/muse/{shard}": 3 for round in (1, 2) for shard in (0, 1)
    }
    assert run.read(found["2/muse/1"]) == b"2/1/0\n2/1/1\n2/1/2\n"
    assert [found[f"3/muse/{i}"].over for i in (0, 1)] == [True, True], "the phase was over after round 2"
    shutil.rmtree(data / "strangers")
    for name, *arguments in (("status",), ("report",), ("gc",), ("logs",), ("diff", "strange")):
        code, said = run_verb(name, "strange", *arguments, data=data)
        assert code == 0 and "Traceback" not in said, f"{name}: {said}"
    code, said = run_verb("status", "strange", "--json", data=data)
    assert code == 0 and json.loads(said[said.index("{") :])["state"] == "done"
    assert "muse" in (run.root / "report.md").read_text()


def test_here_with_kills(site):
    launch = verb("launch", str(site / "run.yaml"), data=site)
    root = site / "runs/strange"
    wait_for(lambda: list(root.glob("round_001/muse/*/part_*")), "a first thought")
    for pid in [*tasks_of(launch.process.pid, "muse"), launch.process.pid]:
        kill(pid)
    launch.process.wait()
    code, said = run_verb("resume", "strange", data=site)
    assert code == 0, said
    check(site)


def test_the_example_of_the_readme_runs(site):
    """A kind in the fewest words, as serl/stages/README.md shows it, in a package that has nothing else."""
    package = site / "strangers/my_stages/ponder"
    package.mkdir(parents=True)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "serl/stages/README.md").read_text(), re.DOTALL)
    for name, block in zip(("spec.py", "run.py"), blocks, strict=True):
        (package / name).write_text(block)
    tree = yaml.safe_load((site / "run.yaml").read_text())
    tree |= {"plugins": ["my_stages.ponder"], "phases": {"think": {"stages": ["ponder"]}}}
    tree["phases"]["think"]["ponder"] = {"shards": 2, "parts": 3}
    (site / "example.yaml").write_text(yaml.safe_dump(tree | {"name": "example"}))
    code, said = run_verb("launch", str(site / "example.yaml"), data=site)
    assert code == 0, said
    run = open_run(site, "example")
    assert run.read(manifests(run)["1/ponder/1"]) == b"1/0\n1/1\n1/2\n"


def test_a_data_root_with_a_colon_behind_a_link_stays_as_it_was_given(site):
    """A node may resolve the link differently, and a colon once made two paths of the code's."""
    (site / "real:place").mkdir()
    shutil.copytree(site / "models", site / "real:place/models")
    given = site / "given:so"
    given.symlink_to(site / "real:place")
    quick = ["think.rounds=1", "think.until=null", "think.muse.part_s=0.01"]
    code, said = run_verb("launch", str(site / "run.yaml"), *quick, data=given)
    assert code == 0, said
    code, said = run_verb("status", "strange", "--json", data=given)
    told = json.loads(said[said.index("{") :])
    assert (told["state"], told["folder"]) == ("done", str(given / "runs/strange"))


def test_on_slurm_with_a_preemption(site):
    with running_lab(site / "lab"):
        os.environ["PYTHONPATH"] = f"{ROOT}:{site / 'strangers'}"
        cluster = site / "cluster.yaml"
        cluster.write_text(yaml.safe_dump(CLUSTER | {"data": str(site), "stages": {"muse": {"time_min": 5}}}))
        code, said = run_verb("launch", str(site / "run.yaml"), "--cluster", str(cluster), data=site)
        assert code == 0, said
        run = open_run(site, "strange")
        wait_until(lambda: list(run.root.glob("round_001/muse/*/part_*")), "a first thought")
        preempt(next(q.where for q in live(run) if q.state == "RUNNING"))
        wait_until(lambda: not live(run), "the chain to end")
        check(site)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"plugins": ["made_up_kind.plunder"]},
            "plugins: made_up_kind.plunder: .*put its folder into PYTHONPATH",
        ),
        (
            {"phases": {"think": {"until": "tired"}}},
            "until tired: no count of its stages; .* publish settled",
        ),
        ({"phases": {"think": {"muse": {"parts": 0}}}}, "think.muse.parts: 0: input should be greater"),
        (
            {"phases": {"think": {"muse": {"prats": 1}}}},
            "think.muse.prats: unknown key .* did you mean 'parts'",
        ),
    ],
)
def test_its_section_is_as_strict_as_any(site, change, message):
    (site / "more.yaml").write_text(yaml.safe_dump({"extends": "run.yaml"} | change))
    code, said = run_verb("launch", str(site / "more.yaml"), data=site)
    flat = " ".join(said.split())
    assert code == 2 and re.search(message, flat), said
    assert not (site / "runs").exists()
