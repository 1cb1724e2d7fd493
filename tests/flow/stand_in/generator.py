"""Stands in for `serl.engines.generator` in a run's own copy of the code: answers are a pure function of the prompt and the seed, and take time.

Every call is noted in $SERL_TEST_CALLS when it starts and when it ends, so that a test can tell what was computed twice or lost.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from serl.config.engine import Engine, Sampling
from serl.records import Completion

LOAD_S = float(os.environ.get("SERL_TEST_LOAD_S", "0.2"))
CALL_S = float(os.environ.get("SERL_TEST_CALL_S", "0.3"))
IMPORT_S = float(os.environ.get("SERL_TEST_IMPORT_S", "0"))
SLOW = os.environ.get("SERL_TEST_SLOW")  # a file; whoever makes it is slow for life


class Generator:
    def __init__(self, policy: Path, engine: Engine, *, device: str):
        from deterministic import Engine as Instant  # imports the stages, which import this module

        self._instant = Instant(policy, engine, device=device)
        self.max_model_len, self.tokenizer = self._instant.max_model_len, self._instant.tokenizer
        self.sampled = 0
        time.sleep(LOAD_S)
        self.call_s = 10 * CALL_S if SLOW and _first(SLOW) else CALL_S

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, num_samples: int, seeds: Sequence[int]
    ) -> list[tuple[Completion, ...]]:
        note("start", seeds[0])
        time.sleep(self.call_s)
        outputs = self._instant.generate(prompts, sampling, num_samples=num_samples, seeds=seeds)
        note("end", seeds[0])
        self.sampled = self._instant.sampled
        return outputs


def note(what: str, key: int | str) -> None:
    fd = os.open(os.environ["SERL_TEST_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{what} {key} {time.time():.3f} {os.getpid()}\n".encode())
    os.close(fd)


def _first(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if IMPORT_S:
    note("import", os.getpid())
    time.sleep(IMPORT_S)
