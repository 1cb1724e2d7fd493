"""Sweep files, trials, what they share, and early stop; submission is in `test_lanes`."""

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.chain.local import ShardFailed
from jobs.plan.chain import bounds_of, plan
from jobs.plan.cluster import Local, Slurm, load_cluster
from jobs.runs.processes import claim, launcher_of, release
from jobs.runs.shared import Outside, code_digest, shared_keys, users
from jobs.sweeps.early import verdict
from jobs.sweeps.launching import draft_sweep, prepare, run_here
from jobs.sweeps.preview import savings, show_plan
from jobs.sweeps.trials import load_sweep, trials_of
from serl.config.engine import Prompts
from serl.run.attempt import Attempt
from serl.run.rundir import Run, RunError, end_after
from serl.run.signals import Stop
from serl.stages.kind import World
from tests.conftest import ROOT, SMALL, phased, run_config

GRID = {
    "kind": "grid",
    "over": {"train.objective": [{"kind": "grpo"}, {"kind": "rloo"}], "train.optimizer.lr": [1.0e-4, 2.0e-4]},
}


def write(folder: Path, tree: dict | None = None, **changes) -> Path:
    """A sweep file beside its base."""
    (folder / "base.yaml").write_text(yaml.safe_dump(phased(tree or SMALL)))
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({"name": "mine", "base": "base.yaml", "space": GRID, "replicates": [0, 1]} | changes)
    )
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """A data root with what the small run needs."""
    folder = tmp_path / "data"
    (folder / "models/base").mkdir(parents=True)
    for name, text in (
        ("config.json", '{"model_type": "none"}'),
        ("tokenizer.json", "{}"),
        ("model.safetensors", "\x02" + "\0" * 7 + "{}"),
    ):
        (folder / "models/base" / name).write_text(text)
    (folder / "seeds").mkdir()
    (folder / "seeds/seeds.jsonl").write_text(
        "".join(json.dumps({"question": f"What is {i}?", "answer": i}) + "\n" for i in range(8))
    )
    return folder


def test_a_grid_is_every_combination_and_each_is_repeated(tmp_path, data):
    draft = draft_sweep(write(tmp_path), data)
    assert [str(t) for t in draft.trials[:3]] == [
        "train.objective=grpo, train.optimizer.lr=0.0001, seed=0", "train.objective=grpo, train.optimizer.lr=0.0001, seed=1",
        "train.objective=grpo, train.optimizer.lr=0.0002, seed=0",
    ]  # fmt: skip
    assert len(draft.trials) == len({t.id for t in draft.trials}) == 8
    assert len({t.setting("seed") for t in draft.trials}) == 4
    last = draft.configs[-1]
    train = last.phases.self_play.train
    assert (train.objective.kind, train.optimizer.lr, last.seed, last.name) == (
        "rloo",
        2e-4,
        1,
        draft.trials[-1].run,
    )


def test_a_list_reaches_everything_and_null_takes_away(tmp_path, data):
    problems = {"per_round": 4, "source": {"kind": "jsonl", "path": "seeds.jsonl", "gold": "answer"}}
    labelled = {
        "stages": ["respond", "train"],
        "propose": None,
        "curate": None,
        "respond.problems": problems,
        "respond.reward": {"kind": "verified"},
    }
    space = {"kind": "list", "trials": [{}, labelled, {"base.path": "base", "rounds": 1}]}
    draft = draft_sweep(write(tmp_path, space=space, replicates=[], overrides={"seed": 5}), data)
    assert [c.seed for c in draft.configs] == [5, 5, 5]
    labelled = draft.configs[1].phases.self_play
    assert not hasattr(labelled, "propose") and labelled.respond.reward.kind == "verified"
    assert [c.rounds for c in draft.configs] == [2, 2, 1]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_more_random_trials_of_a_seed_begin_with_the_fewer(few, more, seed):
    def drawn(number: int) -> list[str]:
        over = {
            "train.optimizer.lr": {"kind": "log_uniform", "low": 1e-5, "high": 1e-3},
            "rounds": {"kind": "int", "low": 1, "high": 3},
        }
        config = {
            "name": "r",
            "base": "x",
            "space": {"kind": "random", "trials": number, "seed": seed, "over": over},
        }
        from jobs.sweeps.schema import SweepConfig

        trials = trials_of(SweepConfig.model_validate_json(json.dumps(config)))
        assert all(
            1e-5 <= t.overrides["train.optimizer.lr"] <= 1e-3 and t.overrides["rounds"] in (1, 2, 3)
            for t in trials
        )
        return [t.id for t in trials]

    short, long = sorted((few, more))
    assert drawn(long)[:short] == drawn(short)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nmae": 1}, r"sweep\.yaml: nmae: unknown key .*did you mean 'name'"),
        (
            {"base": "no.yaml"},
            r"sweep\.yaml: base: 'no\.yaml': there is no file .*no\.yaml; the path is relative",
        ),
        ({"space": {"kind": "gird"}}, r"space\.kind: 'gird' is unknown; choose one of"),
        ({"space": {"kind": "grid", "over": {"train..lr": [1]}}}, r"key 'train\.\.lr': write a dotted key"),
        ({"space": {"kind": "grid", "over": {"name": ["x"]}}}, r"a trial's run is named after the sweep"),
        ({"space": {"kind": "grid", "over": {"seed": [1]}}}, r"replicates: seed is varied by the space too"),
        ({"space": {"kind": "grid", "over": {"train.optimizer.lr": []}}}, r"no values; give at least one"),
        (
            {"space": {"kind": "list", "trials": [{}, {}]}},
            r"the base as it is.* stands in it twice|seed=0 stands in it twice",
        ),
        (
            {
                "space": {
                    "kind": "random",
                    "trials": 3,
                    "over": {"rounds": {"kind": "int", "low": 1, "high": 2}},
                }
            },
            r"only 2 different ones were found",
        ),
        (
            {
                "space": {
                    "kind": "random",
                    "trials": 3,
                    "over": {"rounds": {"kind": "int", "low": 2, "high": 1}},
                }
            },
            r"low 2 is above high 1",
        ),
        (
            {"space": {"kind": "grid", "over": {"train.optimizer.lr": [1.0e-4, -1]}}},
            r"trial train\.optimizer\.lr=-1: phases\.self_play\.train\.optimizer\.lr: -1",
        ),
        (
            {"space": {"kind": "grid", "over": {"train.optimiser": [1]}}},
            r"trial train\.optimiser=1: phases\.self_play\.train\.optimiser: unknown key .*did you mean 'optimizer'",
        ),
        (
            {"space": {"kind": "list", "trials": [{}, {"rounds": 2}]}},
            r"trial rounds=2, seed=0 is the same run as trial seed=0: .*take one out",
        ),
        (
            {"space": {"kind": "grid", "over": {"train.agreement": [[0, 1], [0.0, 1.0]]}}},
            r"is the same run as trial train\.agreement=\[0, 1\]",
        ),
        ({"overrides": {"rounds": "many"}}, r"overrides: rounds: phases\.self_play\.rounds: 'many'"),
        ({"early_stop": {"after_round": 1}}, r"early_stop: trial .* has no score section"),
    ],
)
def test_a_mistake_names_file_key_value_and_remedy_before_anything_is_made(tmp_path, data, changes, words):
    with pytest.raises(ValueError, match=words):
        draft_sweep(write(tmp_path, **changes), data)
    assert not (data / "runs").exists() and not (data / "sweeps").exists()


# ------------------------------------------------------------------------------------------------ what is shared


def keys(data: Path, **changes) -> dict[str, str]:
    tree = json.loads(
        json.dumps(
            SMALL
            | {
                "stages": [*SMALL["stages"], "score"],
                "score": {"shards": 1, "benchmarks": ["math_500"], "max_tokens": 8},
            }
        )
    )
    for key, value in changes.items():
        *path, last = key.split("__")
        section = tree
        for part in path:
            section = section[part]
        section[last] = value
    return shared_keys(run_config(tree), Outside(data))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"train__objective": {"kind": "grpo"}}, set()),
        ({"train__agreement": [0.1, 0.9]}, set()),
        ({"rounds": 5}, set()),
        ({"name": "other"}, set()),
        ({"score__max_tokens": 9}, {"r000-score"}),
        ({"curate__max_instructions": 3}, {"r001-curate", "r001-respond"}),
        ({"respond__samples": 8}, {"r001-respond"}),
        ({"propose__prompts": 9}, {"r001-propose", "r001-curate", "r001-respond"}),
        ({"seed": 2}, {"r001-propose", "r001-curate", "r001-respond"}),  # greedy scores have no seed
        ({"prompts__propose_opening": "More:"}, {"r001-propose", "r001-curate", "r001-respond"}),
        ({"prompts__respond_plain": "{question}"}, {"r000-score", "r001-respond"}),
        ({"engine__max_model_len": 300}, {"r000-score", "r001-propose", "r001-curate", "r001-respond"}),
        ({"prompts__template": {"x": 1}}, {"r000-score", "r001-propose", "r001-curate", "r001-respond"}),
        ({"answers": {"kind": "text"}}, {"r001-propose", "r001-curate", "r001-respond"}),
        (
            {"answers": {"kind": "math", "thinking": [["<hm>", "</hm>"]]}},
            {"r000-score", "r001-propose", "r001-curate", "r001-respond"},
        ),
        ({"quality": {"min_words": 9}}, {"r001-propose", "r001-curate", "r001-respond"}),
    ],
)
def test_trials_part_where_their_configurations_make_a_difference_and_no_earlier(data, change, parts):
    one, other = keys(data), keys(data, **change)
    assert list(one) == ["r000-score", "r001-propose", "r001-curate", "r001-respond"]
    assert {name for name in one if one[name] != other[name]} == parts


def test_every_prompt_is_in_the_key_of_who_asks_it():
    known = ("propose_", "respond_", "template")
    assert all(name.startswith(known) for name in Prompts.model_fields)


def test_sampled_scores_depend_on_the_seed(data):
    assert keys(data, score__samples=2)["r000-score"] != keys(data, score__samples=2, seed=2)["r000-score"]


def test_keys_follow_what_lies_outside(data):
    before = keys(data)
    with open(data / "seeds/seeds.jsonl", "a") as f:
        f.write('{"question": "One more?", "answer": 1}\n')
    seeds = keys(data)
    assert {n for n in before if before[n] != seeds[n]} == {"r001-propose", "r001-curate", "r001-respond"}
    (data / "models/base/model.safetensors").write_text("trained further")
    assert all(seeds[n] != keys(data)[n] for n in seeds)


def test_keys_follow_the_code_and_the_locked_packages(tmp_path, monkeypatch):
    for name in ("serl/a.py", "evaluation/b.yaml", "slurm/requirements-cpu.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr("jobs.runs.shared.ROOT", tmp_path)
    found = [code_digest()]
    for name in ("serl/a.py", "evaluation/b.yaml", "slurm/requirements-cpu.lock"):
        (tmp_path / name).write_text("2")
        found.append(code_digest())
    (tmp_path / "slurm/README.md").write_text("anything")
    assert len(set(found)) == 4 and code_digest() == found[-1]


def test_a_large_file_of_problems_is_told_by_all_of_it(data, monkeypatch):
    monkeypatch.setattr("jobs.runs.shared.SMALL_BYTES", 2**16)
    lines = [json.dumps({"question": f"What is {i:06d}?", "answer": 1}) for i in range(200_000)]
    (data / "seeds/seeds.jsonl").write_text("\n".join(lines))
    one = Outside(data).of(data / "seeds/seeds.jsonl")
    lines[777] = lines[777].replace("What", "That")
    (data / "seeds/seeds.jsonl").write_text("\n".join(lines))
    assert Outside(data).of(data / "seeds/seeds.jsonl") != one


def test_large_weights_are_told_by_blocks_spread_over_them(data, monkeypatch):
    monkeypatch.setattr("jobs.runs.shared.SMALL_BYTES", 2**16)
    weights = data / "models/base/model.safetensors"
    weights.write_bytes(bytes(2**23))
    one = Outside(data).of(data / "models/base")
    weights.write_bytes(bytes(2**23))
    assert Outside(data).of(data / "models/base") == one
    changed = bytearray(2**23)
    changed[-1] = 1
    weights.write_bytes(changed)
    assert Outside(data).of(data / "models/base") != one


def test_the_base_model_made_on_the_spot_is_shared_by_the_trials_of_a_seed(data):
    path = write(
        data.parent,
        space={
            "kind": "grid",
            "over": {"train.objective": [{"kind": k} for k in ("reinforce_pp", "grpo", "rloo")]},
        },
        replicates=[0, 1, 2],
    )
    path.write_text(path.read_text().replace("base.yaml", str(ROOT / "configs/quickstart.yaml")))
    draft = draft_sweep(path, data)
    shared = ("r000-corpus", "r000-train", "r000-score", "r001-propose", "r001-curate", "r001-respond")
    assert savings(draft.keys) == {name: (9, 3) for name in shared}


def test_users_of_a_shared_result_are_the_runs_that_name_it(tmp_path, data):
    runs = prepare(draft_sweep(write(tmp_path), data))
    key = runs[0].shared["r001-propose"]
    assert users(data)[key] == sorted(r.root.name for r in runs if r.config.seed == 0)
    assert users(data).get("nothing", []) == []


# ------------------------------------------------------------------------------------------------ making it, twice


def test_a_second_launch_adds_trials_and_keeps_the_others(tmp_path, data):
    first = prepare(draft_sweep(write(tmp_path), data))
    codes = {(r.root / "code").resolve() for r in first}
    assert len(codes) == 1 and (codes.pop() / "jobs/chain/task.py").is_file()
    before = {p: p.stat().st_mtime_ns for p in data.glob("runs/*/run.json")}
    wider = {"kind": "grid", "over": GRID["over"] | {"train.optimizer.lr": [3.0e-4, 1.0e-4]}}
    second = prepare(draft_sweep(write(tmp_path, space=wider), data))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(load_sweep(data, "mine").trials) == 12 and len(second) == 8
    assert load_sweep(data, "mine").trials[:8] == tuple(draft_sweep(write(tmp_path), data).trials)


def test_trials_of_overrides_that_the_file_no_longer_has_are_told_from_those_of_the_new_ones(tmp_path, data):
    """Else a report would take them for the same setting, and of two trials of a seed count the later."""
    prepare(draft_sweep(write(tmp_path, overrides={"rounds": 1}), data))
    for rounds in (3, 4):
        prepare(draft_sweep(write(tmp_path, overrides={"rounds": rounds}), data))
    trials = load_sweep(data, "mine").trials
    assert len(trials) == 24 and len({t.setting("seed") for t in trials}) == 12
    assert [t.overrides.get("rounds") for t in trials] == [1] * 8 + [3] * 8 + [None] * 8
    moved = {"kind": "grid", "over": GRID["over"] | {"rounds": [1]}}
    assert [t.id for t in draft_sweep(write(tmp_path, space=moved), data).trials] == [
        t.id for t in trials[:8]
    ]


def test_a_launch_asks_for_the_space_of_what_is_left_and_of_trials_at_once(tmp_path, data, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr("jobs.sweeps.launching.check_space", lambda data, needed: asked.append(needed))
    header = json.dumps({"w": {"shape": [10**9], "data_offsets": [0, 2 * 10**9]}}).encode()
    with open(data / "models/base/model.safetensors", "wb") as f:
        f.write(len(header).to_bytes(8, "little") + header)
        f.truncate(8 + len(header) + 2 * 10**9)
    draft = draft_sweep(write(tmp_path), data)
    runs = prepare(draft)
    prepare(draft, at_once=3)
    weights, shared = 10**9, {key: name for keys in draft.keys for name, key in keys.items()}
    one = sum(
        e.bytes
        for j in plan(runs[0].config, lambda s: False)
        if (e := bounds_of(runs[0].config, j, World(num_parameters=weights))) and j.name not in runs[0].shared
    )
    once = sum(
        bounds_of(runs[0].config, j, World(num_parameters=weights)).bytes
        for j in plan(runs[0].config, lambda s: False)
        for n in shared.values()
        if n == j.name
    )
    passing = max(
        bounds_of(runs[0].config, j, World(num_parameters=weights)).temporary_bytes for j in plan(runs[0].config, lambda s: False)
    )
    assert asked == [8 * one + once + passing, 8 * one + once + 3 * passing]
    for run in runs:
        for job in plan(run.config, run.done):
            for shard in job.missing:
                Attempt(run, shard, id="a", inputs={}).publish_bytes(".jsonl", b"", 0)
    prepare(draft)
    assert asked[-1] == 0, "everything is done"


def test_a_launcher_that_dies_between_any_two_runs_is_made_good(tmp_path, data, monkeypatch):
    draft = draft_sweep(write(tmp_path), data)
    whole = Run.create.__func__

    for left in (0, 1, 2, 1):

        def create(cls, *args, _left=[left], **kwargs):  # noqa: B006 (counts down)
            if not _left[0]:
                raise KeyboardInterrupt
            _left[0] -= 1
            return whole(cls, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "create", classmethod(create))
            if len(list(data.glob("runs/*/run.json"))) < 8:
                with pytest.raises(KeyboardInterrupt):
                    prepare(draft)
        assert len(load_sweep(data, "mine").trials) == 8
    runs = prepare(draft)
    assert [r.root.name for r in runs] == [t.run for t in draft.trials]
    assert all((r.root / "code/serl").is_dir() and r.sweep == "mine" for r in runs)


def test_a_base_that_changed_under_launched_trials_is_refused(tmp_path, data):
    prepare(draft_sweep(write(tmp_path), data))
    with pytest.raises(
        RunError,
        match=r"was launched with another configuration \(it differs in phases\.self_play\.rounds\).*restore it, or give the sweep another name",
    ):
        prepare(draft_sweep(write(tmp_path, SMALL | {"rounds": 3}), data))


def test_a_trial_that_was_ended_early_stays_so_when_the_sweep_is_launched_again(tmp_path, data):
    path = write(tmp_path)
    (first, *_) = prepare(draft_sweep(path, data))
    end_after(first.root, 1, "worse")
    assert [r.config.rounds for r in prepare(draft_sweep(path, data))] == [1] + 7 * [2]


def test_a_sweep_is_launched_by_one_process_at_a_time(tmp_path):
    claim(tmp_path, watch="sweep status {}", stop="sweep cancel {}")
    assert launcher_of(tmp_path) is not None
    code = f"from pathlib import Path; from jobs.runs.processes import claim; claim(Path({str(tmp_path)!r}), 'sweep status {{}}', 'sweep cancel {{}}')"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert re.search(rf"jobs\.sweep status {tmp_path.name}`", other.stderr)
    release(tmp_path)
    assert launcher_of(tmp_path) is None
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_here_a_failed_trial_does_not_keep_the_others_from_running(tmp_path, data, monkeypatch):
    draft = draft_sweep(write(tmp_path), data)
    runs, ran = prepare(draft), []

    def one(run: Run, cluster: Local, stop: Stop) -> int:
        ran.append(run.root.name)
        if len(ran) == 2:
            raise ShardFailed("the loss is not finite")
        if len(ran) == 3:
            raise RunError("process 7 on another machine is running it")
        return 0

    monkeypatch.setattr("jobs.sweeps.launching.run_one_here", one)
    assert run_here(draft, runs, Local(), Console(file=io.StringIO())) == 2
    assert ran == [t.run for t in draft.trials]


# ------------------------------------------------------------------------------------------------ the plan


def test_a_thousand_trials_are_planned_in_five_seconds_of_processor_time(tmp_path, data, capsys):
    over = {
        "train.objective.kl": {"kind": "log_uniform", "low": 1e-4, "high": 1e-1},
        "train.optimizer.lr": {"kind": "log_uniform", "low": 1e-5, "high": 1e-3},
    }
    path = write(tmp_path, space={"kind": "random", "trials": 250, "over": over}, replicates=[0, 1, 2, 3])
    path.write_text(path.read_text().replace("base.yaml", str(ROOT / "configs/quickstart.yaml")))
    begun = time.process_time()
    facts = show_plan(draft_sweep(path, data), load_cluster("example"), Console(file=io.StringIO()))
    seconds = time.process_time() - begun
    with capsys.disabled():
        print(f"\n1,000 trials resolved, checked, keyed and planned in {seconds:.2f} s")
    assert len(facts["trials"]) == 1000 and seconds < 5
    assert sum(s["wanted"] - s["computed"] for s in facts["shared"]) == 6 * 996


def test_a_dry_run_prints_trials_and_sharing_and_writes_nothing(tmp_path, data):
    path = write(tmp_path, cap={"kind": "gpus", "gpus": 64})
    command = [
        sys.executable,
        "-m",
        "jobs.sweep",
        str(path),
        "--dry-run",
        "--cluster",
        "example",
        "--data",
        str(data),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 trials of 4 settings; 18 stages need not be computed again" in done.stdout
    assert "shared before" in done.stdout and "lanes: that many trials at once" in done.stdout
    assert sorted(p.name for p in data.iterdir()) == ["models", "seeds"]


# ------------------------------------------------------------------------------------------------ early stop


def answered(right: int, of: int = 100) -> dict[str, float]:
    return {f"b/{i}": float(i < right) for i in range(of)}


def test_early_stop_ends_the_significantly_worse_and_never_the_best():
    scored = {"best": answered(80), "close": answered(75), "bad": answered(40)}
    assert verdict("best", scored, 0.05) == verdict("close", scored, 0.05) == ""
    assert verdict("bad", scored, 0.05).startswith(
        "significantly worse than best: 0.400 to 0.800 on 100 problems, p "
    )
    assert verdict("bad", {"bad": answered(40)}, 0.05) == "", "alone there is nothing to be worse than"
    assert verdict("bad", scored, 0.0) == ""


def test_a_run_that_was_ended_early_is_planned_to_there_and_keeps_its_digest(run):
    end_after(run.root, 1, "worse")
    end_after(run.root, 1, "another word")
    again = Run.open(run.root)
    assert again.digest == run.digest and again.config.rounds == 1
    assert {job.round for job in plan(again.config, again.done)} == {1}
    assert json.loads((run.root / "ended.json").read_text())["reason"] == "worse"
