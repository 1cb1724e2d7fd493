"""The process that calls a user's function: `python -m evaluation.outside_worker HANDLE PARENT MEMORY_MB`,
see `outside`.
"""

import ctypes
import importlib
import importlib.util
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

PR_SET_PDEATHSIG = 1


def load(path: str, text: str | None) -> Callable:
    """The function that `path` names; of a file, whose content is `text`."""
    module_name, _, name = path.rpartition(":")
    if text is None:
        return getattr(importlib.import_module(module_name), name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(module_name).name
        file.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None, f"{module_name}: no Python file"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return getattr(module, name)


def serve(pipe: Connection) -> None:
    path, text = pipe.recv()
    try:
        function = load(path, text)
        pipe.send(("ready", None))
    except Exception as e:  # noqa: BLE001 (whatever a user's module does when loaded is told, and ends this)
        pipe.send(("raised", f"{type(e).__name__}: {e}"))
        return
    while True:
        arguments = pipe.recv()
        try:
            pipe.send(("returned", _plain(function(*arguments))))
        except Exception as e:  # noqa: BLE001 (as above)
            pipe.send(("raised", f"{type(e).__name__}: {e}"))


def _plain(value: object) -> object:
    """Arrays as lists; what has no plain form goes as its text, which is then refused and shown."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value if isinstance(value, list | tuple | int | float | str | None) else repr(value)


def main(arguments: Sequence[str]) -> None:
    handle, parent, memory_mb = map(int, arguments)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # a job's signals are for the parent, which ends this process
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))
    try:
        serve(Connection(handle))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent closed its end


if __name__ == "__main__":
    main(sys.argv[1:])
