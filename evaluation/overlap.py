"""Held-out hygiene: which training questions also stand in a benchmark, exactly or by a run of thirteen
words.

`python -m evaluation.overlap --data FOLDER FILE...` compares JSON-lines files of questions (seeds, a run's
generated instructions) with the benchmarks, and prints how many of each are shared. A question is its words,
numbers and operators: case, spacing and punctuation do not count.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import command
from evaluation.benchmark import Benchmark, load_benchmark, load_problems, rows_of

NUM_WORDS = 13
_WORD = re.compile(r"\\?[a-z]+|\d+(?:\.\d+)?|[+*/^=<>]|-(?![a-z]{2})", re.IGNORECASE)
_FIELDS = ("question", "problem", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """How many of `num_ours` questions and of `num_theirs` are in the other set; `examples` are pairs of
    positions (ours, theirs), the same ones first.
    """

    num_ours: int
    num_theirs: int
    exact_ours: int
    exact_theirs: int
    runs_ours: int
    runs_theirs: int
    examples: tuple[tuple[int, int], ...]


def words(question: str) -> tuple[str, ...]:
    """A question's words, numbers, operators and LaTeX commands, in lower case; a hyphen before a word is
    none of them.
    """
    return tuple(word.lower() for word in _WORD.findall(question))


def overlap(ours: Sequence[str], theirs: Sequence[str], *, num_examples: int = 3) -> Shared:
    """Exact repetitions, and questions that share `NUM_WORDS` words in a row; a shorter question shares only
    as a whole.
    """
    return overlaps({"": ours}, theirs, num_examples=num_examples)[""]


def overlaps(
    sets: Mapping[str, Sequence[str]], theirs: Sequence[str], *, num_examples: int = 3
) -> dict[str, Shared]:
    """The overlap of each set with `theirs`, which is read once; memory holds hashes of ours, and of theirs
    only those that are shared.
    """
    our_words = {name: [words(question) for question in questions] for name, questions in sets.items()}
    wanted_whole = {hash(question) for questions in our_words.values() for question in questions}
    wanted_runs = {
        run for questions in our_words.values() for question in questions for run in _runs(question)
    }
    whole: dict[int, set[int]] = {}
    runs: dict[int, set[int]] = {}
    for j, question in enumerate(map(words, theirs)):
        if hash(question) in wanted_whole:
            whole.setdefault(hash(question), set()).add(j)
        for run in wanted_runs.intersection(_runs(question)):
            runs.setdefault(run, set()).add(j)
    return {
        name: _shared(questions, len(theirs), whole, runs, num_examples)
        for name, questions in our_words.items()
    }


def _shared(
    ours: Sequence[tuple[str, ...]],
    num_theirs: int,
    whole: Mapping[int, set[int]],
    runs: Mapping[int, set[int]],
    num_examples: int,
) -> Shared:
    exact: dict[int, set[int]] = {}
    partial: dict[int, set[int]] = {}
    for i, question in enumerate(ours):
        if same := whole.get(hash(question), set()):
            exact[i] = same
        if near := set().union(*(runs[run] for run in _runs(question) if run in runs)) | same:
            partial[i] = near
    return Shared(
        num_ours=len(ours),
        num_theirs=num_theirs,
        exact_ours=len(exact),
        exact_theirs=len(set().union(*exact.values())),
        runs_ours=len(partial),
        runs_theirs=len(set().union(*partial.values())),
        examples=tuple(
            (i, min(exact.get(i, partial[i])))
            for i in sorted(partial, key=lambda i: (i not in exact, i))[:num_examples]
        ),
    )


def _runs(question: tuple[str, ...]) -> Iterable[int]:
    """Hashes of every run of words; within one process hashes of texts are stable."""
    return (hash(question[i : i + NUM_WORDS]) for i in range(len(question) - NUM_WORDS + 1))


def questions_of(path: Path) -> list[str]:
    """The questions of a JSON-lines file, from the first field of each row that usually holds one."""
    questions = []
    for line, row in rows_of(path):
        field = next((name for name in _FIELDS if isinstance(row.get(name), str)), None)
        if field is None:
            raise ValueError(
                f"{path}:{line}: none of the fields {', '.join(_FIELDS)} is a text; the row has "
                f"{', '.join(row)}"
            )
        questions.append(row[field])
    return questions


def own_benchmarks(run: Path) -> dict[str, Benchmark]:
    """What a run describes itself, by name (`own` in a section of its `run.json`)."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    phases = told.get("config", told).get("phases", {}).values()
    sections = (section for phase in phases for section in phase.values() if isinstance(section, dict))
    own = [section["own"] for section in sections if isinstance(section.get("own"), dict)]
    return {n: Benchmark.model_validate_json(json.dumps(b)) for named in own for n, b in named.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what files share with benchmarks; 0 whatever is found."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.overlap", description="Measure the overlap of questions with benchmarks."
    )
    parser.add_argument("files", type=Path, nargs="+", help="JSON-lines files of questions, plain or .gz")
    parser.add_argument(
        "--data", type=Path, required=True, help="the data root, or its folder of benchmark files"
    )
    parser.add_argument(
        "--benchmarks", nargs="*", help="which benchmarks; all those whose files are there if none is named"
    )
    parser.add_argument(
        "--run", type=Path, help="a run's folder: the benchmarks that it describes itself are compared, too"
    )
    options = parser.parse_args(arguments)
    folder, names = command.there(options.data, options.benchmarks or ())
    own = own_benchmarks(options.run) if options.run else {}
    print(
        f"{'file':<40} {'benchmark':<18} {'ours':>7} {'theirs':>7} {'same':>6} {'13 words':>9} "
        f"{'of theirs':>10}"
    )
    for file in options.files:
        ours = questions_of(file)
        for name in (*names, *own):
            benchmark = own.get(name) or load_benchmark(name)
            theirs = [problem.question for problem in load_problems(benchmark, [folder])]
            found = overlap(ours, theirs)
            counts = (
                f"{found.num_ours:>7} {found.num_theirs:>7} {found.exact_ours:>6} {found.runs_ours:>9} "
                f"{found.runs_theirs:>10}"
            )
            print(f"{file.name:<40.40} {name:<18} {counts}")
            for i, j in found.examples:
                print(f"    {' '.join(ours[i].split())[:90]!r} and {' '.join(theirs[j].split())[:90]!r}")
    return 0


if __name__ == "__main__":
    command.run(main)
