"""How fast is it on this machine? Training and sampling of LLaMA-3.2's shapes with random weights.

A turn is 16 prompts of 128 tokens and 16 answers of 512 tokens to each; random weights end nothing early.
Seconds are medians after a warm-up, of whole calls, so that what Python does between kernels counts.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anatomy
import torch
from models import SHAPES, Place, Shape, make_prompts, make_samples, make_tokenizer, random_llama, training
from sheet import Figures, Sheet

from serl.config.engine import Engine, Sampling
from serl.engines.generator import Generator
from serl.engines.model import load_model
from serl.engines.packed import attention
from serl.engines.ranks import join_ranks
from serl.engines.trainer import Trainer
from serl.learning.batch import Sample
from serl.learning.objective import PolicyLoss

PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 311.9, "L40S": 362.0}  # dense bfloat16, as sold
PROMPTS, ANSWERS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 16, 128, 512
STEP_SAMPLES = 16  # of one optimizer step
GIB = 2**30


def peak_tflops(place: Place) -> float:
    """What a card is sold as; nan for one that is not in the table, and so is all that is divided by it."""
    name = "" if place.device == "cpu" else torch.cuda.get_device_name()
    return next((peak for card, peak in PEAK_TFLOPS.items() if card in name), float("nan"))


def seconds(place: Place, work: Callable[[], object], times: int) -> float:
    """Median seconds of a call, until the device is done."""
    spent = []
    for _ in range(1 if place.small else times):
        _synchronize(place)
        begun = time.perf_counter()
        work()
        _synchronize(place)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def _synchronize(place: Place) -> None:
    if place.device != "cpu":
        torch.cuda.synchronize()


def _peak_gib(place: Place) -> float:
    return 0.0 if place.device == "cpu" else torch.cuda.max_memory_allocated() / GIB


def turn_sizes(place: Place) -> tuple[int, int, int, int]:
    """Prompts, answers to each, and the tokens of both."""
    return (2, 4, 8, 16) if place.small else (PROMPTS, ANSWERS, PROMPT_TOKENS, ANSWER_TOKENS)


# ------------------------------------------------------------------------------------ training
def train(sheet: Sheet, place: Place, *, shape: str, both: bool) -> None:
    """Optimizer steps of 16 samples, log-probabilities of a turn, and the weights to disk and back.

    With gradient checkpointing, and if `both` without; large models do not fit on one card without it.
    """
    ranks = join_ranks(place.device, timeout_s=300)
    lm = random_llama(SHAPES[shape], 0, place)
    settings = training(1, gradient_checkpointing=True, compile=True)
    trainer = Trainer(lm, settings, ranks=ranks, horizon=10**6, seed=0)
    prompts, answers, num_prompt, num_answer = turn_sizes(place)
    samples = make_samples([(num_prompt, num_answer)] * prompts * answers, SHAPES[shape].vocabulary)
    sheet.claim(f"steps, {shape}, checkpointing", partial(_steps, place, trainer, samples, SHAPES[shape]))
    if both:
        lm.gradient_checkpointing_disable()
        sheet.claim(f"steps, {shape}", partial(_steps, place, trainer, samples, SHAPES[shape]))
    sheet.claim(f"log-probabilities, {shape}", partial(_logprobs, place, trainer, samples, SHAPES[shape]))
    sheet.claim(f"export and load, {shape}", partial(_export, place, trainer, shape))


def flops(shape: Shape, samples: list[Sample]) -> float:
    """Of one forward pass, nothing twice: matrix products, the output layer of answers, causal attention."""
    whole = sum(len(s.token_L) for s in samples)
    answer = sum(s.num_response for s in samples)
    body = shape.num_weights() - shape.hidden * shape.vocabulary
    squares = sum(len(s.token_L) ** 2 for s in samples)
    attend = 2 * shape.layers * shape.hidden * squares
    return 2.0 * body * whole + 2.0 * shape.hidden * shape.vocabulary * answer + attend


def _steps(place: Place, trainer: Trainer, samples: list[Sample], shape: Shape) -> Figures:
    """Steps as the official method takes them, and of four times the samples: what a step costs alone."""
    found: Figures = {}
    loss = PolicyLoss(clip=0.2)
    for num in (STEP_SAMPLES, 4 * STEP_SAMPLES):
        batch = samples[:num]
        trainer.step(batch, loss)
        trainer.step(batch, loss)
        if place.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        spent = seconds(place, partial(trainer.step, batch, loss), 4)
        tokens = sum(len(s.token_L) for s in batch)
        share = 3 * flops(shape, batch) / spent / 1e12 / peak_tflops(place)
        found |= {f"s_of_{num}": spent, f"tokens/s_of_{num}": tokens / spent, f"mfu_of_{num}": share}
    few, many = (float(found[f"s_of_{num}"]) for num in (STEP_SAMPLES, 4 * STEP_SAMPLES))
    found["s_beside_tokens"] = (4 * few - many) / 3
    if place.anatomy:
        anatomy.kernels(lambda: trainer.step(samples[:STEP_SAMPLES], loss), place.anatomy / "step.txt")
    return found | {
        "peak_gib": _peak_gib(place),
        "attention": attention(place.dtype, torch.device(place.device)),
    }


def _logprobs(place: Place, trainer: Trainer, samples: list[Sample], shape: Shape) -> Figures:
    trainer.logprobs(samples[:STEP_SAMPLES])
    spent = seconds(place, partial(trainer.logprobs, samples), 3)
    tokens = sum(len(s.token_L) for s in samples)
    share = flops(shape, samples) / spent / 1e12 / peak_tflops(place)
    return {"s_of_a_turn": spent, "tokens/s": tokens / spent, "mfu": share}


def _export(place: Place, trainer: Trainer, shape: str) -> Figures:
    folder, tokenizer = policy_folder(place, shape), make_tokenizer(SHAPES[shape].vocabulary)
    found: Figures = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        found[f"export_{name}_s"] = seconds(place, partial(trainer.export, folder, tokenizer, dtype), 1)
    found["gb"] = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    found["load_s"] = seconds(place, partial(load_model, folder, torch.float32, place.dtype), 1)
    return found


def policy_folder(place: Place, shape: str) -> Path:
    """Where training leaves the model for sampling; shared by the processes of a run."""
    return place.root.parent / f"policy_{shape}"


# ------------------------------------------------------------------------------------ sampling
def sample(sheet: Sheet, place: Place, *, shape: str) -> None:
    """Tokens a second of a turn through the project's door, and of vLLM alone."""
    folder = policy_folder(place, shape)
    if not (folder / "config.json").exists():
        random_llama(SHAPES[shape], 0, place).save_pretrained(folder)
        make_tokenizer(SHAPES[shape].vocabulary).save_pretrained(folder)
    engine = Engine(
        max_model_len=64 if place.small else 1024,
        kv_cache_gib=0.1 if place.small else 24.0,
        gpu_memory_utilization=0.5,
    )
    begun = time.perf_counter()
    generator = Generator(folder, engine, device=place.device)
    start = time.perf_counter() - begun
    sheet.claim(f"sampling, {shape}", partial(sampling_rates, place, generator, SHAPES[shape], start))


def sampling_rates(
    place: Place, generator: Generator, shape: Shape, start: float, shorter: int = 1
) -> Figures:
    """The same requests three ways, in turns: ours, vLLM's with our parameters, and with token ids alone."""
    from vllm import SamplingParams

    prompts, answers, num_prompt, num_answer = turn_sizes(place)
    num_answer //= shorter
    asked = make_prompts(prompts, num_prompt, shape.vocabulary)
    requests = [{"prompt_token_ids": prompt} for prompt in asked]
    sampling = Sampling(temperature=1.0, max_tokens=num_answer)
    common = {"n": answers, "temperature": 1.0, "max_tokens": num_answer}
    same = [SamplingParams(**common, seed=i, logprobs=0) for i in range(prompts)]
    least = [SamplingParams(**common, seed=i, detokenize=False) for i in range(prompts)]
    ways: dict[str, Callable[[], int]] = {
        "ours": lambda: _tokens(
            generator.generate(asked, sampling, num_samples=answers, seeds=range(prompts))
        ),
        "vllm": lambda: _vllm_tokens(generator._llm.generate(requests, same, use_tqdm=False)),
        "vllm_ids_only": lambda: _vllm_tokens(generator._llm.generate(requests, least, use_tqdm=False)),
    }
    generator.generate(
        asked, sampling.model_copy(update={"max_tokens": 8}), num_samples=answers, seeds=[0] * prompts
    )
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name in ("ours", "vllm", "vllm_ids_only", "vllm", "ours"):
        rates[name].append(_rate(place, ways[name]))
    if place.anatomy:
        anatomy.functions(ways["ours"], place.anatomy / "sampling.txt")
    best = {name: max(several) for name, several in rates.items()}
    found: Figures = {f"tokens/s_{name}": value for name, value in best.items()}
    return found | {"ratio": best["ours"] / best["vllm"], "engine_start_s": start, "gib": _used_gib(place)}


def _rate(place: Place, way: Callable[[], int]) -> float:
    """Tokens a second of a call that returns how many it made."""
    made = []
    spent = seconds(place, lambda: made.append(way()), 1)
    return made[0] / spent


def _used_gib(place: Place) -> float:
    """Of the whole card, by whatever runs there."""
    if place.device == "cpu":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


def _tokens(several) -> int:
    return sum(len(c.token_ids) for completions in several for c in completions)


def _vllm_tokens(outputs) -> int:
    return sum(len(c.token_ids) for output in outputs for c in output.outputs)
