"""The simulator against what can be known without it: exact schedules, renewal theory, Young's and Daly's checkpoint interval."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.costs.simulate import Interval, JobLoad, TaskLoad, World, daly_interval_s, simulate, study


def job(
    name: str = "job",
    num: int = 1,
    after: tuple[str, ...] = (),
    width: int = 1,
    straggle: float = 0.0,
    **load: float,
) -> JobLoad:
    settings = {"start_s": 0.0, "unit_s": 10.0, "units": 1.0} | load
    tasks = (TaskLoad(**settings),) * num
    return JobLoad(name=name, tasks=tasks, after=after, width=width, straggle=straggle)


def play(jobs: list[JobLoad], seed: int = 0, **world: float):
    return simulate(jobs, World(**world), random.Random(seed))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_equal_tasks_take_as_many_waves_as_do_not_fit_at_once(num, slots, limit):
    outcome = play([job(num=num, start_s=2.0)], slots=slots, array_limit=limit)
    assert outcome.makespan_s == pytest.approx(12.0 * math.ceil(num / min(slots, limit)))
    assert (outcome.used_s, outcome.taken) == (pytest.approx(12.0 * num), 0)


def test_a_chain_takes_the_sum_and_branches_take_the_longest():
    chain = [
        job("a"),
        job("b", after=("a",), unit_s=5.0),
        job("c", after=("a",), unit_s=7.0),
        job("d", after=("b", "c")),
    ]
    assert play(chain).makespan_s == 27.0
    assert play(chain, slots=1).makespan_s == 32.0


def test_a_job_waits_only_for_jobs_that_are_still_to_run():
    assert play([job("b", after=("done before",))]).makespan_s == 10.0


def test_a_stage_without_tasks_ends_when_it_may_begin():
    assert (
        play([job("a"), JobLoad(name="b", tasks=(), after=("a",)), job("c", after=("b",))]).makespan_s == 20.0
    )


def test_a_wide_task_waits_until_all_its_slots_are_free():
    outcome = play([job("narrow", unit_s=3.0), job("wide", width=2)], slots=2)
    assert outcome.ended["wide"] == 13.0
    assert outcome.used_s == 3.0 + 20.0


def test_what_can_never_fit_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="train: one task needs 4 slots, and there are 2"):
        play([job("train", width=4)], slots=2)


def test_saves_are_paid_between_units_and_not_after_the_last():
    assert play([job(units=10.0, unit_s=1.0, keep_every=5, save_s=0.5)]).makespan_s == 10.5
    assert play([job(units=3.5, unit_s=2.0, save_s=1.0, end_s=4.0)]).makespan_s == 7.0 + 3.0 + 4.0


def test_the_same_seed_tells_the_same_history():
    world = {"slots": 3, "preempt_per_hour": 60.0, "doubt": 0.2}
    jobs = [job(num=7, units=4.0, straggle=0.3), job("b", after=("job",), width=2)]
    assert play(jobs, seed=5, **world) == play(jobs, seed=5, **world)
    assert play(jobs, seed=6, **world) != play(jobs, seed=5, **world)


# ------------------------------------------------------------------------------------------------ preemption
def mean_used_s(load: TaskLoad, per_hour: float, times: int = 4000) -> tuple[float, float]:
    """Mean and standard error of what the attempts of a task use together."""
    used = [
        simulate(
            [JobLoad(name="t", tasks=(load,))], World(preempt_per_hour=per_hour), random.Random(i)
        ).used_s
        for i in range(times)
    ]
    mean = sum(used) / times
    return mean, math.sqrt(sum((u - mean) ** 2 for u in used) / times) / math.sqrt(times)


@pytest.mark.parametrize(
    "load",
    [
        TaskLoad(start_s=0.0, unit_s=60.0, units=1.0),
        TaskLoad(start_s=30.0, unit_s=60.0, units=5.0),
        TaskLoad(start_s=30.0, unit_s=10.0, units=47.5, keep_every=10, save_s=8.0, end_s=12.0),
    ],
)
def test_poisson_preemption_costs_what_renewal_theory_says(load):
    mean, error = mean_used_s(load, per_hour=40.0)
    assert abs(mean - load.expected_s(40.0)) < 4 * error
    assert load.expected_s(1e-9) == pytest.approx(load.seconds)


def test_lost_work_of_a_stretch_follows_the_poisson_formula():
    """Given a failure within c, the mean time to it is 1/l - c e^(-lc) / (1 - e^(-lc)); failures before success: e^(lc) - 1."""
    c, per_hour = 120.0, 30.0
    rate = per_hour / 3600
    load = TaskLoad(start_s=0.0, unit_s=c, units=1.0)
    lost = [
        simulate(
            [JobLoad(name="t", tasks=(load,))], World(preempt_per_hour=per_hour), random.Random(i)
        ).used_s
        - c
        for i in range(6000)
    ]
    survive = math.exp(-rate * c)
    assert sum(lost) / len(lost) == pytest.approx(
        (1 / survive - 1) * (1 / rate - c * survive / (1 - survive)), rel=0.1
    )


def test_the_checkpoint_interval_that_costs_least_is_youngs():
    save_s, per_hour, step_s = 20.0, 2.0, 5.0
    intervals = [4, 8, 16, 32, 54, 64, 96, 128, 256]
    cost = {
        k: TaskLoad(start_s=60.0, unit_s=step_s, units=2000, keep_every=k, save_s=save_s).expected_s(per_hour)
        for k in intervals
    }
    best = min(cost, key=cost.get)
    assert daly_interval_s(save_s, per_hour) / step_s == pytest.approx(54, abs=0.5)
    assert best == 54
    simulated = {
        k: mean_used_s(
            TaskLoad(start_s=60.0, unit_s=step_s, units=2000, keep_every=k, save_s=save_s), per_hour, 400
        )[0]
        for k in (4, 54, 256)
    }
    assert min(simulated, key=simulated.get) == 54


def test_preemption_hits_a_wide_task_on_each_of_its_nodes():
    wide = job(units=30.0, width=4)
    used = [o.used_s for o in study([wide], World(preempt_per_hour=6.0), histories=3000)]
    assert sum(used) / len(used) / 4 == pytest.approx(wide.tasks[0].expected_s(24.0), rel=0.02)
    assert wide.expected_s(6.0) == wide.tasks[0].expected_s(24.0)


def test_a_requeue_waits():
    fast, slow = (
        study([job(units=30.0)], World(preempt_per_hour=30.0, requeue_s=r), histories=400)
        for r in (0.0, 100.0)
    )
    assert all(b.makespan_s - a.makespan_s == pytest.approx(100.0 * a.taken) for a, b in zip(fast, slow))
    assert any(a.taken for a in fast)


def test_a_wait_in_the_queue_delays_a_job_and_uses_nothing():
    waits = JobLoad(name="waits", tasks=(TaskLoad(start_s=0.0, unit_s=10.0, units=1.0),), wait_s=30.0)
    outcome = play([waits, job("other", unit_s=25.0)], slots=2)
    assert (outcome.makespan_s, outcome.used_s) == (40.0, 35.0)


def test_a_rate_at_which_nothing_would_ever_be_done_is_refused():
    long = job(unit_s=3600.0)
    with pytest.raises(
        ValueError,
        match=r"job: a node taken away 20 times an hour.*at most 6\.91 times can be borne: keep work more often",
    ):
        play([long], preempt_per_hour=20.0)


def test_stragglers_lengthen_a_wide_stage_more_than_a_narrow_one():
    one, many = (
        Interval.of([o.makespan_s for o in study([job(num=n, straggle=0.4)], World(), histories=400)]).median
        for n in (1, 64)
    )
    assert one == pytest.approx(10.0, rel=0.1)
    assert many > 2 * one


def test_a_world_without_chance_needs_one_history():
    assert len(study([job()], World(slots=1))) == 1
    assert len(study([job(num=1000, straggle=0.1)], World(), histories=400)) == 200


def test_an_interval_has_the_ends_between_which_nine_of_ten_lie():
    seen = Interval.of([float(n) for n in range(101)])
    assert (seen.low, seen.median, seen.high) == (5.0, 50.0, 95.0) and 5.0 in seen and 96.0 not in seen


def test_ten_thousand_tasks_are_played_quickly():
    stages = [job(f"s{i}", num=1000, after=(f"s{i - 1}",), units=8.0, straggle=0.2) for i in range(10)]
    outcome = play(stages, slots=64, preempt_per_hour=5.0)
    assert outcome.taken > 100 and len(outcome.ended) == 10
