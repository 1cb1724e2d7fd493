"""What holds for every verb: one JSON object on stdout, exit codes that mean what they say, and a shell that knows them all."""

import copy
import errno
import importlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from report_run import do_round, make_run
from rich.console import Console

from jobs.chain.launched import freeze_cluster
from jobs.chain.local import ShardFailed, Stopped
from jobs.plan.cluster import Local, Slurm
from jobs.shell import command
from jobs.shell import complete as completion
from jobs.shell.command import Answer
from tests.conftest import ROOT, SMALL

HERE = {"SERL_DATA": "", "OMP_NUM_THREADS": "1"}


def start(verb: str, *argv: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"jobs.{verb}", *argv],
        cwd=ROOT,
        env=os.environ | HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_verb(capsys, monkeypatch, verb: str, *argv: str) -> tuple[int, str, str]:
    """As the command line would, in this process: most of a verb's time is that of its imports."""
    monkeypatch.setattr(sys, "argv", [f"jobs/{verb}.py", *argv])
    with pytest.raises(SystemExit) as e:
        command.main(importlib.import_module(f"jobs.{verb}").body)
    said = capsys.readouterr()
    return e.value.code, said.out, said.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("verbs"), copy.deepcopy(SMALL))
    do_round(run, 0)
    do_round(run, 1)
    return run


CALLS: dict[str, tuple[Sequence[str], set[str]]] = {
    "launch": (["configs/quickstart.yaml", "--dry-run"], {"run", "folder", "digest", "jobs"}),
    "status": (["made-up"], {"run", "state", "stages", "queue", "failures", "eta_s"}),
    "cancel": (["made-up"], {"run", "stopped_here", "cancelled_jobs"}),
    "shard": (["made-up", "1", "curate"], {"shard", "attempt", "counts", "done_before"}),
    "report": (["made-up"], {"run", "html", "markdown", "csv"}),
    "doctor": ([], {"checks", "counts"}),
    "logs": (["made-up"], {"run", "attempts"}),
    "gc": ([], {"applied", "items", "inodes", "bytes", "skipped"}),
    "diff": (["made-up", "made-up"], {"configuration", "code", "scores", "data_differs_from", "rounds"}),
}


@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_answers_in_json_and_talks_to_people_on_stderr(verb, made, capsys, monkeypatch):
    argv, fields = CALLS[verb]
    code, out, err = run_verb(capsys, monkeypatch, verb, *argv, "--json", "--data", str(made.data_root))
    told = json.loads(out)
    assert (told["verb"], told["exit"], out.count("\n")) == (verb, code, 1)
    assert code == 0 or verb == "doctor", err
    assert fields <= set(told) and (err.strip() or verb == "status")


def test_without_a_run_status_lists_all_and_a_damaged_one_hides_none(made, capsys, monkeypatch):
    broken = made.root.parent / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    code, out, _ = run_verb(capsys, monkeypatch, "status", "--json", "--data", str(made.data_root))
    shutil.rmtree(broken)
    assert code == 0 and {r["run"]: r["state"] for r in json.loads(out)["runs"]} == {
        "made-up": "stopped",
        "broken": "damaged",
    }


@pytest.mark.parametrize(
    ("verb", "argv"),
    [("resume", ["nope"]), ("launch", []), ("browse", ["nope"]), ("logs", ["nope"]), ("diff", ["one"])],
)
def test_a_users_mistake_is_told_in_json_too(tmp_path, capsys, monkeypatch, verb, argv):
    code, out, err = run_verb(capsys, monkeypatch, verb, *argv, "--json", "--data", str(tmp_path))
    told = json.loads(out)
    assert (code, told["verb"], told["exit"]) == (2, verb, 2) and told["error"] and err


@pytest.mark.parametrize(
    ("verb", "argv", "message"),
    [
        ("browse", ["made-up", "--port", "99999"], "--port 99999: choose one up to 65535"),
        ("browse", ["made-up", "--port", "-1"], "--port -1: choose one up to 65535"),
        ("gc", ["--older-than", "nan"], "--older-than nan: give hours, at least 0"),
        ("gc", ["--older-than", "-1"], "--older-than -1.0: give hours, at least 0"),
        ("whatif", ["configs/quickstart.yaml", "--nodes", "2,0"], "--nodes: 2,0: give whole numbers of at least one"),
        ("whatif", ["configs/quickstart.yaml", "--preempt-per-hour", "2,nan"], "--preempt-per-hour: 2,nan: give numbers of at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused(made, capsys, monkeypatch, verb, argv, message):
    code, _, err = run_verb(capsys, monkeypatch, verb, *argv, "--data", str(made.data_root))
    assert code == 2 and message in " ".join(err.split())


def test_browse_says_where_it_is_and_ends_on_ctrl_c(made):
    process = start("browse", "made-up", "--json", "--data", str(made.data_root))
    first, second, third = (process.stderr.readline() for _ in range(3))
    assert first.startswith("http://127.0.0.1:") and "ssh -N -L" in second and "Ctrl-C" in third
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert (process.returncode, told["url"], told["pages"]) == (0, first.strip(), 0)


# ------------------------------------------------------------------------------------------------ exit codes
@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0), (Answer(fields={"a": 1}), 0), (1, 1), (ShardFailed("the end of its log"), 1), (OSError(28, "No space left", "/x"), 1), (BrokenPipeError(), 1),
        (ValueError("a wrong key"), 2), (Stopped(), 130), (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_exit_codes_are_as_documented(outcome, code, flags, monkeypatch, capsys):
    def body(argv):
        print("for people")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(sys, "argv", ["jobs/verb.py", *flags])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as e:
        command.main(body)
    assert e.value.code == code
    said = capsys.readouterr()
    if flags and not isinstance(outcome, BrokenPipeError):
        assert json.loads(said.out)["exit"] == code and "for people" in said.err
    assert f"\n    {code} " in command.__doc__


def test_with_json_a_defect_of_ours_is_an_object_too_and_figures_that_are_none_are_null(monkeypatch, capsys):
    def body(argv):
        if argv[0] == "broken":
            raise KeyError("a defect")
        return Answer(fields={"kl": float("nan"), "stages": [{"z": (-math.inf, 0.5)}]})

    for word, code in (("broken", 1), ("diverged", 0)):
        monkeypatch.setattr(sys, "argv", ["jobs/verb.py", word, "--json"])
        with pytest.raises(SystemExit) as e:
            command.main(body)
        said = capsys.readouterr()
        told = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert told["exit"] == e.value.code == code
        assert (
            ("KeyError" in told["error"] and "Traceback" in said.err)
            if code
            else (told["kl"], told["stages"]) == (None, [{"z": [None, 0.5]}])
        )


def test_what_nobody_reads_or_can_be_written_ends_a_verb_without_a_traceback():
    call = [
        sys.executable,
        "-c",
        "from jobs.shell.command import Answer, main; main(lambda argv: Answer(fields={'a': 1}))",
        "--json",
    ]
    with open("/dev/full", "w", encoding="ascii") as full:
        unwritten = subprocess.Popen(call, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    unread = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    unread.stdout.close()
    assert (unread.stderr.read(), unread.wait()) == ("", 1)
    said = unwritten.stderr.read()
    assert said.startswith("input/output: No space left on device; free some") and said.count("\n") == 1
    assert unwritten.wait() == 1


def test_a_character_that_the_terminal_lacks_ends_nothing(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(sys, "argv", ["jobs/verb.py"])
    with pytest.raises(SystemExit) as e:
        command.main(lambda argv: Console().print("0.5±0.1") or 0)
    narrow.flush()
    assert (e.value.code, narrow.buffer.getvalue()) == (0, b"0.5?0.1\n")


def test_a_shortened_option_is_refused(made, capsys, monkeypatch):
    """--js once switched JSON on for the verb and not for what prints it, so that nothing was said at all."""
    code, out, err = run_verb(capsys, monkeypatch, "status", "--js", "--data", str(made.data_root))
    assert code == 2 and not out and "unrecognized arguments: --js" in err


def test_a_report_that_a_full_disk_stops_names_the_place_and_the_remedy(made, capsys, monkeypatch):
    """Once: "input/output: No space left on device", from the calibration that is written before the report."""

    def refuse(run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.reporting.written.learn_from", refuse)
    code, _, err = run_verb(capsys, monkeypatch, "report", "made-up", "--data", str(made.data_root))
    assert (
        code == 2
        and f"{made.data_root / 'calibration'}: cannot be written (No space left on device); make room" in err
    )


def test_a_run_that_was_submitted_is_resumed_where_it_was_and_not_on_the_login_node(
    made, capsys, monkeypatch
):
    """`status` tells people to resume it without naming a cluster; that used to start its engines on the machine at hand."""
    for name in ("preflight", "reach_slurm", "freeze_code"):
        monkeypatch.setattr(f"jobs.resume.{name}", lambda *_: None)
    (made.root / "code").mkdir(exist_ok=True)
    went: list[Local | Slurm] = []
    monkeypatch.setattr("jobs.resume.drive", lambda run, cluster: went.append(cluster) or 0)
    freeze_cluster(made, Slurm(data="elsewhere", partition="night"))
    launched = json.loads((made.root / "launched.json").read_bytes())
    launched["cluster"]["trackers"] = []  # as earlier versions wrote it
    (made.root / "launched.json").write_text(json.dumps(launched))
    for argv in ([], ["--cluster", "local"]):
        assert (
            run_verb(capsys, monkeypatch, "resume", "made-up", *argv, "--data", str(made.data_root))[0] == 0
        )
    (made.root / "launched.json").unlink()
    assert run_verb(capsys, monkeypatch, "resume", "made-up", "--data", str(made.data_root))[0] == 0
    assert [c.kind for c in went] == ["slurm", "local", "local"] and went[0] == Slurm(
        data="elsewhere", partition="night"
    )


def test_help_says_the_exit_codes_and_what_json_is(capsys):
    with pytest.raises(SystemExit):
        command.parser("gc", "x").parse_args(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "exit codes: 0 done, 1 something failed, 2 the request is wrong, 130 stopped" in said
        and "--json" in said
    )


# ------------------------------------------------------------------------------------------------ completion
ASK = r"""
set -eu
source "$1"
cd "$2"
export SERL_DATA="$3"
compopt() { :; }
while IFS='|' read -r -a COMP_WORDS; do
  [ "${COMP_WORDS[-1]}" = END ] && COMP_WORDS[-1]=
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _serl || true
  echo "${COMPREPLY[*]-}"
done
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "bash"
    path.write_text(completion.script("bash"))
    return path


def complete(shell: Path, data: Path, *lines: str) -> list[list[str]]:
    """What bash offers at the end of each line; words are parted by |, an empty last one is END."""
    asked = "".join(line + "\n" for line in lines)
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", str(shell), str(ROOT), str(data)],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [line.split() for line in done.stdout.split("\n")[:-1]]


def test_bash_completes_verbs_runs_files_and_stages(shell, made):
    (made.data_root / "sweeps" / "wide").mkdir(parents=True)
    verbs, one, runs, second, files, clusters, stages, sweeps, options, after = complete(
        shell, made.data_root, "python|-m|END", "python|-m|jobs.lau", "python|-m|jobs.status|m", "python|-m|jobs.diff|made-up|END", "python|-m|jobs.launch|configs/quick",
        "python|-m|jobs.launch|--cluster|l", "python|-m|jobs.logs|made-up|res", "python|-m|jobs.sweep|status|END", "python|-m|jobs.gc|--older", "python|-m|jobs.browse|--port|80|END",
    )  # fmt: skip
    assert {f"jobs.{v}" for v in CALLS} | {
        "jobs.resume",
        "jobs.browse",
        "jobs.sweep",
        "evaluation.compare",
    } <= set(verbs)
    assert (one, runs, second, files, stages) == (
        ["jobs.launch"],
        ["made-up"],
        ["made-up"],
        ["configs/quickstart.yaml"],
        ["respond"],
    )
    assert {"lab", "local"} <= set(clusters) and (sweeps, options, after) == (
        ["wide"],
        ["--older-than"],
        ["made-up"],
    )


def test_zsh_is_told_to_add_no_space_after_a_folder():
    script = completion.script("zsh")
    assert (
        "complete -o nospace -o default -F _serl_spaced" in script and "complete -o bashdefault" not in script
    )


def test_other_python_commands_are_left_to_the_shell(shell, tmp_path):
    assert complete(shell, tmp_path, "python|script.py|END", "python|-m|http.server|END") == [[], []]


def test_completion_knows_exactly_the_options_that_help_shows(capsys):
    """It reads them from source text; a verb that builds its arguments otherwise would be found here."""
    for verb, (options, _) in completion.verbs().items():
        with pytest.raises(SystemExit):
            importlib.import_module(f"jobs.{verb}").body(["--help"])
        shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out.partition("options:")[2]))
        assert {o.removesuffix("=") for o in options} <= shown, verb
        assert shown - {o.removesuffix("=") for o in options} == set(), verb


def test_completion_starts_nothing_heavy():
    code = "import sys, jobs.completion as c; c.script('zsh'); print(*[m for m in sys.modules if m in %r])"
    heavy = ("torch", "vllm", "transformers", "pyarrow", "submitit", "rich", "numpy", "matplotlib")
    done = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_a_full_disk_names_the_place_and_what_to_do(tmp_path, monkeypatch, capsys):
    """A write that fails tells neither its path nor anything else."""
    monkeypatch.setenv("SERL_DATA", str(tmp_path))
    monkeypatch.setattr(command, "NEXT_TO_NOTHING", 2**70)
    monkeypatch.setattr(sys, "argv", ["jobs/verb.py"])

    def fill(argv):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SystemExit, match="1"):
        command.main(fill)
    said = " ".join(capsys.readouterr().err.split())
    assert str(tmp_path) in said.replace(" ", "") or tmp_path.name in said
    assert "No space left on device" in said and "jobs.gc" in said and "jobs.resume" in said
