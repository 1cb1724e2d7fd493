"""The account of a run whose attempts were really killed, at any file-system call: nothing is missing from it and nothing counts twice."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SCRIPT = """
import gc, json, sys, time, types
from pathlib import Path
import deterministic as d
from serl.engines import generator
from serl.run.rundir import Run
from jobs.costs.accounting import account

gc.freeze()
generator.Generator = d.Engine
sys.modules["serl.stages.train.run"] = types.ModuleType("serl.stages.train.run")
sys.modules["serl.stages.train.run"].run = d.train
usual = d.Engine.generate
d.Engine.generate = lambda self, *a, **k: (time.sleep(0.05), usual(self, *a, **k))[1]
root = d.new_root(Path(sys.argv[1]))
kills = [int(k) for k in sys.argv[2:]]
for attempt, kill_at in enumerate([*kills, None], 1):
    d.in_child(root, attempt, d.Injector(kill_at=kill_at))
a = account(Run.open(root))
told = [[t.id, t.ended, t.kept_s] for t in a.total.tries]
print(json.dumps({"tries": told, "used_s": a.total.used_s, "lost_s": dict(a.total.lost_s)}))
"""


def test_every_killed_attempt_is_accounted_for_and_its_parts_are_not_lost(tmp_path: Path):
    kills = (35, 60, 70)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "data"), *map(str, kills)]
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/flow'}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ended = [(id, how) for id, how, _ in found["tries"]]
    assert sum(how == "killed" for _, how in ended) == len(kills), ended
    assert sum(how == "done" for _, how in ended) == 12, "every shard was published once"
    kept = sum(k for _, _, k in found["tries"])
    assert abs(found["used_s"] - kept - sum(found["lost_s"].values())) < 0.01 * len(found["tries"]), (
        "causes under 10 ms are not told"
    )
    assert set(found["lost_s"]) <= {"killed"}
