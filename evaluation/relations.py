"""Is "the same answer" an equivalence? `python -m evaluation.relations --data FOLDER` tries it on real gold
answers and their variants.

It compares every two of a benchmark's distinct golds, each also as it might be written otherwise, both ways,
and lists every pair that is the same one way only, and every triple a = b = c with a different from c. The
known ones are in `known_exceptions.json`.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import command, values
from evaluation.benchmark import load_benchmark, load_problems
from evaluation.values import Value
from evaluation.verifier import Verifier

KNOWN = Path(__file__).parent / "known_exceptions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceptions:
    """What spoils the equivalence among `num_answers` answers: pairs the same one way only, and broken
    triples.
    """

    num_answers: int
    num_same: int
    asymmetric: tuple[tuple[str, str], ...]
    intransitive: tuple[tuple[str, str, str], ...]


def exceptions(answers: Sequence[str], known_values: Sequence[Value]) -> Exceptions:
    """Every asymmetric pair, and for each broken class one triple per two members that differ."""
    n = len(answers)
    same = [[values.same(a, b) for b in known_values] for a in known_values]
    asymmetric = [(answers[i], answers[j]) for i in range(n) for j in range(i) if same[i][j] != same[j][i]]
    neighbours = [frozenset(j for j in range(n) if same[i][j]) for i in range(n)]
    broken = {}
    for middle in range(n):
        for i in neighbours[middle]:
            if neighbours[i] != neighbours[middle]:
                for k in neighbours[middle] - neighbours[i]:
                    broken.setdefault(tuple(sorted((i, k))), middle)
    intransitive = [(answers[i], answers[middle], answers[k]) for (i, k), middle in sorted(broken.items())]
    return Exceptions(
        num_answers=n,
        num_same=sum(map(len, neighbours)) - n,
        asymmetric=tuple(asymmetric),
        intransitive=tuple(intransitive),
    )


def variants(gold: str) -> Iterator[str]:
    """The gold, and other honest ways of writing it."""
    yield gold
    yield f"${gold}$."
    yield rf"\left( {gold} \right)" if gold.replace(".", "").isdigit() else f"{gold} \\text{{ units}}"
    if gold.lstrip("-").isdigit():
        yield f"{gold}.0"
        yield f"x = {gold}"
        yield rf"\frac{{{2 * int(gold)}}}{{2}}" if len(gold) < 400 else gold


def sample(golds: Sequence[str], count: int, seed: int) -> list[str]:
    """Distinct golds, at most `count` of them, with their variants."""
    distinct = sorted(set(golds))
    chosen = random.Random(seed).sample(distinct, min(count, len(distinct)))
    return list(dict.fromkeys(text for gold in chosen for text in variants(gold)))


def read(answers: Sequence[str], verifier: Verifier) -> tuple[list[str], list[Value]]:
    """The answers that can be read within the limit, and what they mean, read here after a worker has shown
    that it is safe.
    """
    from evaluation.equivalence import understand  # here, because it loads the computer algebra

    readable = [
        a
        for a, kind in zip(answers, verifier.kinds(answers), strict=True)
        if kind not in ("unparsed", "undecided", "symbolic")
    ]
    pairs = [(answer, understand(answer)) for answer in readable]
    return [answer for answer, value in pairs if value is not None], [
        value for _, value in pairs if value is not None
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if there is an exception that is not a known one."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.relations", description="Check that equality of answers is an equivalence."
    )
    parser.add_argument(
        "benchmarks", nargs="*", help="which benchmarks; all those with mathematical golds if none is named"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="the data root, or its folder of benchmark files"
    )
    parser.add_argument("--count", type=int, default=250, help="distinct golds of each benchmark")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write all exceptions found as the known ones")
    options = parser.parse_args(arguments)
    folder, names = command.there(options.data, options.benchmarks)
    known = json.loads(KNOWN.read_text())
    found: dict[str, dict[str, list[list[str]]]] = {}
    num_new = 0
    print(
        f"{'benchmark':<18} {'answers':>8} {'same':>8} {'asymmetric':>11} {'intransitive':>13} "
        f"{'not known':>10}"
    )
    with Verifier(limit_s=10.0) as verifier:
        for name in names:
            benchmark = load_benchmark(name)
            if benchmark.kind != "math":
                continue
            golds = [p.gold for p in load_problems(benchmark, [folder]) if p.id not in benchmark.text]
            result = exceptions(*read(sample(golds, options.count, options.seed), verifier))
            found[name] = {
                "asymmetric": list(map(list, result.asymmetric)),
                "intransitive": list(map(list, result.intransitive)),
            }
            new = [
                row
                for kind, rows in found[name].items()
                for row in rows
                if row not in known.get(name, {}).get(kind, [])
            ]
            num_new += len(new)
            counts = (
                f"{result.num_answers:>8} {result.num_same:>8} {len(result.asymmetric):>11} "
                f"{len(result.intransitive):>13} {len(new):>10}"
            )
            print(f"{name:<18} {counts}", flush=True)
            for row in new[:10]:
                print("    " + "   |   ".join(row))
    if options.write:
        KNOWN.write_text(
            json.dumps({name: rows for name, rows in found.items() if any(rows.values())}, indent=1) + "\n"
        )
    return 1 if num_new and not options.write else 0


if __name__ == "__main__":
    command.run(main)
