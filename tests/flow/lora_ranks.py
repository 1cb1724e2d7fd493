"""One rank of the adapters' test: trained, saved, resumed, merged and given to vLLM, seen as JSON.

Started by `test_lora.py`, which owns the model and the expectations; importable for the data both sides use.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from serl.config.engine import Engine
from serl.config.training import Lora, Optimizer, Training
from serl.learning.batch import Sample
from serl.learning.objective import ImitationLoss

NUM_STEPS, SAVE_AT, SEED = 4, 2, 3
LORA = Lora(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj"))
OPTIMIZER = Optimizer(lr=0.02, weight_decay=0.1, warmup=0.0, grad_clip=0.5)


def make_samples() -> list[Sample]:
    g = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 259, (n,), generator=g) for n in (20, 40, 33, 50, 12, 28)]
    return [Sample(token_L=t, num_prompt=4, column={"weight": torch.ones(len(t) - 4)}) for t in rows]


def make_trainer(folder: Path, zero: int, ranks, lora: Lora = LORA, **changes):
    from serl.engines.trainer import Trainer

    usual = {"optimizer": OPTIMIZER, "zero": zero, "microbatch_tokens": 90, "dtype": "float32"}
    settings = Training(**usual | changes, lora=lora)
    return Trainer(folder, settings, ranks=ranks, horizon=NUM_STEPS, seed=SEED)


def run_stage(folder: Path, out: Path, zero: int, ranks, **changes) -> dict:
    from serl.engines.model import load_tokenizer
    from serl.engines.passes import frozen_logprobs

    samples, root, exported = make_samples(), out / f"checkpoints_{zero}", out / f"export_{zero}"
    trainer = make_trainer(folder, zero, ranks, **changes)
    seen = {"before": torch.cat(trainer.logprobs(samples)).tolist(), "steps": []}
    for i in range(NUM_STEPS):
        stats = trainer.step(samples, ImitationLoss())
        seen["steps"].append([stats.loss, stats.grad_norm])
        if i + 1 == SAVE_AT:
            trainer.save(root, {"turn": 1})
    after = torch.cat(trainer.logprobs(samples))
    trainer.export(exported, load_tokenizer(folder))
    merged = torch.cat(frozen_logprobs(exported, trainer.settings, ranks=ranks)(samples))
    seen |= {"after": after.tolist(), "merged_gap": (after - merged).abs().max().item()}
    again = make_trainer(folder, zero, ranks, **changes)
    resumed = again.load(root)
    seen["resumed"] = [resumed.step, resumed.extra]
    steps = [again.step(samples, ImitationLoss()) for _ in range(NUM_STEPS - SAVE_AT)]
    seen["bitwise"] = [[s.loss, s.grad_norm] for s in steps] == seen["steps"][SAVE_AT:]
    seen["bytes"] = sum(p.stat().st_size for p in root.rglob("*.safetensors"))
    return seen


def see_dropout(folder: Path, ranks) -> list[float]:
    """The first loss, and that of the pass in between, where nothing is dropped."""
    trainer = make_trainer(folder, 1, ranks, LORA.model_copy(update={"dropout": 0.5}))
    samples = make_samples()
    return [trainer.step(samples, ImitationLoss()).loss for _ in range(2)]


def see_engine(folder: Path, ranks) -> list[float]:
    """The gap between vLLM and a trainer with adapters, after a transfer from two stages."""
    from serl.engines import transfer
    from serl.engines.resident import Resident

    extra = {"block_size": 32, "max_num_seqs": 64}
    usual = {"max_model_len": 96, "kv_cache_gib": 0.03, "dtype": "float32", "extra": extra}
    engine, gaps = Resident(folder, Engine(**usual), ranks=ranks), []
    for zero in (0, 3):
        trainer = make_trainer(folder, zero, ranks)
        for _ in range(2):
            trainer.step(make_samples(), ImitationLoss())
        transfer.move(engine, trainer)
        gaps.append(transfer.check(engine, trainer, make_samples()).largest)
    engine.close()
    return gaps


def see_adapter_read(base: Path, adapter: Path) -> list[float]:
    """What vLLM says of the samples' responses with the base and a published adapter beside it.

    One sample at a time: with several, vLLM 0.32 on CPUs mixes up their prompts' log-probabilities.
    """
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(
        str(base), dtype="float32", max_model_len=96, enforce_eager=True, kv_cache_memory_bytes=2**25,
        block_size=32, max_num_seqs=8, enable_chunked_prefill=False, max_num_batched_tokens=8192,
        enable_lora=True, max_lora_rank=8,
    )  # fmt: skip
    reading, told = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0), []
    for s in make_samples():
        ids = s.token_L.tolist()
        request = LoRARequest("published", 1, str(adapter))
        out = engine.generate([{"prompt_token_ids": ids}], reading, use_tqdm=False, lora_request=request)
        steps = zip(out[0].prompt_logprobs[s.num_prompt :], ids[s.num_prompt :])
        told += [float(step[token].logprob) for step, token in steps]
    return told


def see_changed_base(folder: Path, out: Path, ranks) -> str:
    """What is said of a checkpoint whose base has got other weights."""
    copy = out / f"copy_{ranks.rank}"
    shutil.copytree(folder, copy)
    trainer = make_trainer(copy, 1, ranks)
    trainer.step(make_samples(), ImitationLoss())
    trainer.save(out / f"own_{ranks.rank}", {})
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4000:] = bytes(4000)
    path.write_bytes(data)
    try:
        make_trainer(copy, 1, ranks).load(out / f"own_{ranks.rank}")
    except ValueError as e:
        return str(e)
    return ""


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    from serl.engines.ranks import join_ranks

    ranks = join_ranks("cpu", timeout_s=120)
    seen = {f"zero_{zero}": run_stage(folder, out, zero, ranks) for zero in range(4)}
    if ranks.size == 1:
        seen["bfloat16_3"] = run_stage(folder, out / "bfloat16", 3, ranks, dtype="bfloat16")
        seen["dropout"] = see_dropout(folder, ranks)
        seen["changed"] = see_changed_base(folder, out, ranks)
    seen["engine"] = see_engine(folder, ranks)
    if ranks.size == 1:
        seen["as_adapter"] = see_adapter_read(folder, out / "export_1" / "adapter")
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.barrier()
    os._exit(0)  # gloo's threads outlive their group and can abort the interpreter on its way out


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
