"""Finding runs, claiming them, and rows under crashes."""

import multiprocessing
import os
import subprocess
import sys

import psutil
import pytest

from jobs.chain.local import end_leftovers
from jobs.runs import code as runs
from jobs.runs.code import freeze_code
from jobs.runs.find import find_run, list_runs
from jobs.runs.processes import born, claim, launcher_of
from serl.run.files import append_row, read_rows
from serl.run.rundir import Run, RunError


def test_runs_are_found_by_name_and_by_path(run):
    data = run.data_root
    assert find_run("small", data) == find_run(str(run.root), data) == Run.open(run.root.resolve())
    with pytest.raises(RunError, match="runs/smal: no such run; runs there: small"):
        find_run("smal", data)
    with pytest.raises(RunError, match="there are no runs there; set --data"):
        find_run("x", data / "elsewhere")


def test_only_finished_folders_are_runs(run):
    (run.root.parent / "stray").mkdir()
    draft = run.root.parent / ".other.77"
    draft.mkdir()
    (draft / "run.json").write_text("{}")
    assert list_runs(run.data_root) == [run.root]


def test_code_is_frozen_once(tmp_path, monkeypatch):
    project = tmp_path / "project"
    for package in runs.PACKAGES:
        (project / package / "__pycache__").mkdir(parents=True)
        (project / package / "a.py").write_text("1")
    monkeypatch.setattr(runs, "ROOT", project)
    freeze_code(tmp_path / "code")
    (project / "serl/a.py").write_text("2")
    freeze_code(tmp_path / "code")
    assert (tmp_path / "code/serl/a.py").read_text() == "1"
    assert sorted(p.name for p in (tmp_path / "code/serl").iterdir()) == ["a.py"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["code", "project"]


def test_a_half_copied_code_folder_is_not_taken_for_the_code(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            freeze_code(tmp_path / "code")
    assert not (tmp_path / "code").exists()
    freeze_code(tmp_path / "code")
    assert (tmp_path / "code/serl/run/rundir.py").is_file()


def test_rows_that_were_appended_are_given_back(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert list(read_rows(path)) == []
    for n in (1, 2):
        append_row(path, {"number": n})
    assert list(read_rows(path)) == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("kept", [0, 1, 5, 10])
def test_a_line_torn_by_a_crash_is_lost_alone(tmp_path, kept):
    """The next row used to be appended to the torn line, and both were unreadable."""
    path = tmp_path / "rows.jsonl"
    append_row(path, {"number": 1})
    append_row(path, {"number": 2})
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    append_row(path, {"number": 3})
    assert list(read_rows(path)) == [{"number": 1}, {"number": 3}]


def test_processes_that_outlived_their_launcher_are_known_by_their_folder_and_no_others_end(run):
    """A killed launcher left engines behind that held the memory of the next ones."""
    folder = run.root / "logs" / "r001-propose" / "shard_00000.a1"
    sleep = (sys.executable, "-c", "import time; time.sleep(60)")
    mine = subprocess.Popen([*sleep, "submitit.core._submit", str(folder)])
    others = [
        subprocess.Popen([*sleep, "submitit.core._submit", str(run.root.parent / "other" / "logs" / "x")]),
        subprocess.Popen([*sleep, "tail", str(folder / "1_0_log.out")]),
    ]
    try:
        assert end_leftovers(run, 5.0) == 1
        assert not psutil.pid_exists(mine.pid) and [p.poll() for p in others] == [None, None]
    finally:
        for p in (mine, *others):
            p.kill()
            p.wait()


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert born(child.pid) > 0
    assert born(child.pid) >= born(os.getpid())
    child.stdin.close()
    while born(child.pid) is not None:
        pass
    assert child.wait() in (0, 1)
    assert born(child.pid) is None


def test_a_dead_launcher_gives_way_and_a_live_one_does_not(run):
    assert launcher_of(run.root) is None
    child = multiprocessing.get_context("fork").Process(target=claim, args=(run.root,))
    child.start()
    child.join()
    assert launcher_of(run.root) is None
    claim(run.root)
    claim(run.root)
    assert launcher_of(run.root).pid == os.getpid()
    other = multiprocessing.get_context("fork").Process(target=_refused, args=(run.root,))
    other.start()
    other.join()
    assert other.exitcode == 0


def _refused(root) -> None:
    with pytest.raises(RunError, match=r"is running it; watch it with `python -m jobs.status small --watch`"):
        claim(root)


def _race(root, gate, won, end) -> None:
    gate.wait()
    try:
        claim(root)
        won.release()
    except RunError:
        pass
    end.wait()


def test_of_launchers_that_start_together_exactly_one_claims_the_run(run):
    """Checking for a live one and then writing one's own name left a moment in which both did."""
    fork = multiprocessing.get_context("fork")
    for _ in range(10):
        gate, won, end = fork.Barrier(4), fork.Semaphore(0), fork.Barrier(4)
        rivals = [fork.Process(target=_race, args=(run.root, gate, won, end)) for _ in range(4)]
        for p in rivals:
            p.start()
        for p in rivals:
            p.join()
        assert won.get_value() == 1
