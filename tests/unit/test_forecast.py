"""Plans are contracts: learned from one run of a noisy world, they must foretell other runs in it, and say how sure they are."""

import json
import statistics

import pytest
from made_up_world import LOGP_TOKEN_S, SAVE_S, STEP_TOKEN_S, TOKEN_S, WAIT_S, MadeUpWorld, kept_share, length

from jobs.costs.calibration import FEW, LEAST, REQUEUE_S, UNKNOWN, Calibration, Taught, fit, load_calibration
from jobs.costs.forecast import FROZEN, forecast, freeze_forecast, frozen
from jobs.costs.ledger import ledger
from jobs.costs.measured import learn, learn_from, learn_from_trials, rows
from jobs.costs.simulate import World
from jobs.plan.chain import plan
from jobs.plan.cluster import Local, Slurm
from jobs.reporting.written import write_report
from jobs.runs.queue import Journal, Submission
from serl.config.run import RunConfig
from serl.run.rundir import Run
from tests.conftest import run_config

MACHINE = Local(cores=4, gpus=0, train_ranks=2)
RANKS = 2
SCORE = {
    "shards": 2,
    "benchmarks": ["math_500"],
    "max_tokens": 200,
    "samples": 1,
    "max_problems": 200,
    "part_prompts": 50,
}
REPEATS = 5
SEEDS = range(6)


def configuration(tree: dict, name: str, rounds: int, shards: int = 2, **changes: dict) -> RunConfig:
    """Large enough that every part of the cost matters."""
    stages = ["propose", "curate", "respond", "train", "score"]
    tree = tree | {"name": name, "rounds": rounds, "stages": stages, "score": SCORE | {"shards": shards}}
    tree["propose"] = tree["propose"] | {
        "shards": shards,
        "prompts": 120,
        "part_prompts": 20,
        "sampling": {"temperature": 1.0, "max_tokens": 200},
    }
    tree["curate"] = {"max_instructions": 240}
    tree["respond"] = tree["respond"] | {
        "shards": shards,
        "samples": 8,
        "part_prompts": 16,
        "anchors": 16,
        "sampling": {"temperature": 1.0, "max_tokens": 200},
    }
    tree["train"] = tree["train"] | {"batch_samples": 16, "checkpoint_every": 20}
    return run_config(tree | {k: tree[k] | v for k, v in changes.items()})


def learned(folder, tree: dict, seed: int, runs: int = 1) -> tuple[MadeUpWorld, str]:
    """A world, and what its first runs taught."""
    world, label = MadeUpWorld(seed), "local-cpu4"
    for n in range(runs):
        config = configuration(tree, f"first-{n}", rounds=2)
        world.play(folder / "runs" / config.name, config, RANKS)
        learn(Run.open(folder / "runs" / config.name), label)
    return world, label


PLANS = {
    "more rounds and shards": ({"rounds": 4, "shards": 4}, 0.0),
    "half the samples, longer lists": (
        {"rounds": 2, "respond": {"samples": 4}, "propose": {"prompts": 200}},
        0.0,
    ),
    "a preemptible partition": ({"rounds": 3, "shards": 4}, 8.0),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_learned_from_one_run_is_within_15_percent_of_another(case, tmp_path, small_tree):
    changes, per_hour = PLANS[case]
    errors, held, preemptions = [], [], 0
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        world, _ = learned(folder, small_tree, seed)
        config = configuration(small_tree, "second", **changes)
        told = forecast(
            config,
            plan(config, lambda s: False),
            MACHINE,
            folder,
            world=World(slots=4, preempt_per_hour=per_hour, doubt=0.06) if per_hour else None,
        )
        world.preempt_per_hour = per_hour
        times = [
            world.play(folder / "runs" / f"second-{n}", config, RANKS)
            for n in range(REPEATS if per_hour else 1)
        ]
        errors.append(
            told.seconds.median / statistics.median(times) - 1
        )  # chance that no plan can know is averaged out
        held += [actual in told.seconds for actual in times]
        preemptions += world.seen["preemptions"]
    print(
        f"{case}: errors {[f'{e:+.1%}' for e in errors]}, interval held {sum(held)}/{len(held)}, {preemptions} preemptions"
    )
    assert max(map(abs, errors)) <= 0.15
    assert sum(held) >= 0.75 * len(held)
    assert bool(preemptions) == bool(per_hour)


def test_learning_recovers_what_the_world_is_made_of(tmp_path, small_tree):
    _, label = learned(tmp_path, small_tree, seed=1, runs=3)
    known = load_calibration(tmp_path, label, "base")
    assert known.of("respond").pace[1] == pytest.approx(TOKEN_S, rel=0.1)
    assert known.of("train").pace[1] == pytest.approx(STEP_TOKEN_S + LOGP_TOKEN_S * RANKS, rel=0.1)
    assert known.of("train").median("save_s") == pytest.approx(SAVE_S, rel=0.15)
    assert known.of("train").share(2, "kept", "groups") == pytest.approx(kept_share(2), rel=0.02)
    assert known.of("respond").share(1, "tokens", "samples") == pytest.approx(length("respond", 1), rel=0.03)
    assert [x.run for x in known.taught] == ["first-0", "first-1", "first-2"]


PREEMPTIBLE = Slurm(data="data", partition="low", gpus_per_node=0, stages={"train": {"nodes": RANKS}})


def learned_on_slurm(folder, tree: dict, seed: int, per_hour: float) -> tuple[MadeUpWorld, Calibration]:
    """A world whose nodes are taken away so often, and what three runs on it taught."""
    world = MadeUpWorld(seed, slots=8, preempt_per_hour=per_hour)
    for n in range(3):
        config = configuration(tree, f"first-{n}", rounds=2)
        world.play(folder / "runs" / config.name, config, RANKS)
        Journal(folder / "runs" / config.name).add(
            Submission(token="t", job="r001-propose", shards=(0,), id="a")
        )
        known = learn(Run.open(folder / "runs" / config.name), "slurm-low-cpu")
    return world, known


def test_how_often_nodes_are_taken_away_is_learned_and_planned_with(tmp_path, small_tree):
    errors, blind, held, rates = [], [], [], []
    for seed in range(3):
        folder = tmp_path / str(seed)
        world, known = learned_on_slurm(folder, small_tree, seed, per_hour=8.0)
        rates.append(known.preempt_per_hour)
        assert known.requeue_s < 1.0, (
            "here the next attempt starts as soon as any"
        )
        config = configuration(small_tree, "second", rounds=3, shards=4)
        jobs = plan(config, lambda s: False)
        told, calm = (
            forecast(config, jobs, PREEMPTIBLE, folder, world=world)
            for world in (None, World(doubt=known.doubt))
        )
        times = [world.play(folder / "runs" / f"second-{n}", config, RANKS) for n in range(REPEATS)]
        errors.append(told.seconds.median / statistics.median(times) - 1)
        blind.append(calm.seconds.median / statistics.median(times) - 1)
        held += [actual in told.seconds for actual in times]
        assert "nodes taken away" in told.sentence()
    print(
        f"errors {[f'{e:+.1%}' for e in errors]}, without what was learned {[f'{e:+.1%}' for e in blind]}, held {sum(held)}/{len(held)}"
    )
    assert statistics.mean(rates) == pytest.approx(8.0, rel=0.25)
    assert max(map(abs, errors)) <= 0.15 and statistics.mean(blind) < -0.1
    assert sum(held) >= 0.75 * len(held)


def test_where_no_node_was_taken_away_a_plan_does_not_change_and_here_nobody_takes_any(tmp_path, small_tree):
    _, known = learned_on_slurm(tmp_path, small_tree, seed=0, per_hour=0.0)
    config = configuration(small_tree, "second", rounds=2)
    told, calm = (
        forecast(config, plan(config, lambda s: False), PREEMPTIBLE, tmp_path, world=w)
        for w in (None, World(doubt=known.doubt))
    )
    assert told.seconds == calm.seconds
    _, label = learned(tmp_path / "here", small_tree, seed=0)
    assert load_calibration(tmp_path / "here", label, "base").requeue_s == REQUEUE_S


def test_a_run_that_was_disturbed_teaches_the_same_yields_and_waits(tmp_path, small_tree):
    """What the last attempt of a shard did is not all that was done for it, nor its start the first."""
    (_, calm), (rough, known) = (
        learned_on_slurm(tmp_path / str(rate), small_tree, seed=0, per_hour=rate) for rate in (0.0, 40.0)
    )
    assert rough.seen["preemptions"] > 50
    for stage, top, bottom in (
        ("propose", "accepted", "samples"),
        ("respond", "tokens", "samples"),
        ("score", "tokens", "samples"),
    ):
        assert known.of(stage).share(1, top, bottom) == pytest.approx(
            calm.of(stage).share(1, top, bottom), rel=0.03
        )
    assert known.waited_s("respond", 1) == pytest.approx(WAIT_S, abs=1.0)


def test_a_round_that_nobody_has_seen_is_as_the_last_one(tmp_path, small_tree):
    _, label = learned(tmp_path, small_tree, seed=1)
    known = load_calibration(tmp_path, label, "base")
    second, sixth = (known.of("train").share(r, "kept", "groups") for r in (2, 6))
    assert sixth == second


def test_engines_that_share_a_shard_take_as_much_less_of_its_time(tmp_path, small_tree):
    _, label = learned(tmp_path, small_tree, seed=1)
    known, config = load_calibration(tmp_path, label, "base"), configuration(small_tree, "next", rounds=1)
    jobs, seconds = plan(config, lambda s: False), {}
    for engines in (1, 2, 64):
        own = {"respond": {"tasks_per_node": engines, "gpus_per_node": 0}}
        cluster = Slurm(data="/d", gpus_per_node=0, stages=own | {"train": {"tasks_per_node": RANKS}})
        told = forecast(config, jobs, cluster, tmp_path, known=known, world=World())
        seconds[engines] = next(j.seconds.median for j in told.jobs if j.name == "r001-respond")
    parts = 256 / 2 / 16
    one, two, most = seconds.values()
    work = (one - most) / (1 - 1 / parts)
    assert work > one / 2 and two == pytest.approx(one - work / 2, rel=0.05), "no more than there are parts"


def test_learning_twice_from_a_run_changes_nothing(tmp_path, small_tree):
    _, label = learned(tmp_path, small_tree, seed=1)
    again = learn(Run.open(tmp_path / "runs/first-0"), label)
    assert again == load_calibration(tmp_path, label, "base")
    assert again.taught[0].error is None, "nobody has planned it"
    assert len(again.rows) == len(list(rows(Run.open(tmp_path / "runs/first-0"))))


def test_a_calibration_that_cannot_be_read_counts_as_none_and_is_written_anew(tmp_path, small_tree):
    _, label = learned(tmp_path, small_tree, seed=1)
    (path,) = (tmp_path / "calibration").glob("*/*.json")
    for damaged in (
        "",
        "[]",
        "{}",
        '{"version": 2, "rows": []}',
        '{"version": 3, "taught": [{"run": "train"}]}',
    ):
        path.write_text(damaged)
        assert load_calibration(tmp_path, label, "base").rows == ()
    assert learn(Run.open(tmp_path / "runs/first-0"), label).rows


def test_an_interval_is_as_wide_as_half_the_plans_were_wrong_and_a_few_say_nothing():
    def doubt(*errors: float | None) -> float:
        taught = tuple(Taught(run=str(n), rows=(), error=e) for n, e in enumerate(errors))
        return Calibration(cluster="c", model="m", taught=taught).doubt

    assert doubt() == doubt(0.5, None, -0.5) == UNKNOWN and FEW == 3
    assert doubt(0.134, -0.134, 0.134, None) == pytest.approx(0.2)
    assert doubt(0.134, -0.134, 9.0) == pytest.approx(0.2), "a run that stood still for a weekend"
    assert doubt(0.0, 0.0, 0.0) == LEAST


def test_without_measurements_there_are_no_times_and_the_forecast_says_so(tmp_path, small_tree):
    config = configuration(small_tree, "new", rounds=1)
    told = forecast(config, plan(config, lambda s: False), MACHINE, tmp_path)
    assert (
        told.seconds is None
        and "was never measured on local-cpu4" in told.sentence()
        and "upper bounds" in told.sentence()
    )


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(0.0, 2.0), (0.0, 4.0)], (3.0, 0.0)),
        ([(100.0, 2.0)], (0.0, 0.02)),
        ([(100.0, 3.0), (200.0, 5.0), (300.0, 7.0), (400.0, 9.0)], (1.0, 0.02)),
        ([(100.0, 9.0), (200.0, 7.0), (300.0, 5.0), (400.0, 4.0)], None),
        ([(100.0, 1.0), (200.0, 3.0), (300.0, 5.0), (400.0, 7.0)], None),
    ],
)
def test_costs_are_never_negative_and_few_pieces_give_one_rate(pieces, expected):
    fixed, per_size = fit(pieces)
    assert fixed >= 0 and per_size >= 0
    assert expected is None or (fixed, per_size) == pytest.approx(expected)


def test_a_plan_is_frozen_once_and_held_against_what_came(tmp_path, small_tree):
    world, _ = learned(tmp_path, small_tree, seed=5)
    config = configuration(small_tree, "second", rounds=2)
    world.play(tmp_path / "runs/second", config, RANKS)
    run = Run.open(tmp_path / "runs/second")
    freeze_forecast(run, MACHINE, plan(config, lambda s: False))
    first = (run.root / FROZEN).read_bytes()
    learn_from(run)
    freeze_forecast(run, MACHINE, plan(config, lambda s: False))
    assert (run.root / FROZEN).read_bytes() == first
    begun = (
        min(
            e["time"]
            for path in (run.root / "events").iterdir()
            for e in map(json.loads, path.read_text().splitlines())
        )
        - 5.5
    )
    content = json.loads(first)
    (run.root / FROZEN).write_text(
        json.dumps(content | {"made": begun})
    )  # the made-up world has its own clock
    made, told = frozen(run)
    assert made == begun and told.seconds is not None and len(told.jobs) == 1 + 5 * 2
    book = ledger(run)
    assert abs(book.error()) < 0.15 and "its interval held" in book.sentence()
    assert "Planned to take" in write_report(run)[0].markdown.read_text()
    assert book.facts()["plan"]["planned_s"][1] == told.seconds.median


def test_a_trial_that_waited_for_its_lane_is_not_held_against_its_plan(tmp_path, small_tree):
    """Else the report of the last trial of a lane would call its plan far too short."""
    world, _ = learned(tmp_path, small_tree, seed=5)
    config = configuration(small_tree, "second", rounds=2)
    world.play(tmp_path / "runs/second", config, RANKS)
    root = tmp_path / "runs/second"
    (root / "run.json").write_text(json.dumps(json.loads((root / "run.json").read_text()) | {"sweep": "s"}))
    Journal(root).add(Submission(token="t", job="r001-propose", shards=(0,), id="a"))
    freeze_forecast(Run.open(root), MACHINE, plan(config, lambda s: False))
    content = json.loads((root / FROZEN).read_text())
    (root / FROZEN).write_text(json.dumps(content | {"made": world.clock - 50_000.0}))
    book = ledger(Run.open(root))
    assert book.error() is None and "wait for its turn in the sweep" in book.sentence()
    learn_from(Run.open(root))
    assert load_calibration(tmp_path, "local-cpu4", "base").taught[-1].error is None


def test_the_trials_of_a_sweep_teach_once_each_as_far_as_they_are_done(tmp_path, small_tree):
    world = MadeUpWorld(1)
    roots = [tmp_path / "runs" / name for name in ("whole", "half", "damaged", "unmade")]
    for root in roots[:3]:
        world.play(root, configuration(small_tree, root.name, rounds=1), RANKS)
        freeze_forecast(Run.open(root), MACHINE, plan(Run.open(root).config, lambda s: False))
    (roots[1] / "round_001/train/shard_00000.json").unlink()
    (roots[2] / "run.json").write_text("{")
    learn_from_trials(roots)
    (path,) = (tmp_path / "calibration").glob("*/*.json")
    assert [x.run for x in load_calibration(tmp_path, "local-cpu4", "base").taught] == ["whole", "half"]
    assert [len(x.rows) for x in load_calibration(tmp_path, "local-cpu4", "base").taught] == [6, 5]
    before = path.read_bytes()
    learn_from_trials(roots)
    assert path.read_bytes() == before


def test_a_run_without_a_frozen_plan_still_has_its_account(tmp_path, small_tree):
    config = configuration(small_tree, "old", rounds=1)
    MadeUpWorld(1).play(tmp_path / "runs/old", config, RANKS)
    run = Run.open(tmp_path / "runs/old")
    learn_from(run)
    assert not (tmp_path / "calibration").exists(), "nobody knows on what it ran"
    sentence = "No plan was frozen when this run was launched."
    told = write_report(run)[0].markdown.read_text()
    assert ledger(run).sentence() == sentence and sentence in told and "| all |" in told
