"""Every real gold, read directly and by the computer algebra: how many the direct reader takes over, and that the values are the same.

`SERL_TEST_DATA=FOLDER python tests/bench/reading.py` prints a line for each benchmark, and both times. Differences that are meant (where
the computer algebra is wrong) are listed here, each with its reason; any other one fails.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluation import algebra, equivalence, values
from evaluation.benchmark import Problem, benchmark_names, load_benchmark, load_problems
from evaluation.expression import direct, expression_value
from evaluation.formula import Refused
from evaluation.notation import latex
from evaluation.points import TooLarge
from evaluation.values import Group, Named, Relation, Scalar, Text, Value

LIMIT_S = 20
MEANT = {
    r"^{\circ}": "a degree sign in a function's argument",
    "E(Y": "the computer algebra takes E before brackets for nothing it knows",
    r"\begin{array}": "matrices lose factors or exhaust the stack",
}
_SURE = values.real("1e-25")
_ROUGH = values.real("1e-12")


def agree(a: Value, b: Value) -> bool:
    """Whether two readings are the same value, far more closely than answers need be; names are free where an equation stands behind them."""
    match a, b:
        case Scalar(), Scalar():
            if a.exact is not None and b.exact is not None:
                return a.exact == b.exact
            pairs = values.aligned(a, b)
            tolerance = _ROUGH if a.rough else _SURE
            return a.rough == b.rough and all(
                x == y or abs(x - y) <= max(tolerance * max(abs(x), abs(y)), 1e-27) for x, y in pairs
            )
        case Text(), Text():
            return a == b
        case Relation(), Relation():
            return a.kind == b.kind and agree(a.residual, b.residual)
        case Named(), Named():
            residuals = [value for value in (a.residual, b.residual) if value is not None]
            return agree(a.value, b.value) and (len(residuals) < 2 or agree(*residuals))
        case Group(), Group():
            return a.kind == b.kind and len(a.items) == len(b.items) and all(map(agree, a.items, b.items))
        case _:
            return False


def keys_of(problems: Sequence[Problem]) -> list[str]:
    """Everything that is read as an expression when these golds are understood; what is outside the small grammar counts as unreadable."""
    asked: dict[str, None] = {}

    def record(key: str) -> Value | None:
        asked[key] = None
        try:
            return direct(latex(key), key)
        except Refused:
            return None

    equivalence.expression_value = record
    try:
        for gold in sorted({problem.gold for problem in problems}):
            try:
                equivalence.understand.__wrapped__(gold)
            except (ArithmeticError, RecursionError, TypeError, ValueError):
                continue
    finally:
        equivalence.expression_value = expression_value
    return list(asked)


class _TooLong(BaseException):
    """The computer algebra's time is over."""


def _alarm(*_: object) -> None:
    raise _TooLong


def library(text: str, key: str) -> Value | str | None:
    """What the computer algebra reads, or what became of it."""
    signal.alarm(LIMIT_S)
    try:
        return algebra.read(text, key)
    except _TooLong:
        return "took too long"
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        return f"failed: {type(error).__name__}"
    finally:
        signal.alarm(0)


def compare(name: str, keys: Sequence[str]) -> int:
    """Print a benchmark's line, and the differences; how many of them are not meant."""
    num_direct = num_meant = 0
    fast = slow = 0.0
    strange = []
    for key in keys:
        text = latex(key)
        start = time.perf_counter()
        try:
            ours = direct(text, key)
        except (Refused, TooLarge):
            continue
        finally:
            fast += time.perf_counter() - start
        num_direct += 1
        start = time.perf_counter()
        theirs = library(text, key)
        slow += time.perf_counter() - start
        if isinstance(theirs, str) or theirs is None or not agree(ours, theirs):
            if any(mark in key for mark in MEANT):
                num_meant += 1
            else:
                strange.append((key, theirs))
    ratio = f"{slow / fast:.0f}x" if fast else "-"
    print(
        f"{name:<18} {len(keys):>6} {num_direct:>7} {fast:>9.2f} {slow:>12.2f} {ratio:>6} {num_meant:>6} {len(strange):>8}",
        flush=True,
    )
    for key, theirs in strange:
        print(f"    {key}   {theirs if isinstance(theirs, str) else ''}")
    return len(strange)


def main() -> int:
    folder = (
        Path(os.environ.get("SERL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
        / "benchmarks"
    )
    if not folder.is_dir():
        print(f"no real benchmark files in {folder}; SERL_TEST_DATA names the folder above them")
        return 0
    signal.signal(signal.SIGALRM, _alarm)
    print(
        f"{'benchmark':<18} {'parts':>6} {'direct':>7} {'direct s':>9} {'algebra s':>12} {'ratio':>6} {'meant':>6} {'strange':>8}"
    )
    num_strange = 0
    for name in sys.argv[1:] or benchmark_names():
        benchmark = load_benchmark(name)
        if benchmark.kind == "math" and (folder / benchmark.file).is_file():
            num_strange += compare(name, keys_of(load_problems(benchmark, [folder])))
    return 1 if num_strange else 0


if __name__ == "__main__":
    sys.exit(main())
