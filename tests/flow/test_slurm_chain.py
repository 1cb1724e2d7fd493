"""The quickstart's shape with the real vLLM and the real DeepSpeed through Slurm on four nodes, two rounds: the data of the local executor.

Launched from another folder than the repository's. About six minutes of processor time, so only where SERL_SLOW is set; `test_slurm` has the scheduling with quick engines.
"""

import os
import time

import pytest
import yaml
from chain import SLOW, TINY, manifests, open_run, run_verb, verb
from lab import start_lab, wait_until

from jobs.chain.cancel import live
from serl.run.events import read_events
from tests.conftest import ROOT

pytestmark = [pytest.mark.timeout(3600), SLOW]
CLUSTER = {
    "kind": "slurm", "partition": "low", "time_min": 20, "signal_s": 30, "cpus_per_task": 1, "gpus_per_node": 0, "mem_gb": 1,
    "array_limit": 2, "setup": ["source slurm/env.sh"], "stages": {"train": {"nodes": 2}},
}  # fmt: skip


def test_a_chain_on_slurm_has_the_data_of_a_local_one(tmp_path, monkeypatch, capsys):
    before = dict(os.environ)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    local = verb("launch", str(TINY), "name=local", data=tmp_path)
    assert local.process.wait(timeout=1500) == 0, local.said()
    local_s, begun = time.monotonic() - begun, time.monotonic()
    lab = start_lab(tmp_path / "lab")
    try:
        cluster = tmp_path / "cluster.yaml"
        cluster.write_text(yaml.safe_dump(CLUSTER | {"data": str(tmp_path)}))
        code, said = run_verb("launch", str(TINY), "name=remote", "--cluster", str(cluster), data=tmp_path)
        assert code == 0, said
        remote = open_run(tmp_path, "remote")
        wait_until(lambda: not live(remote), "the chain to end", patience_s=1500)
        here, there = manifests(open_run(tmp_path, "local")), manifests(remote)
        assert there["1/train/0"].counts["ranks"] == there["2/train/0"].counts["ranks"] == 2
        assert {k: m.digest for k, m in here.items()} == {k: m.digest for k, m in there.items()}
        nodes = {e["host"] for e in read_events(remote.root / "events") if e["kind"] == "start"}
        with capsys.disabled():
            print(
                f"\n{len(there)} shards on nodes {', '.join(sorted(nodes))}: {time.monotonic() - begun:.0f} s, the local executor took {local_s:.0f} s"
            )
    finally:
        lab("stop")
        os.environ.clear()
        os.environ.update(before)
