"""A side of a race is a process that tells its figures in its last line."""

import json
import os
import subprocess
import sys
from pathlib import Path


def side(python: str | Path, script: str, *options: str) -> dict:
    """The figures; ends here, with what the process said, where it failed."""
    command = [str(python), str(Path(__file__).parent / script), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, text=True, capture_output=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
