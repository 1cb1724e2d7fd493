"""Is what the engines compute right on this machine? Small models, held against each other and float32."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from models import SHAPES, Place, make_prompts, make_samples, make_tokenizer, random_llama, training, uneven
from safetensors.torch import load_file
from sheet import Figures, Sheet
from torch import Tensor

from serl.config.engine import Engine, Sampling
from serl.config.training import Optimizer
from serl.engines.generator import Generator
from serl.engines.model import TokenLogProbs
from serl.engines.packed import PACKED, attention
from serl.engines.passes import frozen_logprobs
from serl.engines.ranks import Ranks, join_ranks
from serl.engines.trainer import Trainer
from serl.learning.batch import Sample, collate
from serl.learning.objective import ImitationLoss, PolicyLoss, mismatch
from serl.records import Completion

LOSS = PolicyLoss(clip=0.2)
TEMPERATURE = 0.8  # of sampling and of log-probabilities: not 1, so that one that is forgotten shows
NUM_STEPS, SAVE_AT = 4, 2


# ------------------------------------------------------------------------------------ engine and trainer
def agreement(sheet: Sheet, place: Place, *, shape: str, eager: bool) -> None:
    """vLLM's log-probabilities of what it samples are the trainer's, of weights trained and exported."""
    ranks = join_ranks(place.device, timeout_s=300)
    vocabulary = SHAPES[shape].vocabulary
    tokenizer, folder = make_tokenizer(vocabulary), place.root / "policy"
    lm = random_llama(SHAPES[shape], 0, place)
    settings = training(1, optimizer=Optimizer(lr=2e-4, warmup=0.0, schedule="constant"))
    trainer = Trainer(lm, settings, ranks=ranks, horizon=2, seed=0, temperature=TEMPERATURE)
    samples = make_samples(uneven(8), vocabulary)
    before = make_samples(uneven(4), vocabulary)
    untrained = torch.cat(trainer.logprobs(before))
    trainer.step(samples, ImitationLoss())
    trainer.step(samples, ImitationLoss())
    moved = (torch.cat(trainer.logprobs(before)) - untrained).abs().mean().item()
    trainer.export(folder, tokenizer)
    engine = Engine(max_model_len=256, kv_cache_gib=0.25, gpu_memory_utilization=0.1, eager=eager)
    generator = Generator(folder, engine, device=place.device)
    sheet.claim(f"engine is trainer, {shape}", partial(_agree, generator, trainer, place, vocabulary, moved))
    sheet.claim(f"a seed repeats, {shape}", partial(_repeat, generator, place, vocabulary))


def _sample(generator: Generator, place: Place, vocabulary: int) -> tuple[list, list[tuple[Completion, ...]]]:
    num = 4 if place.small else 16
    prompts = make_prompts(num, 24, vocabulary)
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=16 if place.small else 64)
    return prompts, generator.generate(prompts, sampling, num_samples=4, seeds=range(num))


def _agree(generator: Generator, trainer: Trainer, place: Place, vocabulary: int, moved: float) -> Figures:
    prompts, several = _sample(generator, place, vocabulary)
    samples = [
        Sample(token_L=torch.tensor([*prompt, *c.token_ids]), num_prompt=len(prompt), column={})
        for prompt, completions in zip(prompts, several)
        for c in completions
    ]
    behaviour = torch.tensor([x for completions in several for c in completions for x in c.logprobs])
    ours = torch.cat(trainer.logprobs(samples))
    gap = (ours - behaviour).abs()
    limit = 1e-3 if place.dtype == torch.float32 else 0.05
    assert gap.mean() < limit < moved, f"off by {gap.mean():.4f} (limit {limit}; two steps: {moved:.4f})"
    kl = mismatch(ours, behaviour)["mismatch_kl"]
    spread = behaviour.std().item()
    return {
        "mean": gap.mean().item(),
        "max": gap.max().item(),
        "kl": kl,
        "two_steps": moved,
        "spread": spread,
    }


def _repeat(generator: Generator, place: Place, vocabulary: int) -> Figures:
    """To the last token in float32 on CPUs; elsewhere other batches round differently."""
    first, again = (_sample(generator, place, vocabulary)[1] for _ in range(2))
    same = [a.token_ids == b.token_ids for x, y in zip(first, again) for a, b in zip(x, y)]
    share = sum(same) / len(same)
    assert share == 1.0 or place.device != "cpu", f"{share:.0%} of the samples repeat"
    return {"share": share}


# ------------------------------------------------------------------------------------ ZeRO's stages
def stages(sheet: Sheet, place: Place) -> None:
    """Every ZeRO stage moves weights as float32 without ZeRO does, exports and resumes."""
    ranks = join_ranks(place.device, timeout_s=300)
    exact = _run(place, ranks, 0, "float32")
    for zero in (1, 2, 3):
        sheet.claim(f"ZeRO {zero}: steps of float32", partial(_same_steps, place, ranks, zero, exact))
        sheet.claim(f"ZeRO {zero}: export, resume", partial(_goes_on, place, ranks, zero))


def _trainer(place: Place, ranks: Ranks, zero: int, dtype: str = "auto") -> Trainer:
    lm = random_llama(SHAPES["tiny" if place.small else "head 64, untied"], 0, place)
    settings = training(zero, dtype=dtype, microbatch_tokens=200, gradient_checkpointing=True)
    return Trainer(lm, settings, ranks=ranks, horizon=NUM_STEPS, seed=0)


def _batches() -> list[list[Sample]]:
    samples = make_samples(uneven(8 * NUM_STEPS), 512)
    return [samples[i::NUM_STEPS] for i in range(NUM_STEPS)]


def _run(place: Place, ranks: Ranks, zero: int, dtype: str) -> dict[str, Tensor]:
    """Losses and gradient norms of the steps, and the log-probabilities after them."""
    trainer = _trainer(place, ranks, zero, dtype)
    stats = [trainer.step(batch, LOSS) for batch in _batches()]
    return {
        "loss": torch.tensor([s.loss for s in stats]),
        "norm": torch.tensor([s.grad_norm for s in stats]),
        "after": torch.cat(trainer.logprobs(_batches()[0])),
    }


def _same_steps(place: Place, ranks: Ranks, zero: int, exact: dict[str, Tensor]) -> Figures:
    seen = _run(place, ranks, zero, "auto")
    found = {key: ((seen[key] - exact[key]).norm() / exact[key].norm()).item() for key in seen}
    limit = 1e-4 if place.dtype == torch.float32 else 0.05
    assert max(found.values()) < limit, f"relative errors {found}, at most {limit}"
    return found


def _goes_on(place: Place, ranks: Ranks, zero: int) -> Figures:
    root, tokenizer = place.root / f"zero_{zero}", make_tokenizer(512)
    trainer, batches = _trainer(place, ranks, zero), _batches()
    for batch in batches[:SAVE_AT]:
        trainer.step(batch, LOSS)
    trainer.save(root / "checkpoints", {"round": 1})
    trainer.export(root / "saved", tokenizer)
    reloaded = frozen_logprobs(root / "saved", training(zero, microbatch_tokens=200), ranks=ranks)(batches[0])
    export = (torch.cat(reloaded) - torch.cat(trainer.logprobs(batches[0]))).abs().max().item()
    after = _finish(trainer, batches)

    again = _trainer(place, ranks, zero)
    resumed = again.load(root / "checkpoints")
    assert resumed is not None and (resumed.step, resumed.extra) == (SAVE_AT, {"round": 1}), resumed
    again.export(root / "loaded", tokenizer)
    assert _weights(root / "loaded") == _weights(root / "saved"), "the checkpoint holds other weights"
    gap = (_finish(again, batches) - after).abs().max().item()
    limit = 1e-5 if place.dtype == torch.float32 else 1e-3
    assert export < limit, f"the export's log-probabilities are off by {export}, at most {limit}"
    assert gap < (1e-5 if place.dtype == torch.float32 else 0.05), f"off by {gap} after the resume"
    return {"export_gap": export, "resume_gap": gap, "bitwise": str(gap == 0.0)}


def _finish(trainer: Trainer, batches: Sequence[list[Sample]]) -> Tensor:
    for batch in batches[SAVE_AT:]:
        trainer.step(batch, LOSS)
    return torch.cat(trainer.logprobs(batches[0]))


def _weights(folder: Path) -> dict[str, bytes]:
    return {
        name: value.contiguous().view(torch.uint8).numpy().tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


# ------------------------------------------------------------------------------------ packing
def packing(sheet: Sheet, place: Place) -> None:
    """Samples end to end in one row have the log-probabilities and gradients of samples in rows apart."""
    how = attention(place.dtype, torch.device(place.device), packing=True)
    sheet.claim(f"packed is padded, {how}", partial(_packed, place, how))


def _packed(place: Place, how: str) -> Figures:
    shape = SHAPES["tiny" if place.small else "head 64, untied"]
    samples = make_samples(uneven(12), shape.vocabulary)
    exact = _logp_and_gradient(place, samples, torch.float32, "sdpa", packed=False)
    padded = _logp_and_gradient(place, samples, place.dtype, "sdpa", packed=False)
    packed = _logp_and_gradient(place, samples, place.dtype, how, packed=True)
    limit = 1e-4 if place.dtype == torch.float32 else 0.05
    found: Figures = {}
    for what, want, one, other in zip(("logp", "gradient"), exact, padded, packed):
        found[f"{what}_padded"] = ((one - want).norm() / want.norm()).item()
        found[f"{what}_packed"] = ((other - want).norm() / want.norm()).item()
        assert found[f"{what}_packed"] < limit, f"{what}: relative errors {found}, at most {limit}"
    return found


def _logp_and_gradient(
    place: Place, samples: Sequence[Sample], dtype: torch.dtype, how: str, *, packed: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and the gradient of their sum in the first layer's values."""
    shape = SHAPES["tiny" if place.small else "head 64, untied"]
    lm = random_llama(shape, 0, place).to(dtype)
    lm.set_attn_implementation(how)
    forward = TokenLogProbs(lm)
    logp = forward(collate(samples, packed).to(torch.device(place.device)))
    logp.sum().backward()
    gradient = lm.model.layers[0].self_attn.v_proj.weight.grad
    return logp.detach().float().cpu(), gradient.float().cpu()
