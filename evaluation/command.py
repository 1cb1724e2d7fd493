"""What the verbs of this package share: how a user's mistake is told, exit codes, and finding a run.

Exit codes: 0 done; 1 something was found wrong, or cannot be read or written; 2 the request is wrong, and one
sentence says what to change; 130 stopped by Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.benchmark import benchmark_names, load_benchmark

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130


def run(main: Callable[[], int]) -> None:
    """Run a verb and leave; mistakes of the user are a readable message, never a traceback."""
    try:
        sys.exit(main())
    except BrokenPipeError:
        # The reader of our output has gone: there is nobody to tell.
        sys.stdout = open(os.devnull, "w", encoding="ascii")  # noqa: SIM115
        sys.exit(EXIT_FAILED)
    except ValueError as error:
        _leave(str(error), EXIT_USAGE)
    except OSError as error:
        _leave(f"{error.filename or 'input/output'}: {error.strerror or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _leave("stopped", EXIT_STOPPED)


def _leave(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def run_folder(name: Path) -> Path:
    """A run's folder, given itself or by the run's name, which is looked for as the other verbs do where
    nobody names a data root.
    """
    folder = name if name.is_dir() else Path(os.environ.get("SERL_DATA") or "data") / "runs" / name
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such run; give a run's folder, or its name with $SERL_DATA set to the data root "
            "it was launched with"
        )
    return folder


def at_least_one(text: str) -> int:
    """An argument that counts."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """An argument that limits a time."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of seconds above 0")
    return value


def there(data: Path, wanted: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder of benchmark files, given itself or by its data root, and the benchmarks that are asked for:
    all that are there by default.
    """
    folder = data / "benchmarks" if (data / "benchmarks").is_dir() else data
    names = list(wanted) or [
        name for name in benchmark_names() if (folder / load_benchmark(name).file).is_file()
    ]
    if not names:
        raise ValueError(
            f"{folder}: no benchmark file is there; bring some with `python -m evaluation.fetch --data "
            "ROOT --from FOLDER`"
        )
    return folder, names
