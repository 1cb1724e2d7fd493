"""Stands in for `serl.stages.train.run` in a run's own copy of the code: ranks that step together, checkpoint, agree to leave, and publish.

What is published is a digest over all batches in order, so it proves that a resumed training saw every batch once. The ranks talk through a
plain socket where the real ones use torch.distributed; like there, a rank that dies makes the others raise.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from pathlib import Path

from serl.engines.generator import note
from serl.run.attempt import Attempt
from serl.run.files import write_atomic
from serl.run.rundir import Manifest
from serl.run.signals import Preempted
from serl.stages import read
from serl.stages.work import Work, policy_dir

STEPS, STEP_S, SAVE_EVERY = 12, float(os.environ.get("SERL_TEST_STEP_S", "0.3")), 4


class Ranks:
    """`any` over all ranks, through rank 0."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if self.rank == 0:
            with socket.create_server(("", address[1])) as server:
                server.settimeout(60)
                self.peers = [server.accept()[0] for _ in range(self.size - 1)]
        else:
            self.peers = [_connect(address)]

    def any(self, claim: bool) -> bool:
        if self.rank:
            self.peers[0].sendall(b"1" if claim else b"0")
            return self._byte(self.peers[0]) == b"1"
        result = any([self._byte(p) == b"1" for p in self.peers] + [claim])
        for p in self.peers:
            p.sendall(b"1" if result else b"0")
        return result

    def _byte(self, peer: socket.socket) -> bytes:
        if not (byte := peer.recv(1)):
            raise RuntimeError("connection closed by peer")
        return byte


def _connect(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def run(work: Work) -> Manifest:
    ranks = Ranks()
    if not ranks.any(work.run.done(work.shard)):
        _teach(work, ranks)
        ranks.any(False)
    manifest = work.run.manifest(work.shard)
    assert manifest is not None
    return manifest


def _teach(work: Work, ranks: Ranks) -> None:
    round = work.shard.round
    _, digest = policy_dir(work.run, round - 1)
    inputs = {f"respond/{m.shard.index}": m.digest for m in work.run.complete(round, "respond")}
    attempt = work.attempt({"policy": digest} | inputs)
    training, judged = work.run.config.training(round), work.run.config.judged(round)
    kept, fates = read.trainable(training, judged, read.groups(work.run, judged, completions=True))
    saved = attempt.folder / f"part_state.{attempt.key}"
    state = json.loads(saved.read_bytes()) if saved.exists() else {"step": 0, "digest": digest}
    while state["step"] < STEPS:
        if os.environ.get("SERL_TEST_FAIL") and ranks.rank == ranks.size - 1:
            raise RuntimeError("the loss is not finite")
        time.sleep(STEP_S)
        mine = [g.rewards for g in kept[state["step"] :: STEPS]]
        state = {
            "step": state["step"] + 1,
            "digest": hashlib.sha256((state["digest"] + repr(mine)).encode()).hexdigest(),
        }
        if ranks.rank == 0:
            _publish_along(work, attempt, state)
        leave = ranks.any(work.stop.due(STEP_S)) and state["step"] < STEPS
        if ranks.rank == 0:
            note("step", f"{round}/{state['step']}")
            if leave or state["step"] % SAVE_EVERY == 0:
                write_atomic(saved, json.dumps(state).encode())
            work.progress(state["step"], STEPS, "steps")
        if leave:
            raise Preempted
    if ranks.rank == 0:
        built = _built(work, attempt, state)
        read.write_kept(built, kept)
        attempt.publish_folder(built, "policy", dict(fates) | {"steps": STEPS})


def _publish_along(work: Work, attempt: Attempt, state: dict) -> None:
    """A milestone counts steps here."""
    for stage in work.run.config.milestones(work.stage):
        (shard,) = work.run.shards(stage.round, stage.name)
        if stage.milestone == state["step"] and not work.run.done(shard):
            own = Attempt(work.run, shard, id=work.attempt_id, inputs=attempt.inputs)
            own.publish_folder(_built(work, own, state), "policy", {"samples": state["step"]})


def _built(work: Work, attempt: Attempt, state: dict) -> Path:
    built = attempt.folder / f"policy.{work.attempt_id}"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    (built / "config.json").write_text("{}")
    (built / "weights").write_text(state["digest"])
    return built
