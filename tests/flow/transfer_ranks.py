"""One rank of the test of turns: vLLM and DeepSpeed in this process, weights from one to the other, seen as JSON.

Started by `test_transfer.py`, which owns the models and the expectations.
"""

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from serl.config.engine import Engine, Sampling
from serl.config.training import Optimizer, Training
from serl.learning.batch import Sample
from serl.learning.objective import ImitationLoss

STAGES = (0, 1, 2, 3)
CONTEXT = 96
SAMPLING = Sampling(temperature=1.0, max_tokens=12)
WARMER = Sampling(temperature=0.7, max_tokens=12)
BUCKET = 70_000  # bytes; the models have five times as many, and an embedding as many alone


def make_samples() -> list[Sample]:
    """Token sequences of uneven lengths, one longer than the engine's context; a function of nothing."""
    g = torch.Generator().manual_seed(1)
    lengths = (20, 40, 33, 90, 110)
    rows = [torch.randint(3, 259, (n,), generator=g) for n in lengths]
    return [Sample(token_L=t, num_prompt=4, column={"weight": torch.ones(len(t) - 4)}) for t in rows]


def prompts() -> list[list[int]]:
    """Seven, each longer than two blocks of the prefix cache."""
    g = torch.Generator().manual_seed(2)
    return [torch.randint(3, 259, (70 + i,), generator=g).tolist() for i in range(7)]


def make_trainer(folder: Path, zero: int, ranks, *, dtype: str = "float32", temperature: float = 1.0):
    """A trainer one step away from the model at `folder`, at another place for every ZeRO stage."""
    from serl.engines.trainer import Trainer

    optimizer = Optimizer(lr=0.01 * (zero + 1), warmup=0.0)
    settings = Training(optimizer=optimizer, zero=zero, dtype=dtype)
    trainer = Trainer(folder, settings, ranks=ranks, horizon=2, seed=0, temperature=temperature)
    trainer.step(make_samples(), ImitationLoss())
    return trainer


def make_engine(folder: Path, ranks, **changes):
    from serl.engines.resident import Resident

    gc.freeze()  # vLLM collects garbage five times an engine, among much that is none
    extra = {"block_size": 32, "max_num_seqs": 64}
    usual = {"max_model_len": CONTEXT, "kv_cache_gib": 0.03, "dtype": "float32", "extra": extra}
    return Resident(folder, Engine(**usual | changes), ranks=ranks)


def headless(trainer) -> Iterator[tuple[str, Tensor]]:
    """What the trainer's named parameters are, and what vLLM takes without a word."""
    return ((name, w) for name, w in trainer.weights() if name != "lm_head.weight")


def refused(engine, trainer) -> str:
    from serl.engines.transfer import TransferError, check

    try:
        check(engine, trainer, make_samples())
    except TransferError as error:
        return str(error)
    return ""


def see_model(folder: Path, tied: bool, ranks) -> dict:
    """The gap after a transfer from every ZeRO stage; for a tied model also after two that lack its output layer."""
    from serl.engines import transfer

    engine, seen = make_engine(folder, ranks), {"gaps": [], "seconds": []}
    for zero in STAGES:
        trainer = make_trainer(folder, zero, ranks)
        if tied and zero in (0, 3):
            engine.take(headless(trainer))
            seen[f"headless_{zero}"] = refused(engine, trainer)
        seen["seconds"].append(transfer.move(engine, trainer))
        seen["gaps"].append(transfer.check(engine, trainer, make_samples()).largest)
    engine.close()
    return seen


def see_bfloat16(folder: Path, ranks) -> dict:
    from serl.engines import transfer

    engine, seen = make_engine(folder, ranks, dtype="bfloat16"), {"gaps": []}
    for zero in (1, 3):
        trainer = make_trainer(folder, zero, ranks, dtype="bfloat16")
        if zero == 1:
            engine.take(headless(trainer))
            seen["headless"] = refused(engine, trainer)
            seen["headless_gap"] = transfer.measure(engine, trainer, make_samples()).mean
        transfer.move(engine, trainer)
        seen["gaps"].append(transfer.check(engine, trainer, make_samples()).mean)
    engine.close()
    return seen


def sample_turn(engine, ranks, sampling: Sampling, tensor_parallel: int = 1) -> list[dict]:
    """A turn's answers as all ranks have them."""
    from serl.engines.shares import gathered, share_of

    asked = prompts()
    mine = share_of(len(asked), rank=ranks.rank, size=ranks.size, tensor_parallel=tensor_parallel)
    answers = engine.generate(
        [asked[i] for i in mine], sampling, num_samples=2, seeds=[100 + i for i in mine]
    )
    told = gathered(ranks, list(zip(mine, answers)), tensor_parallel=tensor_parallel)
    assert [i for i, _ in told] == list(range(len(asked))), "answers stand in the order of the prompts"
    return [{"ids": c.token_ids, "logprobs": c.logprobs, "prompt": i} for i, out in told for c in out]


def sampling_gap(trainer, answers: list[dict]) -> float:
    """How far the engine's log-probabilities of what it sampled are from the trainer's."""
    asked = prompts()
    rows = [asked[a["prompt"]] + list(a["ids"]) for a in answers]
    samples = [
        Sample(token_L=torch.tensor(row), num_prompt=len(asked[a["prompt"]]), column={})
        for row, a in zip(rows, answers)
    ]
    told_T = torch.tensor([x for a in answers for x in a["logprobs"]])
    return (torch.cat(trainer.logprobs(samples)) - told_T).abs().max().item()


def see_turns(folder: Path, ranks) -> dict:
    """Two turns with training between them; the second asks what the first asked, under new weights."""
    from serl.engines import transfer

    engine, trainer = make_engine(folder, ranks), make_trainer(folder, 3, ranks, temperature=0.7)
    seen: dict = {"refusals": []}
    for act in (lambda: sample_turn(engine, ranks, WARMER), engine.wake):
        try:
            act()
        except AssertionError as error:
            seen["refusals"].append(str(error))
    transfer.move(engine, trainer)
    seen["first"], seen["again"] = (sample_turn(engine, ranks, WARMER) for _ in range(2))
    engine.sleep()
    trainer.step(make_samples(), ImitationLoss())
    transfer.move(engine, trainer)
    transfer.check(engine, trainer, make_samples())
    seen["second"] = sample_turn(engine, ranks, WARMER)
    seen["gap"] = sampling_gap(trainer, seen["second"])
    engine.sleep(1)
    engine.wake()
    seen["woken"] = sample_turn(engine, ranks, WARMER)
    engine.close()
    del engine
    gc.collect()
    seen["alive"] = dist.is_initialized() and ranks.sum(torch.ones(1)).item() == ranks.size
    return seen


def see_buckets(folder: Path, ranks) -> dict:
    """How much of a model that ZeRO-3 split is whole at a time while its weights are walked through."""
    from serl.engines.whole import whole_parameters

    trainer = make_trainer(folder, 3, ranks)
    parameters = list(trainer._lm.parameters())
    kept = sum(p.nbytes for p in parameters if p.numel())
    whole = [sum(p.nbytes for p in parameters) - kept for _ in whole_parameters(trainer._lm, BUCKET)]
    after = sum(p.nbytes for p in parameters)
    return {"whole": max(whole), "after": after - kept, "all": sum(4 * p.ds_numel for p in parameters)}


def see_tensor_parallel(folder: Path, ranks) -> dict:
    """One engine over both ranks, as on GPUs; on CPUs it is refused, for the sake of a name that is made unique here."""
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed as Shared

    from serl.engines import resident, transfer

    name = f"test-turn-{os.environ['MASTER_PORT']}"
    Shared.make_group_name = staticmethod(lambda communicator: name)
    resident.check_groups = lambda hosts, tensor_parallel, cuda: None
    engine, trainer = make_engine(folder, ranks, tensor_parallel=2), make_trainer(folder, 3, ranks)
    transfer.move(engine, trainer)
    gap = transfer.check(engine, trainer, make_samples()).largest
    answers = sample_turn(engine, ranks, SAMPLING, tensor_parallel=2)
    ranks.barrier()
    for left in Path("/dev/shm").glob(f"{name}_*") if ranks.first else ():
        left.unlink()
    return {"gap": gap, "sampled": sampling_gap(trainer, answers)}


def main(models: Path, out: Path, *what: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    from serl.engines.ranks import Ranks

    ranks = Ranks(rank=dist.get_rank(), size=dist.get_world_size(), device=torch.device("cpu"))
    if what == ("tensor_parallel",):
        seen = see_tensor_parallel(models / "qwen2-tied", ranks)
    else:
        folders = sorted(models.iterdir())
        seen = {f.name: see_model(f, f.name.endswith("-tied"), ranks) for f in folders}
        seen["bfloat16"] = see_bfloat16(models / "llama-tied", ranks)
        seen["turns"] = see_turns(models / "llama-tied", ranks)
        seen["buckets"] = see_buckets(models / "llama-untied", ranks)
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.barrier()
    os._exit(0)  # gloo's threads outlive their group and can abort the interpreter on its way out


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
