"""Training in turns: does the engine beside the trainer compute its policy, and what does a turn cost?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from figures import GIB, STEP_SAMPLES, flops, peak_tflops, sampling_rates, turn_sizes
from models import (
    SHAPES,
    Place,
    llama_config,
    make_prompts,
    make_samples,
    make_tokenizer,
    random_llama,
    training,
    uneven,
)
from sheet import Figures, Sheet
from torch import Tensor
from transformers import GenerationConfig

from serl.config.engine import Engine, Sampling
from serl.config.training import Training
from serl.engines import transfer
from serl.engines.ranks import join_ranks
from serl.engines.resident import Resident
from serl.engines.trainer import Trainer
from serl.learning.batch import Sample
from serl.learning.objective import ImitationLoss, PolicyLoss
from serl.records import Completion


def pair(
    place: Place, shape: str, engine: Engine, settings: Training | None = None
) -> tuple[Resident, Trainer]:
    """An engine that has no weights yet and sleeps, and a trainer of random ones; as a training does."""
    ranks = join_ranks(place.device, timeout_s=300)
    config, folder = llama_config(SHAPES[shape], place), place.root / "shape"
    for part in (config, GenerationConfig.from_model_config(config), make_tokenizer(config.vocab_size)):
        part.save_pretrained(folder)
    resident = Resident(folder, engine, ranks=ranks)
    resident.sleep()
    lm = random_llama(SHAPES[shape], 0, place)
    settings = settings or training(1, gradient_checkpointing=True)
    return resident, Trainer(lm, settings, ranks=ranks, horizon=10**6, seed=0)


# ------------------------------------------------------------------------------------ correctness
def taking(sheet: Sheet, place: Place, *, shape: str, eager: bool) -> None:
    """The engine computes what the trainer does after each transfer, asleep before or not."""
    small = Engine(max_model_len=256, kv_cache_gib=0.25, gpu_memory_utilization=0.1, eager=eager)
    engine, trainer = pair(place, shape, small)
    sheet.claim(
        f"engine takes weights, {shape}", partial(_takes, place, engine, trainer, SHAPES[shape].vocabulary)
    )
    sheet.claim(
        f"engine sleeps and wakes, {shape}", partial(_wakes, engine, trainer, SHAPES[shape].vocabulary)
    )


def _takes(place: Place, engine: Resident, trainer: Trainer, vocabulary: int) -> Figures:
    read, found = make_samples(uneven(8), vocabulary), {}
    transfer.move(engine, trainer)
    found["first"] = transfer.check(engine, trainer, read).mean
    trainer.step(make_samples(uneven(16), vocabulary), ImitationLoss())
    found["stale"] = transfer.measure(engine, trainer, read).mean
    transfer.move(engine, trainer)
    found["second"] = transfer.check(engine, trainer, read).mean
    assert found["stale"] > 10 * found["second"], f"a step does not show: {found}"
    return found


def _wakes(engine: Resident, trainer: Trainer, vocabulary: int) -> Figures:
    read, prompts = make_samples(uneven(8), vocabulary), make_prompts(4, 24, vocabulary)
    sampling = Sampling(temperature=1.0, max_tokens=16)
    before = engine.generate(prompts, sampling, num_samples=1, seeds=range(4))
    engine.sleep(1)
    engine.wake()
    after = engine.generate(prompts, sampling, num_samples=1, seeds=range(4))
    assert [c[0].token_ids for c in before] == [c[0].token_ids for c in after], "other tokens after a sleep"
    engine.sleep(2)
    transfer.move(engine, trainer)
    return {"after_level_2": transfer.check(engine, trainer, read).mean}


# ------------------------------------------------------------------------------------ figures
@dataclass(slots=True)
class Clock:
    """Seconds by name, until the device is done."""

    place: Place
    spent: dict[str, float] = field(default_factory=dict)

    def __call__(self, name: str, work: Callable[[], object]) -> object:
        begun = time.perf_counter()
        made = work()
        if self.place.device != "cpu":
            torch.cuda.synchronize()
        self.spent[f"{name}_s"] = time.perf_counter() - begun
        return made


def turn(sheet: Sheet, place: Place, *, shape: str, kv_cache_gib: float, checkpointing: bool) -> None:
    """Whole turns: weights to the engine, answers, sleep, log-probabilities, steps. The second counts; what
    is compiled in the first is compiled for its lengths, too. The peak counts the weights and cache of the
    sleeping engine, which the card does not hold then.

    Then, on shorter answers, the engine's door against vLLM's, which here is the same engine.
    """
    engine = Engine(
        max_model_len=64 if place.small else 1024, kv_cache_gib=kv_cache_gib, gpu_memory_utilization=0.2
    )
    begun = time.perf_counter()
    settings = training(1, gradient_checkpointing=checkpointing, compile=True)
    resident, trainer = pair(place, shape, engine, settings)
    started = time.perf_counter() - begun
    sheet.claim(f"a first turn, {shape}", partial(_turn, place, resident, trainer, shape))
    sheet.claim(f"a turn, {shape}", partial(_turn, place, resident, trainer, shape))
    sheet.add(f"trainer and engine start, {shape}", started, {})
    transfer.move(resident, trainer)
    sheet.claim(
        f"sampling in turns, {shape}", partial(sampling_rates, place, resident, SHAPES[shape], started, 4)
    )


def _turn(place: Place, engine: Resident, trainer: Trainer, shape: str) -> Figures:
    clock = Clock(place)
    num, answers, num_prompt, num_answer = turn_sizes(place)
    prompts = make_prompts(num, num_prompt, SHAPES[shape].vocabulary)
    sampling = Sampling(temperature=1.0, max_tokens=num_answer)
    clock("transfer", lambda: transfer.move(engine, trainer))
    several = clock(
        "sample", lambda: engine.generate(prompts, sampling, num_samples=answers, seeds=range(num))
    )
    clock("sleep", engine.sleep)
    bare = _samples(prompts, several)
    old = clock("logprobs", lambda: trainer.logprobs(bare))
    gap = _gap(several, old)
    batch = _with_columns(bare, old)
    steps = [batch[i : i + STEP_SAMPLES] for i in range(0, len(batch), STEP_SAMPLES)]
    clock("steps", lambda: [trainer.step(step, PolicyLoss(clip=0.2)) for step in steps])
    whole = sum(clock.spent.values())
    beside = 1 - (clock.spent["sample_s"] + clock.spent["logprobs_s"] + clock.spent["steps_s"]) / whole
    peak = 0.0 if place.device == "cpu" else torch.cuda.max_memory_allocated() / GIB
    work = flops(SHAPES[shape], batch) / 1e12 / peak_tflops(place)
    shares = {
        "mfu_logprobs": work / clock.spent["logprobs_s"],
        "mfu_steps": 3 * work / clock.spent["steps_s"],
    }
    return clock.spent | {"turn_s": whole, "beside": beside, "gap": gap, "peak_gib": peak} | shares


def _samples(prompts: Sequence[Sequence[int]], several: Sequence[Sequence[Completion]]) -> list[Sample]:
    return [
        Sample(token_L=torch.tensor([*prompt, *c.token_ids]), num_prompt=len(prompt), column={})
        for prompt, completions in zip(prompts, several)
        for c in completions
    ]


def _gap(several: Sequence[Sequence[Completion]], ours: Sequence[Tensor]) -> float:
    theirs = torch.tensor([x for completions in several for c in completions for x in c.logprobs])
    return (torch.cat(list(ours)) - theirs).abs().mean().item()


def _with_columns(samples: Sequence[Sample], old: Sequence[Tensor]) -> list[Sample]:
    g = torch.Generator().manual_seed(4)
    return [
        replace(
            s,
            column={
                "weight": torch.ones(s.num_response),
                "advantage": torch.randn(s.num_response, generator=g),
                "old_logp": logp,
            },
        )
        for s, logp in zip(samples, old)
    ]
