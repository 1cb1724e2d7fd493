"""The pool that reads hostile answers: the same classes whatever the order, and no answer costs more than its
limit.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from evaluation.values import Scalar
from evaluation.verifier import PATIENCE, Verifier

LIMIT_S = 2.0
HANGS = r"\lfloor 10^{10^{9}} \rfloor"
GROUP = [
    "x+1",
    "1+x",
    "5",
    "5.0",
    None,
    "",
    r"\frac{1}{",
    "2x",
    "yes",
    r"\text{Yes}",
    "x=5",
    r"\frac{10}{2}",
    "I do not know",
    "2+3=5",
]


@pytest.fixture(scope="module")
def verifier():
    with Verifier(workers=2, limit_s=LIMIT_S) as pool:
        yield pool


def partition(answers, classes):
    """The classes as sets of answers: what must not depend on the order."""
    return {
        frozenset(a for a, label in zip(answers, classes.labels, strict=True) if label == k)
        for k in range(len(classes.representatives))
    }


def children():
    return set(
        subprocess.run(
            ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False
        ).stdout.split()
    )


def running(pid):
    """Whether a process runs: one that has ended may wait for its parent to take note."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_answers_that_mean_the_same_share_a_class(verifier):
    classes = verifier.classes(GROUP)
    expected = [
        {"x+1", "1+x"},
        {"5", "5.0", "x=5", r"\frac{10}{2}", "2+3=5"},
        {"2x"},
        {"yes", r"\text{Yes}"},
        {"I do not know"},
    ]
    assert partition(GROUP, classes) == set(map(frozenset, expected))
    assert (classes.num_unparsed, classes.num_undecided) == (3, 0)
    assert classes.representatives == tuple(
        sorted(classes.representatives, key=lambda text: (len(text), text))
    )


def test_classes_are_a_function_of_the_answers_and_not_of_their_order(verifier):
    draw = random.Random(1)
    first = verifier.classes(GROUP)
    labels = dict(zip(GROUP, first.labels, strict=True))
    for _ in range(20):
        shuffled = draw.sample(GROUP, len(GROUP))
        again = verifier.classes(shuffled)
        assert again.representatives == first.representatives
        assert list(again.labels) == [labels[answer] for answer in shuffled]


def test_many_groups_come_back_in_their_order(verifier):
    groups = [[f"x+{i}", f"{i}+x", f"{i}"] for i in range(1, 30)]
    for i, classes in enumerate(verifier.classes_many(groups), start=1):
        assert classes.representatives == (str(i), min(f"x+{i}", f"{i}+x"))


def test_plain_numbers_and_words_need_no_worker():
    with Verifier() as pool:
        before = children()
        assert pool.classes(["5", "5.0", "6", "Yes", "yes"]).labels == (0, 0, 1, 2, 2)
        assert pool.judge([("5", "5.00"), ("5", "6"), ("1/2", "0.5"), ("5", None)]) == [
            "correct",
            "wrong",
            "correct",
            "unparsed",
        ]
        assert children() == before


def test_a_hostile_answer_costs_its_limit_once_and_is_undecided(verifier):
    verifier.classes(["x", "y+1"])
    start = time.perf_counter()
    classes = verifier.classes([HANGS, "x+1", HANGS, "1+x", HANGS + " ", "3"])
    assert time.perf_counter() - start < LIMIT_S * PATIENCE + 8
    assert classes.num_undecided == 3
    assert classes.labels == (None, 1, None, 1, None, 0)


@pytest.mark.parametrize(
    "answer",
    [
        "1000000000!", "(" * 60 + "1" + ")" * 60, r"\frac{1}{" * 100 + "2" + "}" * 100, "x^{" * 90 + "2" + "}" * 90, "x" * 900, "(1," * 200,
        r"\lfloor 10^{10^{9}} \rfloor", "1e999999", "'" * 500, r"\left(" * 100, "9!!!!", "\x00\ud800\U0001f600", "__import__('os').abort()",
    ],
)  # fmt: skip
def test_no_answer_breaks_the_pool_or_costs_more_than_its_limit(verifier, answer):
    start = time.perf_counter()
    classes = verifier.classes([answer, "5", "x+y", "y+x"])
    assert time.perf_counter() - start < LIMIT_S * PATIENCE + 8
    assert classes.labels[2] == classes.labels[3] is not None and classes.labels[1] is not None


def test_verdicts_tell_wrong_from_unparsed_from_undecided(verifier):
    pairs = [
        ("x+1", "1+x"),
        ("x+1", "x+2"),
        ("x+1", None),
        ("x+1", r"\frac{"),
        ("x+1", HANGS),
        (r"\frac{", r"\frac{"),
    ]
    assert verifier.judge(pairs) == ["correct", "wrong", "unparsed", "unparsed", "undecided", "correct"]
    assert verifier.judge([]) == [] and verifier.classes([]).labels == ()


def test_an_answer_has_its_limit_whatever_its_company(tmp_path):
    """Easy pairs before a slow one once made its limit longer: 4 slow ones among 26 easy ones took two
    minutes at a second each.
    """
    easy = [(f"x+{i}", f"{i}+x") for i in range(26)]
    slow = [(f"x^{i}", HANGS.replace("10^{9}", f"10^{{1{i}}}")) for i in range(4)]
    with Verifier(limit_s=1.0) as pool:
        pool.judge([("x", "y+1")])
        start, before = time.perf_counter(), time.process_time()
        verdicts = pool.judge(easy + slow)
    assert verdicts == ["correct"] * 26 + ["undecided"] * 4
    assert time.perf_counter() - start < 4 * (PATIENCE + 10) and time.process_time() - before < 5


def test_a_gold_that_earlier_pairs_have_read_is_charged_to_each_pair(monkeypatch):
    """Whether an answer is undecided must not depend on its neighbours having warmed the worker's memory."""
    from evaluation import equivalence, worker

    def slow(answer):
        time_s = 0.06 if answer == "slow" else 0.0
        start = time.process_time()
        while time.process_time() - start < time_s:
            pass
        return Scalar(exact=Fraction(1))

    worker._read.cache_clear()
    monkeypatch.setattr(equivalence, "understand", slow)
    assert list(worker.judge([("slow", "a", 0.0), ("slow", "b", 0.0), ("quick", "c", 0.0)], (), 0.05))[
        1:
    ] == ["undecided", "undecided", "correct"]
    worker._read.cache_clear()


def test_judging_uses_all_workers_and_keeps_the_order(verifier):
    pairs = [(f"x+{i}", f"{i + i % 2}+x") for i in range(200)]
    assert verifier.judge(pairs) == ["wrong" if i % 2 else "correct" for i in range(200)]


def test_a_worker_killed_in_the_midst_of_work_is_replaced_and_nothing_is_lost():
    groups = [
        [f"\\lfloor x^2+{i}x \\rfloor", f"\\lfloor x(x+{i}) \\rfloor", f"\\lceil\\sqrt{{{i}}} x\\rceil"]
        for i in range(2, 42)
    ]
    with Verifier(workers=1) as pool:
        pool.classes(["x", "y+1"])
        results = []
        thread = threading.Thread(target=lambda: results.extend(pool.classes_many(groups)))
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive(), "the work was too short to be killed in its midst"
        os.kill(pool.processes[0].child.pid, signal.SIGKILL)
        thread.join()
    assert len(results) == len(groups)
    assert all(result.num_undecided == 0 and len(result.representatives) == 2 for result in results)


def test_it_works_from_a_thread_with_a_hard_limit(verifier):
    results = []
    thread = threading.Thread(target=lambda: results.append(verifier.classes([HANGS, "x+1", "1+x"])))
    thread.start()
    thread.join(LIMIT_S * PATIENCE + 12)
    assert results[0].labels == (None, 0, 0)


def test_workers_end_with_their_parent_even_in_the_midst_of_work(tmp_path):
    """The parent is killed outright while its worker computes a tower that no Python code can interrupt."""
    root = Path(__file__).resolve().parents[2]
    program = tmp_path / "parent.py"
    program.write_text(
        "import threading, time\nfrom evaluation.verifier import Verifier\n"
        "pool = Verifier(limit_s=1.0)\npool.classes(['x', 'y+1'])\nprint(pool.processes[0].child.pid, flush=True)\n"
        f"pool.processes[0].limit_s = 60\nthreading.Thread(target=pool.classes, args=([{HANGS!r}],)).start()\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    deadline = time.monotonic() + 1
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(worker)


def test_a_closed_or_senseless_verifier_says_so():
    pool = Verifier()
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.classes(["x", "x+1"])
    with pytest.raises(ValueError, match="workers=0"):
        Verifier(workers=0)
