"""Bring benchmark files into a data root: `python -m evaluation.fetch --data ROOT --from FOLDER` or `--hub`;
then say what is missing.

A file is taken only if it has the rows that its description says, and, unless `--any-version`, the very
bytes: another version of a benchmark gives another score. Files already there are checked the same way.
Nothing is downloaded without `--hub`, whose path is tested with a local dataset folder only: the same loader
reads both, but no real hub was within reach of the tests.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation import command
from evaluation.benchmark import Benchmark, benchmark_names, load_benchmark, read_problems

State = Literal["there", "fetched", "missing", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of a benchmark's file, and why."""

    name: str
    state: State
    note: str


def fetch(
    benchmark: Benchmark,
    folder: Path,
    sources: Sequence[Path],
    *,
    hub: bool = False,
    any_version: bool = False,
) -> Fetched:
    """Make sure that a benchmark's files are in the folder, from the first source that has good ones."""
    files = [file for file in (benchmark.file, benchmark.shots_file) if file]
    try:
        if all((folder / file).is_file() for file in files):
            return Fetched(
                name=benchmark.name,
                state="there",
                note=_checked(benchmark, folder / benchmark.file, any_version),
            )
        for source in sources:
            if all((source / file).is_file() for file in files):
                note = _checked(benchmark, source / benchmark.file, any_version)
                for file in files:
                    _copy(source / file, folder / file)
                return Fetched(name=benchmark.name, state="fetched", note=f"{note}, from {source}")
        if hub and benchmark.hub:
            note = _from_hub(benchmark, folder)
            return Fetched(name=benchmark.name, state="fetched", note=note)
    except (ValueError, OSError) as error:
        return Fetched(name=benchmark.name, state="refused", note=str(error))
    remedy = "; try --hub" if benchmark.hub and not hub else ""
    return Fetched(
        name=benchmark.name,
        state="missing",
        note=f"no {' and '.join(files)}; it comes from {benchmark.source}{remedy}",
    )


def content_sha256(path: Path) -> str:
    """The hash of a file's text, unpacked: the same for .jsonl and .jsonl.gz."""
    digest = hashlib.sha256()
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _checked(benchmark: Benchmark, path: Path, any_version: bool) -> str:
    """What is known of a good file; refuses a bad one."""
    problems = read_problems(benchmark, path)
    if benchmark.sha256 is None:
        return f"{len(problems)} problems"
    if content_sha256(path) == benchmark.sha256:
        return f"{len(problems)} problems, version {benchmark.version}"
    if any_version:
        return f"{len(problems)} problems, another version than {benchmark.version}"
    raise ValueError(
        f"{path}: the rows fit, but it is not version {benchmark.version} of {benchmark.name}; take it all "
        "the same with --any-version"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, part)
    part.replace(target)


def _from_hub(benchmark: Benchmark, folder: Path) -> str:
    """Write a Hugging Face dataset as the benchmark's file; the rows are checked, the bytes cannot be."""
    hub = benchmark.hub
    assert hub is not None, "only benchmarks with a hub entry are looked for there"
    for file, split in ((benchmark.file, hub.split), (benchmark.shots_file, "validation")):
        if file is None:
            continue
        part = folder / f".{os.getpid()}.{file}"
        folder.mkdir(parents=True, exist_ok=True)
        with (
            gzip.open(part, "wt", encoding="utf-8")
            if file.endswith(".gz")
            else part.open("w", encoding="utf-8") as out
        ):
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _hub_rows(benchmark, split))
        try:
            if file == benchmark.file:
                read_problems(benchmark, part)
        except ValueError:
            part.unlink()
            raise
        part.replace(folder / file)
    return (
        f"from the hub's {hub.dataset}{f' at {hub.revision}' if hub.revision else ''}; its bytes differ "
        "from the described version's"
    )


def _hub_rows(benchmark: Benchmark, split: str) -> Iterator[dict[str, object]]:
    from datasets import load_dataset  # here: slow to import, and needed only for the hub

    hub = benchmark.hub
    assert hub is not None, "only benchmarks with a hub entry are looked for there"
    for number, row in enumerate(load_dataset(hub.dataset, hub.config, split=split, revision=hub.revision)):
        named = {hub.rename.get(key, key): value for key, value in row.items()}
        if benchmark.fields.id and benchmark.fields.id not in named:
            named[benchmark.fields.id] = number
        if isinstance(named.get("options"), list):
            named["options"] = [
                option for option in named["options"] if option != "N/A"
            ]  # MMLU-Pro pads its lists with these
        yield named


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and report; 1 if anything is missing or refused."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.fetch", description="Bring benchmark files into a data root, checked."
    )
    parser.add_argument("benchmarks", nargs="*", help="which benchmarks; all if none is named")
    parser.add_argument(
        "--data", type=Path, required=True, help="the data root; files go to its folder benchmarks/"
    )
    parser.add_argument(
        "--from",
        dest="sources",
        type=Path,
        action="append",
        default=[],
        help="a folder to take files from; may be repeated",
    )
    parser.add_argument(
        "--hub",
        action="store_true",
        help="download what no folder has from the Hugging Face hub, where a description names a dataset",
    )
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="take files whose rows fit but whose content differs from the described version",
    )
    options = parser.parse_args(arguments)
    names = options.benchmarks or [name for name in benchmark_names() if load_benchmark(name).num_rows]
    results = []
    for name in names:
        results.append(
            fetch(
                load_benchmark(name),
                options.data / "benchmarks",
                options.sources,
                hub=options.hub,
                any_version=options.any_version,
            )
        )
        print(f"{results[-1].name:<18} {results[-1].state:<8} {results[-1].note}", flush=True)
    short = [result.name for result in results if result.state in ("missing", "refused")]
    print(
        f"{len(results) - len(short)} of {len(results)} benchmarks are there"
        + (f"; not: {', '.join(short)}" if short else "")
    )
    return 1 if short else 0


if __name__ == "__main__":
    command.run(main)
