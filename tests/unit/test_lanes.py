"""Sweeps on Slurm without one: lanes, sharing, and a launcher that is killed at every sbatch. The Slurm is four small scripts on the PATH."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
from fake_slurm import install

from jobs.chain.cancel import cancel_runs
from jobs.plan.chain import plan
from jobs.plan.cluster import Slurm
from jobs.runs.queue import recorded
from jobs.sweeps import lanes
from jobs.sweeps.launching import Draft
from jobs.sweeps.relay import hand_over
from jobs.sweeps.relay import main as relay_main
from jobs.sweeps.schema import Cap, SweepConfig
from jobs.sweeps.trials import Sweep, save_sweep, sweep_dir, trials_of
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from tests.conftest import SMALL, run_config

FAKES = {
    "sbatch": r"""#!/bin/bash
file=${@: -1} n=$(($(cat $FAKE/n) + 1))
[ "$FAKE_KILL" != before-$n ] || { kill -9 $PPID; exit 1; }
last=$(sed -n "s/^#SBATCH --array=0-\([0-9]*\).*/\1/p" $file)
if [ $(($(wc -l < $FAKE/queue) + ${last:-0} + 1)) -gt ${FAKE_LIMIT:-100000} ]; then echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; exit 1; fi
echo $n > $FAKE/n
comment=$(sed -n "s/^#SBATCH --comment=//p" $file); comment=${comment#\'}; comment=${comment%\'}
sed -n "s/^#SBATCH --dependency=afterany://p" $file | tr : '\n' > $FAKE/after-$n
if [ -n "$last" ]; then for i in $(seq 0 $last); do printf '%s_%s\tPENDING\t9\t\t%s\n' $n $i "$comment"; done >> $FAKE/queue
else printf '%s\tPENDING\t9\t\t%s\n' $n "$comment" >> $FAKE/queue; fi
[ "$FAKE_KILL" != after-$n ] || { kill -9 $PPID; exit 1; }
[ "$1" = --parsable ] && echo $n || echo "Submitted batch job $n"
""",
    "squeue": "#!/bin/bash\ncat $FAKE/queue\n",
    "scontrol": "#!/bin/bash\necho MaxArraySize = 1001\n",
    "scancel": r"""#!/bin/bash
for id in "$@"; do grep -v -P "^$id(_\d+)?\t" $FAKE/queue > $FAKE/rest; mv $FAKE/rest $FAKE/queue; done
""",
}
SCORED = SMALL | {
    "rounds": 1,
    "stages": [*SMALL["stages"], "score"],
    "score": {"shards": 2, "benchmarks": ["math_500"], "max_tokens": 8},
}
CLUSTER = Slurm(data="/data", python="/env/bin/python", gpus_per_node=1)
SWEEP = SweepConfig.model_validate(
    {
        "name": "s",
        "base": "x",
        "space": {"kind": "grid", "over": {"train.objective.kl": [0.0, 0.1]}},
        "replicates": [0, 1],
        "cap": {"kind": "lanes", "lanes": 2},
    }
)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """A Slurm in whose queue jobs stay for ever, and which can kill who submits."""
    folder = install(tmp_path, monkeypatch, FAKES)
    (folder / "n").write_text("0")
    (folder / "queue").touch()
    return folder


def draft(data: Path, sweep: SweepConfig = SWEEP) -> Draft:
    """The sweep's trials over the small run, sharing what is the same for a seed."""
    trials = trials_of(sweep)
    configs = []
    for t in trials:
        tree = json.loads(json.dumps(SCORED)) | {"name": t.run, "seed": t.overrides.get("seed", 0)}
        tree["train"]["objective"]["kl"] = t.overrides.get("train.objective.kl", 0.0)
        configs.append(run_config(tree))
    keys = [
        {f"r001-{s}": f"{s}-{c.seed}" for s in ("propose", "curate", "respond")} | {"r000-score": "score"}
        for c in configs
    ]
    return Draft(data=data, config=sweep, trials=tuple(trials), configs=tuple(configs), keys=tuple(keys))


def created(data: Path) -> list[Run]:
    d = draft(data)
    for trial, config, keys in zip(d.trials, d.configs, d.keys, strict=True):
        if not d.root(trial).exists():
            Run.create(d.root(trial), config, "test", shared=keys, sweep="s")
    sweep_dir(data, "s").mkdir(parents=True, exist_ok=True)
    return [Run.open(d.root(t)) for t in d.trials]


def launch(data: Path, runs: list[Run]) -> list:
    return hand_over(sweep_dir(data, "s"), runs, 2, CLUSTER, data / "code")


def in_queue(fake: Path) -> list[tuple[str, str]]:
    """(id, token) of every job in the queue."""
    rows = [line.split("\t") for line in (fake / "queue").read_text().splitlines()]
    return [(row[0], json.loads(row[4])["token"]) for row in rows]


def at_work(fake: Path, runs: list[Run]) -> Counter[tuple[Path, str, int]]:
    """How many jobs in the queue do each shard, shared ones counted where they lie."""
    found: Counter[tuple[Path, str, int]] = Counter()
    submissions = {s.token: (run, s) for run in runs for s in recorded(run)}
    for id, token in in_queue(fake):
        run, s = submissions[token]
        index = s.shards[int(id.partition("_")[2] or 0)]
        found[run.home(int(s.job[1:4]), s.job[5:]), s.job, index] += 1
    return found


def wanted(runs: list[Run]) -> set[tuple[Path, str, int]]:
    return {
        (run.home(job.round, job.stage), job.name, s.index)
        for run in runs
        for job in plan(run.config, run.done)
        for s in job.missing
    }


def before(fake: Path, id: str) -> set[str]:
    """Every job that a job waits for, through others."""
    own = set((fake / f"after-{id}").read_text().split())
    return own.union(*(before(fake, i) for i in own))


def own_ids(fake: Path, run: Run) -> set[str]:
    tokens = {s.token: s for s in recorded(run) if s.run == run.root.name}
    return {id.partition("_")[0] for id, token in in_queue(fake) if token in tokens}


def check_lanes(fake: Path, runs: list[Run], num_lanes: int = 2) -> None:
    """In each lane, of any two trials one is over before the other begins."""
    for lane in range(num_lanes):
        lot = [own_ids(fake, run) for run in runs[lane::num_lanes]]
        for i, first in enumerate(lot):
            for second in lot[i + 1 :]:
                behind = {id: before(fake, id) for id in first | second}
                one = all(behind[b] & first for b in second)
                other = all(behind[a] & second for a in first)
                assert one or other, "two trials of a lane can run at once"


def test_every_shard_is_submitted_once_shared_ones_by_whoever_is_first_and_lanes_are_chains(fake, tmp_path):
    runs = created(tmp_path / "data")
    new = launch(tmp_path / "data", runs)
    assert at_work(fake, runs) == Counter(wanted(runs))
    check_lanes(fake, runs)
    shared = [s for s in new if s.job in runs[0].shared]
    assert Counter(s.job for s in shared) == {
        "r000-score": 1,
        "r001-propose": 2,
        "r001-curate": 2,
        "r001-respond": 2,
    }
    everywhere = {id.partition("_")[0] for id, _ in in_queue(fake)}
    assert all(set((fake / f"after-{id}").read_text().split()) <= everywhere for id in everywhere), (
        "nobody waits for what is not there"
    )
    assert launch(tmp_path / "data", runs) == [], "a second launch has nothing to do"


def forked(work, kill: str = "") -> bool:
    """Do it in a child; whether it was killed."""
    os.environ["FAKE_KILL"] = kill
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    os.environ["FAKE_KILL"] = ""
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_a_launcher_killed_at_any_sbatch_and_started_again_submits_the_same_set_once(fake, tmp_path, capsys):
    """Before the job is in the queue, and after, when nobody has recorded its id."""
    killed = 0
    points = [(point, when) for point in range(1, 17) for when in ("before", "after")][
        :: 1 if os.environ.get("SERL_SLOW") else 3
    ]
    for point, when in points:
        data = tmp_path / f"{when}-{point}"
        (fake / "n").write_text("0")
        (fake / "queue").write_text("")
        runs = created(data)
        killed += forked(lambda data=data, runs=runs: launch(data, runs), f"{when}-{point}")
        launch(data, runs)
        assert at_work(fake, runs) == Counter(wanted(runs)), f"killed {when} sbatch {point}"
        check_lanes(fake, runs)
    with capsys.disabled():
        print(
            f"\nsweep launcher killed at {killed} of {len(points)} submission points: every shard in the queue once, lanes are chains"
        )
    assert killed == len(points)


def test_a_failed_trial_goes_to_the_end_of_its_lane(fake, tmp_path):
    runs = created(tmp_path / "data")
    launch(tmp_path / "data", runs)
    lost = own_ids(fake, runs[1]) & {
        id
        for id, token in in_queue(fake)
        if token in {s.token for s in recorded(runs[1]) if s.job not in runs[1].shared}
    }
    rows = (fake / "queue").read_text().splitlines(keepends=True)
    (fake / "queue").write_text("".join(r for r in rows if r.split("\t")[0].partition("_")[0] not in lost))
    again = launch(tmp_path / "data", runs)
    assert {s.run for s in again if s.job != "relay"} == {runs[1].root.name}
    assert at_work(fake, runs) == Counter(wanted(runs))
    for id in {s.id for s in again if s.job == "r001-train"}:
        assert before(fake, id) & own_ids(fake, runs[3]), "behind the trial that had come after it"


def test_what_is_done_in_the_store_is_submitted_for_nobody(fake, tmp_path):
    runs = created(tmp_path / "data")
    for shard in runs[0].shards(1, "propose"):
        Attempt(runs[0], shard, id="a", inputs={}).publish_bytes(".jsonl", b"", 0)
    new = launch(tmp_path / "data", runs)
    assert Counter(s.job for s in new)["r001-propose"] == 1, "of the other seed"
    assert all(run.done(s) for run in runs[::2] for s in run.shards(1, "propose"))


def test_cancelling_one_trial_leaves_what_others_wait_for_and_cancelling_all_leaves_nothing(fake, tmp_path):
    runs = created(tmp_path / "data")
    launch(tmp_path / "data", runs)
    everything = wanted(runs)
    assert cancel_runs([runs[0]]) > 0
    own = {w for w in everything if w[0] == runs[0].root}
    assert set(at_work(fake, runs)) == everything - own, "its own jobs only; shared ones stay"
    launch(tmp_path / "data", runs)
    assert at_work(fake, runs) == Counter(everything)
    cancel_runs(runs)
    assert at_work(fake, runs) == Counter()


def test_the_verb_cancels_trials_what_they_share_and_the_relay(fake, tmp_path, monkeypatch, capsys):
    from jobs.sweep import body

    monkeypatch.setenv("FAKE_LIMIT", "9")
    data = tmp_path / "data"
    runs = created(data)
    save_sweep(data, Sweep(name="s", config=SWEEP, trials=draft(data).trials))
    launch(data, runs)
    assert len(in_queue(fake)) == 9
    assert body(["status", "s", "--data", str(data)]).fields["states"] == {"queued": 4}
    assert body(["cancel", "s", "--data", str(data)]).fields == {
        "sweep": "s",
        "stopped_here": False,
        "cancelled_jobs": 9,
    }
    assert in_queue(fake) == []
    assert "cancelled 9 jobs in the queue" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        (Cap(lanes=9), 4),
        (Cap(lanes=2), 2),
        (Cap(tasks=10), 2),
        (Cap(tasks=5), 1),
        (Cap(gpus=15), 3),
        (Cap(gpus=15, tasks=10), 2),
        (Cap(), 4),
        (Cap(tasks=1000), 4),
    ],
)
def test_a_cap_becomes_lanes_by_the_most_that_a_trial_holds_at_once(tmp_path, cap, expected):
    """Its widest job, the answering in three shards, beside a scoring in two: five tasks, each with a GPU."""
    assert lanes.count(cap, draft(tmp_path).configs, CLUSTER) == expected


def test_a_cap_below_one_trial_says_what_to_change(tmp_path):
    with pytest.raises(
        ValueError, match=r"cap: 4 tasks: one trial uses up to 5 at once; raise the cap, or lower array_limit"
    ):
        lanes.count(Cap(tasks=4), draft(tmp_path).configs, CLUSTER)
    narrow = CLUSTER.model_copy(update={"array_limit": 1})
    assert lanes.count(Cap(tasks=4), draft(tmp_path).configs, narrow) == 2


def test_jobs_of_a_lane_end_where_others_hold_themselves(fake, tmp_path):
    import pickle

    runs = created(tmp_path / "data")
    launch(tmp_path / "data", runs)
    pickles = list((tmp_path / "data/runs").glob("*/logs/*/*/*_submitted.pkl"))
    assert pickles
    assert all(pickle.loads(p.read_bytes()).function.hold is False for p in pickles)


def work_off(fake: Path, runs: list[Run]) -> None:
    """Do the jobs that wait for nothing any more."""
    submissions = {s.token: (run, s) for run in runs for s in recorded(run)}
    present = {id.partition("_")[0] for id, _ in in_queue(fake)}
    gone = set()
    for id, token in in_queue(fake):
        if (
            token in submissions
            and not set((fake / f"after-{id.partition('_')[0]}").read_text().split()) & present
        ):
            run, s = submissions[token]
            round, stage = int(s.job[1:4]), s.job[5:]
            shard = run.shards(round, stage)[s.shards[int(id.partition("_")[2] or 0)]]
            assert not run.done(shard), f"{shard} of {run.root.name} is done a second time"
            Attempt(run, shard, id=f"{id}-0", inputs={}).publish_bytes(".jsonl", b"", 0)
            gone.add(id)
    rows = (fake / "queue").read_text().splitlines(keepends=True)
    (fake / "queue").write_text("".join(r for r in rows if r.split("\t")[0] not in gone))


def test_a_sweep_larger_than_the_users_window_goes_on_by_itself_through_its_relay(
    fake, tmp_path, monkeypatch
):
    """30 shards through a window of 9 jobs: the launcher leaves after the first, and the relay submits the rest bit by bit."""
    monkeypatch.setenv("FAKE_LIMIT", "9")
    data = tmp_path / "data"
    runs = created(data)
    (data / "code").mkdir()
    total = len(wanted(runs))
    assert launch(data, runs)[-1].job == "relay"
    passes = 0
    while wanted(runs):
        assert passes < total, "the relay makes no progress"
        assert len(in_queue(fake)) <= 9
        work_off(fake, runs)
        passes += 1
        relay_main(sweep_dir(data, "s"), tmp_path / "note")
    assert 3 < passes < total


def test_the_relay_knows_the_sweep(fake, tmp_path):
    runs = created(tmp_path / "data")
    forked(lambda: launch(tmp_path / "data", runs), "before-5")
    script = next((sweep_dir(tmp_path / "data", "s") / "logs/relay").glob("*/relay.sh")).read_text()
    assert re.search(r"-m jobs\.sweeps\.relay \S*/sweeps/s ", script)
    assert json.loads((sweep_dir(tmp_path / "data", "s") / "launched.json").read_text())["runs"] == [
        r.root.name for r in runs
    ]
