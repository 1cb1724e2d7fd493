"""What the verbs share: their arguments, how a user's mistake is told, exit codes, their answers as JSON.

A verb is a module with `body(argv) -> int`, an `Answer` where it has fields, run by `main(body)`. Exit codes,
of all verbs:

    0    done; what was asked for is there
    1    something failed: a stage (the end of its log is shown), a check of the doctor, reading or writing
    2    the request is wrong: an argument, a configuration, a run that is not there; the message says how
    130  stopped by Ctrl-C or jobs.cancel, at safe points; nothing that was committed is lost

With --json a verb prints one JSON object to stdout, whatever happens, and all that is meant for people to
stderr: `verb`, `exit` (the exit code), `error` (the message, where there is one), and the fields that the
verb's own docstring lists. A figure that is no number is null.
"""

import argparse
import contextlib
import errno
import json
import math
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console

from jobs.chain.local import ShardFailed, Stopped
from jobs.plan.cluster import KINDS, load_cluster
from jobs.runs.find import as_given
from jobs.shell.screen import say
from jobs.shell.visible import visible_lines
from serl.config.files import ConfigError, read
from serl.config.read import load_run as load_run_file
from serl.config.run import RunConfig
from serl.run.rundir import RunError
from serl.safety.checkup import Unsafe

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130
EXIT_CODES = (
    f"exit codes: 0 done, {EXIT_FAILED} something failed, {EXIT_USAGE} the request is wrong, "
    f"{EXIT_STOPPED} stopped at a safe point"
)
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_REMEDY = (
    "; free some (`python -m jobs.gc` lists what can go), then `python -m jobs.resume RUN` goes on: nothing "
    "that was committed is lost"
)
NEXT_TO_NOTHING = 2**24  # bytes


class Answer(int):
    """An exit code that carries what the verb found or did: its fields of the JSON object."""

    fields: Mapping[str, object]

    def __new__(cls, *, fields: Mapping[str, object], code: int = 0) -> Self:
        answer = super().__new__(cls, code)
        answer.fields = fields
        return answer


def parser(verb: str, description: str, *, cluster: str | None = "local") -> argparse.ArgumentParser:
    """What every verb takes. Where `cluster` is None, no --cluster means where the run was launched."""
    p = argparse.ArgumentParser(
        prog=f"python -m jobs.{verb}", description=description, epilog=EXIT_CODES, allow_abbrev=False
    )
    where = f"a file of configs/clusters, by name or path (default: {cluster or 'where it was launched'})"
    p.add_argument("--cluster", default=cluster, help=where)
    p.add_argument("--data", type=Path, help="data root (default: $SERL_DATA, then the cluster file's)")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout; the rest goes to stderr")
    return p


def data_root(args: argparse.Namespace) -> Path:
    given = args.data or os.environ.get("SERL_DATA")
    root = Path(given or load_cluster("local" if args.cluster is None else args.cluster).data)
    return as_given(root.expanduser())


def load_run(path: Path, overrides: Sequence[str]) -> RunConfig:
    """The run that a file and overrides describe; a file of another kind is told by its own name."""
    source = read(path)
    instead = "name a run file, like configs/quickstart.yaml"
    if "space" in source.tree:
        raise ConfigError(f"{path}: this is a sweep file; give it to `python -m jobs.sweep`, or {instead}")
    if source.tree.get("kind") in KINDS:
        raise ConfigError(f"{path}: this is a cluster file; give it to --cluster, and {instead}")
    return load_run_file(path, overrides)


def main(body: Callable[[Sequence[str]], int]) -> None:
    """Run a verb; mistakes of the user are one readable message, never a traceback."""
    argv = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None where a shell has closed it
            stream.reconfigure(errors="replace")  # a terminal that lacks a character must not end a verb
    if "--json" not in argv:
        sys.exit(int(_attempt(body, argv)))
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer = _attempt(body, argv)
        except Exception as e:  # noqa: BLE001  (ours: people get its traceback, and a program its object)
            traceback.print_exc()
            answer = Answer(code=EXIT_FAILED, fields={"error": f"{type(e).__name__}: {e}"})
    told = json.dumps(_strict({"verb": Path(sys.argv[0]).stem, "exit": int(answer), **answer.fields}))
    said = _attempt(lambda _: print(told, flush=True) or 0, argv)
    sys.exit(int(said) or int(answer))


def _strict(value: object) -> object:
    """JSON has no NaN and no infinity, though Python writes them."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {k: _strict(v) for k, v in value.items()}
        case list() | tuple():
            return [_strict(v) for v in value]
        case _:
            return value


def _attempt(body: Callable[[Sequence[str]], int], argv: Sequence[str]) -> Answer:
    try:
        answer = body(argv)
        return answer if isinstance(answer, Answer) else Answer(code=answer, fields={})
    except SystemExit as e:  # argparse has said what is wrong, or has shown its help
        code = e.code if isinstance(e.code, int) else EXIT_FAILED
        return Answer(code=code, fields={"error": "see --help for the arguments"} if code else {})
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="ascii")  # noqa: SIM115  (there is nobody to tell)
        return Answer(code=EXIT_FAILED, fields={})
    except (ValueError, RunError) as e:
        return _complain(str(e), EXIT_USAGE)
    except OSError as e:
        where = e.filename or _full_folders() if e.errno in FULL else e.filename
        more = FULL_REMEDY if e.errno in FULL else ""
        return _complain(f"{where or 'input/output'}: {e.strerror or e}{more}", EXIT_FAILED)
    except (ShardFailed, Unsafe) as e:
        return _complain(str(e), EXIT_FAILED)
    except (Stopped, KeyboardInterrupt):
        goes_on = "stopped; nothing is lost: `python -m jobs.resume RUN` goes on from here"
        return _complain(goes_on, EXIT_STOPPED)


def _full_folders() -> str:
    """Where there is next to no room, of the places that are written to: a write that fails names none."""
    usual = [os.environ.get("SERL_DATA"), "data", ".", tempfile.gettempdir()]
    asked = [a for a in sys.argv if Path(a).is_absolute()]
    places = [as_given(Path(p)) for p in (*usual, *asked) if p]
    full = [str(p) for p in places if p.is_dir() and shutil.disk_usage(p).free < NEXT_TO_NOTHING]
    return ", ".join(dict.fromkeys(full))


def _complain(message: str, code: int) -> Answer:
    say(visible_lines(message), style="red", console=Console(stderr=True))
    return Answer(code=code, fields={"error": message})
