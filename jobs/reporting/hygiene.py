"""Held-out hygiene of a run: what seeds, labelled problems and generated instructions share with the
benchmarks that it is scored on. Counted anew with each report; what cannot be read is a sentence, never the
end of one. `python -m evaluation.overlap` shows the questions themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.benchmark import load_benchmark, load_problems
from evaluation.overlap import Shared, overlaps
from serl.run.rundir import Run
from serl.stages import exams
from serl.stages.show import show_of
from serl.stages.sources import GeneratedProblems, HubProblems, Problems
from serl.stages.work import corpus_dir
from serl.text import problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Hygiene:
    """What each set of questions shares with each benchmark, by both names; sentences about what could not be
    compared.
    """

    overlaps: dict[tuple[str, str], Shared]
    unread: tuple[str, ...]


def measure(run: Run, instructions: Sequence[str]) -> Hygiene:
    """The instructions and the problems that the run's configuration names, beside every benchmark asked."""
    found: dict[str, dict[str, Shared]] = {}
    unread: list[str] = []
    ours = dict(_questions(run, unread)) | ({"instructions": instructions} if instructions else {})
    reported, chosen_by = exams.benchmarks(run.config)
    for benchmark in dict.fromkeys(reported + chosen_by) if ours else ():
        try:
            asked = load_problems(load_benchmark(benchmark), [corpus_dir(run), run.data_root / "benchmarks"])
        except (ValueError, OSError) as e:
            unread.append(f"{benchmark}: {e}")
        else:
            found[benchmark] = overlaps(ours, [p.question for p in asked])
    shared = {(name, benchmark): found[benchmark][name] for name in ours for benchmark in found}
    return Hygiene(overlaps=shared, unread=tuple(unread))


def _questions(run: Run, unread: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Of every source by its name. A report asks no hub for data that may have to be downloaded."""
    sources: dict[str, Problems] = {"seeds": run.config.seeds} if run.config.seeds else {}
    for stage in run.config.stages:
        sources |= show_of(stage.kind).sources(stage.section)
    corpus = corpus_dir(run)
    for name, source in sources.items():
        if isinstance(source, HubProblems):
            again = "save its questions as JSON lines and compare them with `python -m evaluation.overlap`"
            unread.append(f"{name}: a Hugging Face dataset; {again}")
        elif corpus.is_dir() or not isinstance(source, GeneratedProblems):
            try:
                read = problems.load_problems(source, data_root=run.data_root, corpus=corpus)
                yield name, [p.question for p in read]
            except ValueError as e:
                unread.append(f"{name}: {e}")
