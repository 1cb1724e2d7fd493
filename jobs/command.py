"""What the verbs share: their arguments, and how a user's mistake is told."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from jobs.cluster import load_cluster
from jobs.local import ShardFailed, Stopped
from serl.rundir import RunError

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=f"python -m jobs.{verb}", description=description)
    p.add_argument("--cluster", default="local", help="a file of configs/clusters, by name or path (default: local)")
    p.add_argument("--data", type=Path, help="data root (default: $SERL_DATA, then the cluster file's)")
    return p


def data_root(args: argparse.Namespace) -> Path:
    return (args.data or Path(os.environ.get("SERL_DATA") or load_cluster(args.cluster).data)).expanduser().resolve()


def main(body: Callable[[Sequence[str]], int]) -> None:
    """Run a verb; mistakes of the user are one readable message, never a traceback."""
    try:
        code = body(sys.argv[1:])
    except BrokenPipeError:
        code = EXIT_FAILED  # the reader of our output has gone: there is nobody to tell
    except (ValueError, RunError) as e:
        _complain(str(e))
        code = EXIT_USAGE
    except OSError as e:
        _complain(f"{e.filename or 'input/output'}: {e.strerror or e}")
        code = EXIT_FAILED
    except ShardFailed as e:
        _complain(str(e))
        code = EXIT_FAILED
    except (Stopped, KeyboardInterrupt):
        _complain("stopped; nothing is lost: `python -m jobs.resume RUN` goes on from here")
        code = EXIT_STOPPED
    sys.exit(code)


def _complain(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, style="red", markup=False, highlight=False)
