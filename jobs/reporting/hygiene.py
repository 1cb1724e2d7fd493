"""Held-out hygiene of a run: what seeds, labelled problems and generated instructions share with the
benchmarks that it is scored on.

Each benchmark's file is read once, and what was found is kept in the run's `overlap.json` under the digests
of both sides, so that a report that is written again costs nothing. What cannot be read is a sentence, never
the end of a report.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.benchmark import load_benchmark, load_problems
from evaluation.overlap import Shared, overlaps
from serl.run.files import sha256, write_atomic
from serl.run.rundir import Run
from serl.stages import exams
from serl.stages.sources import GeneratedProblems, HubProblems, Problems
from serl.text import problems

CACHE = "overlap.json"
NUM_EXAMPLES = 3
MAX_STORED = 2_000  # characters of an example


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A set of the run's questions beside a benchmark; `examples` are pairs of texts, ours and the
    benchmark's.
    """

    name: str
    benchmark: str
    shared: Shared
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hygiene:
    """Every overlap that could be measured, and sentences about what could not."""

    overlaps: tuple[Overlap, ...] = ()
    unread: tuple[str, ...] = ()


def measure(
    run: Run, corpus: Path, sources: Mapping[str, Problems], sets: Mapping[str, Sequence[str]]
) -> Hygiene:
    """Compare the problems of `sources` and the questions of `sets` with each benchmark that the run asks."""
    reported, chosen_by = exams.benchmarks(run.config)
    benchmarks = tuple(dict.fromkeys(reported + chosen_by))
    unread: list[str] = []
    ours = {
        name: read
        for name, source in sources.items()
        if benchmarks and (read := _questions(run, corpus, name, source, unread))
    } | dict(sets)
    digests = {name: _digest(questions) for name, questions in ours.items()}
    known = _cached(run.root / CACHE)
    kept: dict[str, dict] = {}
    found: list[Overlap] = []
    for benchmark in benchmarks if ours else ():
        try:
            path, theirs_digest = _file(run, corpus, benchmark)
            keys = {name: f"{digest} {benchmark} {theirs_digest}" for name, digest in digests.items()}
            if missing := {name: ours[name] for name, key in keys.items() if key not in known}:
                known |= {keys[name]: row for name, row in _compare(benchmark, path, missing).items()}
        except (ValueError, OSError) as e:
            unread.append(f"{benchmark}: {e}")
            continue
        kept |= {key: known[key] for key in keys.values()}
        found += [_overlap(name, benchmark, known[key]) for name, key in keys.items()]
    if kept.keys() != _cached(run.root / CACHE).keys():
        write_atomic(run.root / CACHE, json.dumps(kept, indent=1).encode())
    return Hygiene(
        overlaps=tuple(sorted(found, key=lambda o: list(ours).index(o.name))), unread=tuple(unread)
    )


def _questions(run: Run, corpus: Path, name: str, source: Problems, unread: list[str]) -> list[str]:
    """A report asks no hub: data that may have to be downloaded is compared by `evaluation.overlap`."""
    if isinstance(source, HubProblems):
        unread.append(
            f"{name}: a Hugging Face dataset; save its questions as JSON lines and compare them with "
            "`python -m evaluation.overlap`"
        )
        return []
    if isinstance(source, GeneratedProblems) and not corpus.is_dir():
        return []
    try:
        return [p.question for p in problems.load_problems(source, data_root=run.data_root, corpus=corpus)]
    except ValueError as e:
        unread.append(f"{name}: {e}")
        return []


def _file(run: Run, corpus: Path, benchmark: str) -> tuple[Path, str]:
    """A benchmark's file where an examination would find it, and its digest."""
    name = load_benchmark(benchmark).file
    folders = (corpus, run.data_root / "benchmarks")
    path = next((folder / name for folder in folders if (folder / name).is_file()), folders[-1] / name)
    return path, sha256(path)[:16]


def _compare(benchmark: str, path: Path, ours: Mapping[str, Sequence[str]]) -> dict[str, dict]:
    theirs = [p.question for p in load_problems(load_benchmark(benchmark), [path.parent])]
    rows = {}
    for name, shared in overlaps(ours, theirs, num_examples=NUM_EXAMPLES).items():
        texts = [(ours[name][i][:MAX_STORED], theirs[j][:MAX_STORED]) for i, j in shared.examples]
        rows[name] = {"shared": asdict(shared), "examples": texts}
    return rows


def _overlap(name: str, benchmark: str, row: dict) -> Overlap:
    shared = Shared(**row["shared"] | {"examples": tuple((i, j) for i, j in row["shared"]["examples"])})
    examples = tuple((ours, theirs) for ours, theirs in row["examples"])
    return Overlap(name=name, benchmark=benchmark, shared=shared, examples=examples)


def _cached(path: Path) -> dict[str, dict]:
    """A cache that is missing or damaged is made again."""
    try:
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    except (FileNotFoundError, ValueError):
        return {}


def _digest(questions: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest()[:16]
