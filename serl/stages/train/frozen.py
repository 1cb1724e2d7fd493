"""Policy optimisation on the groups that a stage before has answered: one batch of answers, of the policy
that training starts from.
"""

import io
import time
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from serl.engines.model import load_tokenizer
from serl.engines.ranks import Ranks
from serl.engines.trainer import Trainer
from serl.learning import algorithms, batch, columns
from serl.learning.objective import Loss, mismatch
from serl.records import Group
from serl.run.attempt import Attempt
from serl.stages import read
from serl.stages.fruitless import check_fruit, told_by
from serl.stages.kind import Stage
from serl.stages.train.course import Course, horizon, safe_point
from serl.stages.train.section import Train
from serl.stages.train.spec import KIND
from serl.stages.train.start import Forward, look_first, reference, starting_weights
from serl.stages.work import Work

PART_SAMPLES = 4096  # whose log-probabilities are committed together


def reinforce(work: Work, ranks: Ranks) -> None:
    """One round of policy optimisation on its kept groups."""
    config, round = work.run.config, work.shard.round
    settings, source = work.stage.section, KIND.data(work.stage, config)
    assert isinstance(settings, Train) and source is not None, "checked with the configuration"
    previous, digest = starting_weights(work, settings)
    attempt = work.attempt({"policy": digest} | inputs_of(work, source))
    groups = read.groups(work.run, source, completions=False)
    if config.judged(round) == source:
        look_first(work, ranks, groups)
    kept, fates = read.trainable(work.stage, source, groups)
    taught = kept[: settings.max_groups(source.section.samples)]
    chosen = {id(g) for g in taught}
    chosen_from = chain(told_by(work, source), [("agreement", fates)])
    check_fruit(work, len(taught), "group in the band of agreement", chosen_from)
    samples = columns.Samples(read_answers(work, ranks, source, [id(g) in chosen for g in groups]))
    batches = batches_of(work, settings, len(samples))
    work.phase("load")
    trainer = Trainer(
        previous,
        settings,
        ranks=ranks,
        horizon=horizon(work, settings.max_steps or len(batches)),
        seed=config.seed * 1000 + round,
        temperature=source.section.sampling.temperature,
    )
    course = Course(work, ranks, attempt, trainer, total=len(batches))
    counts: dict[str, float] = {f"groups_{name}": n for name, n in fates.items()} | {"samples": len(samples)}
    counts |= _teach(work, course, samples, batches, taught) if samples else {"idle": 1.0}
    course.publish(load_tokenizer(previous), counts, kept=kept)


def inputs_of(work: Work, source: Stage) -> dict[str, str]:
    """What is learned from, by digest."""
    found = work.run.complete(source.round, source.name)
    return {f"{source.name}/{m.shard.index:05d}": m.digest for m in found}


def batches_of(work: Work, settings: Train, num_samples: int, together: int = 1) -> list[list[int]]:
    """The optimizer batches of all epochs; so many neighbours stay `together`."""
    seed, round, stage = work.run.config.seed, work.shard.round, work.shard.stage
    units, size = num_samples // together, settings.batch_samples // together
    orders = (batch.sample_order(units, seed, round, stage, e) for e in range(settings.epochs))
    found = [b for order in orders for b in batch.split_evenly(order, size)][: settings.max_steps]
    return [[u * together + i for u in b for i in range(together)] for b in found]


def take_steps(
    course: Course, samples: Sequence[batch.Sample], batches: Sequence[Sequence[int]], loss: Loss
) -> None:
    """Every optimizer step that no checkpoint holds yet."""
    course.resume()
    start = time.monotonic()
    for number in range(course.done, len(batches)):
        course.step([samples[i] for i in batches[number]], loss)
        due = course.done % course.trainer.settings.checkpoint_every == 0
        course.rest({}, last=course.done == len(batches), due=due)
    course.work.events.add("phase", name="steps", seconds=round(time.monotonic() - start, 3))


def _teach(
    work: Work,
    course: Course,
    samples: columns.Samples,
    batches: Sequence[Sequence[int]],
    taught: Sequence[Group],
) -> dict[str, float]:
    """The steps; figures of the whole."""
    settings = work.stage.section
    logp = log_probabilities(work, course.ranks, course.attempt, course.trainer, samples)
    reward_GN = torch.tensor([g.rewards for g in taught])
    column = algorithms.columns(settings.objective, reward_GN, logp, settings.loss_mean, settings.correction)
    take_steps(course, samples.attach(column), batches, algorithms.policy_loss(settings.objective))
    told = mismatch(logp.old_T, logp.behaviour_T)
    return told | algorithms.correction_summary(settings.correction, logp)


def read_answers(work: Work, ranks: Ranks, source: Stage, kept: Sequence[bool]) -> columns.Answers:
    """The tokens of the records that are kept; each rank checks its share of the files against their
    digests.
    """
    files = (
        work.run.read(m) if i % ranks.size == ranks.rank else work.run.path(m, m.files[0])
        for i, m in enumerate(read.left(work.run, source))
    )
    return columns.read_answers(files, kept)


def log_probabilities(
    work: Work, ranks: Ranks, attempt: Attempt, trainer: Trainer, samples: columns.Samples
) -> algorithms.LogProbs:
    """Of every response token under the round's first weights and the reference; computed once and kept in
    parts, so a resume is exact.
    """
    parts: list[np.ndarray] = []
    other: Forward | None = None
    spent_s = longest_s = 0.0
    for number, begin in enumerate(range(0, len(samples), PART_SAMPLES)):
        saved = ranks.from_first(attempt.part(number) if ranks.first else None)
        if saved is None:
            safe_point(work, ranks, longest_s)
            work.phase(f"log-probabilities {number + 1}")
            begun, mine = time.monotonic(), samples[begin : begin + PART_SAMPLES]
            other = other or reference(work, ranks, trainer.temperature, moving=False)
            old_T = torch.cat(trainer.logprobs(mine))
            both = np.stack([old_T.numpy(), torch.cat(other(mine)).numpy() if other else old_T.numpy()])
            saved = ranks.from_first(attempt.commit(number, _npy(both)) if ranks.first else None)
            longest_s = max(longest_s, time.monotonic() - begun)
            spent_s += time.monotonic() - begun
        parts.append(np.load(io.BytesIO(saved), allow_pickle=False))
    if spent_s:
        work.events.add("phase", name="log-probabilities", seconds=round(spent_s, 3))
    old_T, ref_T = torch.from_numpy(np.concatenate(parts, axis=1))
    return algorithms.LogProbs(
        old_T=old_T, ref_T=ref_T, behaviour_T=samples.answers.behaviour_T, length_S=samples.answers.length_S
    )


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()
