"""What holds for the verbs of evaluation: a user's mistake is one sentence and exit code 2, and a run is found by its name."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_run import do_round, make_run

from evaluation import command, compare, grade, sanity
from tests.conftest import ROOT, SMALL


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("grades"), copy.deepcopy(SMALL))
    do_round(run, 0)
    return run


@pytest.mark.parametrize(
    ("main", "argv", "said"),
    [
        (grade.main, ["nope"], "runs/nope: no such run; give a run's folder, or its name with $SERL_DATA"),
        (grade.main, ["."], "no round has scores"),
        (compare.main, ["README.md"], "no such run"),
        (sanity.main, ["--data", "configs"], "no benchmark file is there; bring some with"),
        (sanity.main, ["--data", "configs", "nope"], "no benchmark named 'nope'"),
    ],
)
def test_a_users_mistake_is_one_sentence(main, argv, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as e:
        command.run(lambda: main(argv))
    told = capsys.readouterr().err
    assert e.value.code == 2 and said in told and told.count("\n") == 1


@pytest.mark.parametrize("argv", [["--workers", "0"], ["--limit", "nan"], ["--limit", "-1"], ["--limit", "soon"]])
def test_limits_that_would_hang_or_crash_are_refused(argv, made, capsys):
    with pytest.raises(SystemExit) as e:
        grade.main([str(made.root), *argv])
    assert e.value.code == 2 and "give a" in capsys.readouterr().err


def test_a_verb_ends_without_a_traceback(tmp_path):
    asked = [sys.executable, "-m", "evaluation.fetch", "--data", str(tmp_path), "math_5000000"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("no benchmark named 'math_5000000'")


def test_a_run_is_found_by_its_name(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SERL_DATA", str(made.data_root))
    assert command.run_folder(Path(made.root.name)) == made.root and command.run_folder(made.root) == made.root
    assert compare.main([made.root.name]) == 0 and made.root.name in capsys.readouterr().out
    monkeypatch.delenv("SERL_DATA")
    monkeypatch.chdir(tmp_path)
    os.symlink(made.data_root, tmp_path / "data")
    assert command.run_folder(Path(made.root.name)).samefile(made.root)


def test_benchmarks_are_found_in_the_data_root_and_in_their_folder(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "README.md", tmp_path / "benchmarks" / "sat_math.jsonl.gz")
    assert command.there(tmp_path, []) == command.there(tmp_path / "benchmarks", []) == (tmp_path / "benchmarks", ["sat_math"])
