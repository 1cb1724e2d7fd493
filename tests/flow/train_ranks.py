"""One rank of the trainer's test: trains, saves, resumes, exports at every ZeRO stage, and writes what it saw as JSON.

Started by `test_trainer.py`, which owns the expectations; importable for the data both sides use.
"""

import json
import os
import sys
from pathlib import Path

import torch

from serl.config.base import Architecture
from serl.config.objectives import ReinforcePP
from serl.config.training import Optimizer, Training
from serl.engines.model import load_tokenizer, scratch_llama
from serl.learning.algorithms import LogProbs, columns, policy_loss
from serl.learning.batch import Sample, attach, sample_order, split_evenly

NUM_STEPS, SAVE_AT, SEED = 6, 3, 5
OBJECTIVE = ReinforcePP(kl=0.01)
SHAPE = Architecture(hidden=32, layers=2, heads=1, intermediate=64, max_positions=64, init_std=0.2)
OPTIMIZER = Optimizer(lr=3e-3, weight_decay=0.1, warmup=0.3, grad_clip=0.5)
OFFLOAD = OPTIMIZER.model_copy(update={"offload": True})


def settings(zero: int, **changes: str | int | bool) -> Training:
    return Training(
        **{
            "optimizer": OPTIMIZER,
            "microbatch_tokens": 90,
            "zero": zero,
            "dtype": "float32",
            "keep_checkpoints": 2,
        }
        | changes
    )


def make_samples() -> list[Sample]:
    """Four groups of six samples of uneven lengths with REINFORCE++ columns; a function of nothing."""
    g = torch.Generator().manual_seed(2)
    shapes = [
        (int(torch.randint(1, 8, (1,), generator=g)), int(torch.randint(1, 25, (1,), generator=g)))
        for _ in range(24)
    ]
    bare = [
        Sample(token_L=torch.randint(3, 259, (p + r,), generator=g), num_prompt=p, column={})
        for p, r in shapes
    ]
    length_S = torch.tensor([s.num_response for s in bare])
    old_T = -5.5 + torch.randn(int(length_S.sum()), generator=g)
    logp = LogProbs(old_T=old_T, ref_T=old_T + 0.1, behaviour_T=old_T, length_S=length_S)
    reward_GN = torch.randint(0, 2, (4, 6), generator=g).float()
    return attach(bare, columns(OBJECTIVE, reward_GN, logp, "token", None))


def batches() -> list[list[int]]:
    """The optimizer batches of two epochs, of 8 samples each."""
    return [b for epoch in (0, 1) for b in split_evenly(sample_order(24, SEED, 1, "train", epoch), 8)]


def make_model(base: Path):
    return scratch_llama(SHAPE, load_tokenizer(base), SEED)


def run_stage(zero: int, base: Path, out: Path, ranks, **changes: str | int | bool) -> dict:
    """Train six steps with a checkpoint after the third, export, then train the last three again from the checkpoint."""
    from serl.engines.passes import frozen_logprobs
    from serl.engines.trainer import Trainer

    samples, loss, order, root = (
        make_samples(),
        policy_loss(OBJECTIVE),
        batches(),
        out / f"checkpoints_{zero}",
    )
    trainer = Trainer(make_model(base), settings(zero, **changes), ranks=ranks, horizon=NUM_STEPS, seed=SEED)
    seen = {"before": torch.cat(trainer.logprobs(samples)).tolist(), "steps": [], "again": []}
    trainer.export(out / f"start_{zero}", load_tokenizer(base))
    for i, batch in enumerate(order):
        stats = trainer.step([samples[j] for j in batch], loss)
        seen["steps"].append([stats.loss, stats.grad_norm, stats.lr, stats.means["clip_fraction"]])
        if i + 1 == SAVE_AT:
            trainer.save(root, {"round": 1})
            trainer.export(out / f"saved_{zero}", load_tokenizer(base))
    after = torch.cat(trainer.logprobs(samples))
    trainer.export(out / f"export_{zero}", load_tokenizer(base))
    reloaded = torch.cat(
        frozen_logprobs(out / f"export_{zero}", settings(zero, **changes), ranks=ranks)(samples)
    )
    seen |= {"after": after.tolist(), "export_gap": (after - reloaded).abs().max().item()}

    again = resume(zero, base, root, out / f"again_{zero}", ranks, **changes)
    seen["resumed"] = again["resumed"]
    seen["resume_is_bitwise"] = (again["after"], again["steps"]) == (seen["after"], seen["steps"][SAVE_AT:])
    return seen


def resume(zero: int, base: Path, root: Path, out: Path, ranks, **changes: str | int | bool) -> dict:
    """Go on from the checkpoint at `root`, whoever wrote it: what was loaded and what came of it are exported."""
    from serl.engines.trainer import Trainer

    samples, loss = make_samples(), policy_loss(OBJECTIVE)
    trainer = Trainer(make_model(base), settings(zero, **changes), ranks=ranks, horizon=NUM_STEPS, seed=SEED)
    resumed = trainer.load(root)
    seen = {"resumed": [resumed.step, resumed.extra["round"]], "steps": []}
    trainer.export(out / "loaded", load_tokenizer(base))
    for batch in batches()[resumed.step :]:
        stats = trainer.step([samples[j] for j in batch], loss)
        seen["steps"].append([stats.loss, stats.grad_norm, stats.lr, stats.means["clip_fraction"]])
    seen["after"] = torch.cat(trainer.logprobs(samples)).tolist()
    trainer.export(out / "done", load_tokenizer(base))
    return seen


def damage_and_fall_back(base: Path, out: Path, ranks) -> dict:
    """Checkpoints at steps 1, 2, 3 with two kept; the newest is cut short; training goes on from the one before."""
    from serl.engines.trainer import Trainer

    samples, loss, root = make_samples(), policy_loss(OBJECTIVE), out / "damaged"
    trainer = Trainer(make_model(base), settings(1), ranks=ranks, horizon=NUM_STEPS, seed=SEED)
    assert trainer.load(root) is None
    for batch in batches()[:3]:
        trainer.step([samples[j] for j in batch], loss)
        trainer.save(root, {})
    kept = sorted(p.name for p in root.iterdir())
    ranks.barrier()
    if ranks.first:
        victim = max((root / "step_000003").glob("*.safetensors"))
        victim.write_bytes(victim.read_bytes()[:-100])
    ranks.barrier()
    resumed = trainer.load(root)
    return {
        "kept": kept,
        "step": resumed.step,
        "rejected": list(resumed.rejected),
        "any": ranks.any(ranks.rank == ranks.size - 1),
    }


def resume_what_others_saved(base: Path, out: Path, saved: Path, ranks) -> dict:
    """Checkpoints of other ranks, some at another stage or in another compute type than they were made with."""
    runs = {f"zero_{zero}": (zero, zero, {}) for zero in range(4)}
    if ranks.size == 2:
        runs |= {"from_3_at_1": (1, 3, {}), "from_0_at_3": (3, 0, {})}
    if ranks.size == 3:  # no matrix of this model can be cut into three equal parts
        runs = {k: runs[k] for k in ("zero_1", "zero_3")} | {
            f"bfloat16_{zero}": (zero, 3, {"dtype": "bfloat16"}) for zero in (0, 3)
        }
    seen = {
        kind: resume(here, base, saved / f"checkpoints_{there}", out / kind, ranks, **changes)
        for kind, (here, there, changes) in runs.items()
    }
    if ranks.size == 1:
        seen["offload_2"] = resume(
            2, base, saved / "offload" / "checkpoints_2", out / "offload_2", ranks, optimizer=OFFLOAD
        )
    return seen


def train_at_every_stage(base: Path, out: Path, ranks) -> dict:
    """One rank pads its samples; two lay them end to end, and add up gradients in small buckets."""
    changes = {"packing": True, "deepspeed": {"reduce_bucket_size": 1000}} if ranks.size > 1 else {}
    seen = {f"zero_{zero}": run_stage(zero, base, out, ranks, **changes) for zero in range(4)}
    if ranks.size == 1:
        extras = {"dtype": "bfloat16"}, {"dtype": "bfloat16", "gradient_checkpointing": True}
        seen["bfloat16_0"] = run_stage(0, base, out / "bfloat16", ranks, **extras[0])
        seen["bfloat16_3"] = run_stage(3, base, out / "bfloat16", ranks, **extras[1])
    else:
        seen["offload_2"] = run_stage(
            2, base, out / "offload", ranks, optimizer=OFFLOAD, gradient_checkpointing=True
        )
        seen["damaged"] = damage_and_fall_back(base, out, ranks)
    return seen


def main(base: Path, out: Path, saved: Path | None = None) -> None:
    """Train, or with `saved` go on from what another run of this script left there."""
    torch.set_num_threads(1)
    from serl.engines import model
    from serl.engines.ranks import join_ranks

    ranks = join_ranks("cpu", timeout_s=120)
    if (
        ranks.size > 1
    ):  # logits a few at a time, as with a real vocabulary; ranks need different numbers of such chunks
        model.KEPT_LOGIT_BYTES, model.MAX_LOGIT_BYTES = 0, 10 * 4 * 259
    seen = (
        train_at_every_stage(base, out, ranks)
        if saved is None
        else resume_what_others_saved(base, out, saved, ranks)
    )
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()
    # gloo's threads outlive their group and can abort the interpreter on its way out, once in some hundred times; a stage is done by then, too
    os._exit(0)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
