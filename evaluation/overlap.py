"""Held-out hygiene: which training questions also stand in a benchmark, exactly or by a run of thirteen words.

`python -m evaluation.overlap --data FOLDER FILE...` compares JSON-lines files of questions (seeds, a run's generated instructions)
with the benchmarks, and prints how many of each are shared. A question is its words: case, spacing and punctuation do not count.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmark import benchmark_names, load_benchmark, load_problems, rows_of

NUM_WORDS = 13
_WORD = re.compile(r"\\?[a-z]+|\d+(?:\.\d+)?", re.IGNORECASE)
_FIELDS = ("question", "problem", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """How many of `num_ours` questions and of `num_theirs` are in the other set; `examples` are pairs of positions (ours, theirs)."""

    num_ours: int
    num_theirs: int
    exact_ours: int
    exact_theirs: int
    runs_ours: int
    runs_theirs: int
    examples: tuple[tuple[int, int], ...]


def words(question: str) -> tuple[str, ...]:
    """A question's words, numbers and LaTeX commands, in lower case."""
    return tuple(word.lower() for word in _WORD.findall(question))


def overlap(ours: Sequence[str], theirs: Sequence[str], *, num_examples: int = 3) -> Shared:
    """Exact repetitions, and questions that share `NUM_WORDS` words in a row; a shorter question shares only as a whole."""
    their_words = [words(question) for question in theirs]
    whole, runs = _index(their_words, whole=True), _index(their_words, whole=False)
    exact: dict[int, set[int]] = {}
    partial: dict[int, set[int]] = {}
    for i, question in enumerate(map(words, ours)):
        if same := whole.get(hash(question), set()):
            exact[i] = same
        if near := set().union(*(runs.get(run, set()) for run in _runs(question))) | same:
            partial[i] = near
    return Shared(
        num_ours=len(ours),
        num_theirs=len(theirs),
        exact_ours=len(exact),
        exact_theirs=len(set().union(*exact.values())),
        runs_ours=len(partial),
        runs_theirs=len(set().union(*partial.values())),
        examples=tuple((i, min(found)) for i, found in sorted(partial.items())[:num_examples]),
    )


def _index(questions: Sequence[tuple[str, ...]], *, whole: bool) -> dict[int, set[int]]:
    """Positions of questions by the hash of their words, whole or in runs; within one process hashes of texts are stable."""
    found: dict[int, set[int]] = {}
    for i, question in enumerate(questions):
        for key in (hash(question),) if whole else _runs(question):
            found.setdefault(key, set()).add(i)
    return found


def _runs(question: tuple[str, ...]) -> Iterable[int]:
    return (hash(question[i : i + NUM_WORDS]) for i in range(len(question) - NUM_WORDS + 1))


def questions_of(path: Path) -> list[str]:
    """The questions of a JSON-lines file, from the first field of each row that usually holds one."""
    questions = []
    for line, row in rows_of(path):
        field = next((name for name in _FIELDS if isinstance(row.get(name), str)), None)
        if field is None:
            raise ValueError(f"{path}:{line}: none of the fields {', '.join(_FIELDS)} is a text; the row has {', '.join(row)}")
        questions.append(row[field])
    return questions


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what files share with benchmarks; 0 whatever is found."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.overlap", description="Measure the overlap of questions with benchmarks.")
    parser.add_argument("files", type=Path, nargs="+", help="JSON-lines files of questions, plain or .gz")
    parser.add_argument("--data", type=Path, required=True, help="folder with the benchmark files")
    parser.add_argument("--benchmarks", nargs="*", help="which benchmarks; all those whose files are there if none is named")
    options = parser.parse_args(arguments)
    names = options.benchmarks or [n for n in benchmark_names() if (options.data / load_benchmark(n).file).is_file()]
    print(f"{'file':<40} {'benchmark':<18} {'ours':>7} {'theirs':>7} {'same':>6} {'13 words':>9} {'of theirs':>10}")
    for file in options.files:
        ours = questions_of(file)
        for name in names:
            theirs = [problem.question for problem in load_problems(load_benchmark(name), [options.data])]
            found = overlap(ours, theirs)
            counts = f"{found.num_ours:>7} {found.num_theirs:>7} {found.exact_ours:>6} {found.runs_ours:>9} {found.runs_theirs:>10}"
            print(f"{file.name:<40.40} {name:<18} {counts}")
            for i, j in found.examples:
                print(f"    {' '.join(ours[i].split())[:90]!r} and {' '.join(theirs[j].split())[:90]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
