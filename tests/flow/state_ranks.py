"""One rank of the test of training state: models read from folders, checkpoints written behind, optimizers
handed on, references split.

Started by `test_state.py` through `test_trainer.run_ranks`; trains what `train_ranks` trains.
"""

import json
import os
import sys
import threading
from pathlib import Path

import torch
import train_ranks as job

from serl.engines import checkpoint, export, keeper, loading, model, pieces
from serl.engines.model import load_tokenizer
from serl.engines.passes import frozen_logprobs
from serl.engines.ranks import Ranks, join_ranks
from serl.engines.trainer import Trainer
from serl.learning.algorithms import policy_loss

CASES = {f"zero_{zero}": (zero, {}) for zero in range(4)} | {
    f"bfloat16_{zero}": (zero, {"dtype": "bfloat16"}) for zero in (1, 3)
}
CASES["rounded"] = (2, {"dtype": "bfloat16", "export_dtype": "bfloat16"})
LOSS = policy_loss(job.OBJECTIVE)


def make(source, ranks: Ranks, zero: int, changes: dict) -> Trainer:
    return Trainer(source, job.settings(zero, **changes), ranks=ranks, horizon=job.NUM_STEPS, seed=job.SEED)


def steps(trainer: Trainer, until: int) -> list[list[float]]:
    samples, seen = job.make_samples(), []
    for batch in job.batches()[trainer.step_index : until]:
        stats = trainer.step([samples[j] for j in batch], LOSS)
        seen.append([stats.loss, stats.grad_norm, stats.lr])
    return seen


def asked(trainer: Trainer) -> list[float]:
    return torch.cat(trainer.logprobs(job.make_samples())).tolist()


def hand_on(base: Path, out: Path, ranks: Ranks, zero: int, changes: dict) -> dict:
    """Six steps at once, and three by one trainer and three by another that gets its policy and its
    optimizer.
    """
    whole = make(job.make_model(base), ranks, zero, changes)
    seen = {"start": asked(whole), "steps": steps(whole, job.NUM_STEPS), "after": asked(whole)}
    first = make(job.make_model(base), ranks, zero, changes)
    steps(first, job.SAVE_AT)
    sealed = first.export(out / "policy", load_tokenizer(base))
    first.export_state(out / "state")
    second = make(out / "policy", ranks, zero, changes)
    seen["adopted"] = second.adopt(out / "state")
    seen["later"], seen["later_after"] = steps(second, job.NUM_STEPS), asked(second)
    fresh = make(out / "policy", ranks, zero, changes)
    seen["files"] = [len(sealed), sorted(p.name for p in (out / "policy").glob("model*"))]
    return seen | {"unadopted": steps(fresh, 1)}


def read_folder(base: Path, out: Path, ranks: Ranks, zero: int, changes: dict) -> dict:
    """A model read share by share, and how often its first layer runs in a step that no pass of
    log-probabilities came before.
    """
    lm = job.make_model(base)
    if ranks.first:
        model.save_model(lm, load_tokenizer(base), dict(lm.named_parameters()), torch.float32, out / "start")
    ranks.barrier()
    trainer = make(out / "start", ranks, zero, changes | {"gradient_checkpointing": True})
    runs = []
    trainer._lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    passes = []
    trainer._lm.model.norm.register_forward_pre_hook(lambda *_: passes.append(1))
    seen = {"first": steps(trainer, 1), "layer_runs": len(runs), "passes": len(passes)}
    return seen | {
        "reduce": str(trainer._engine.communication_data_type),
        "read": asked(make(out / "start", ranks, zero, changes)),
    }


def behind(base: Path, out: Path, ranks: Ranks) -> dict:
    """What stands on disk while a checkpoint is being written, and after; and what comes of one that cannot
    be written.
    """
    trainer, root = make(job.make_model(base), ranks, 1, {}), out / "behind"
    steps(trainer, 1)
    trainer.save(root, {})
    go, publish = threading.Event(), checkpoint.publish
    keeper.checkpoint.publish = lambda *args: go.wait() and publish(*args)
    steps(trainer, 2)
    at_two = asked(trainer)
    trainer.save(root, {"round": 7}, behind=True)
    seen = {"steps": steps(trainer, 3), "meanwhile": [p.name for p in checkpoint.newest_first(root)]}
    go.set()
    trainer.fence()
    seen["then"] = [p.name for p in checkpoint.newest_first(root)]
    again = make(job.make_model(base), ranks, 1, {})
    resumed = again.load(root)
    seen |= {"resumed": [resumed.step, resumed.extra], "same": asked(again) == at_two}
    write = pieces.write
    pieces.write = lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    again.save(root, {}, behind=True)
    try:
        again._keeper._behind.settle()
    except OSError as error:
        seen["error"] = error.strerror
    pieces.write = write
    return seen


def reference(base: Path, out: Path, ranks: Ranks) -> dict:
    folder, samples = out / "zero_1" / "start", job.make_samples()
    whole = torch.cat(frozen_logprobs(folder, job.settings(1), ranks=ranks)(samples))
    split = torch.cat(frozen_logprobs(folder, job.settings(3), ranks=ranks)(samples))
    return {"gap": (whole - split).abs().max().item()}


def adopt_what_others_left(base: Path, saved: Path, ranks: Ranks) -> dict:
    seen = {}
    for kind, there in (("zero_0", "zero_3"), ("zero_3", "zero_1"), ("zero_2", "zero_2")):
        trainer = make(saved / there / "policy", ranks, CASES[kind][0], {})
        trainer.adopt(saved / there / "state")
        seen[kind] = steps(trainer, job.NUM_STEPS)
    return seen


def main(base: Path, out: Path, saved: Path | None = None) -> None:
    torch.set_num_threads(1)
    export.MAX_FILE_BYTES = 30_000
    loading.load_model = None  # no model is read whole
    ranks = join_ranks("cpu", timeout_s=120)
    if saved:
        seen = {"adopted": adopt_what_others_left(base, saved, ranks)}
    else:
        seen = {
            kind: read_folder(base, out / kind, ranks, *case) | hand_on(base, out / kind, ranks, *case)
            for kind, case in CASES.items()
        }
        seen |= {"behind": behind(base, out, ranks), "reference": reference(base, out, ranks)}
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()
    os._exit(0)  # as in `train_ranks`


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
