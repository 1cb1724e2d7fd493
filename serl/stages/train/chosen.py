"""Offline training on what a stage before has chosen: pairs, of which one answer is the better, or right
answers to imitate; or on all answers of its groups, with what they earned.

A reward model reads pairs with a scalar head, DPO and implicit rewards with log-probabilities; imitation
reads answers, and has a loss on these alone.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from serl.config.objectives import BradleyTerry, Dpo, ImplicitReward, Imitation, learns_from, needs_scalar
from serl.engines.model import load_tokenizer
from serl.engines.ranks import Ranks
from serl.engines.trainer import Trainer
from serl.learning import columns
from serl.learning.advantage import spread
from serl.learning.algorithms import sequence_column
from serl.learning.batch import Sample
from serl.learning.objective import ImitationLoss, Loss, mean_weights
from serl.learning.preference import preference_loss
from serl.stages import read
from serl.stages.fruitless import check_fruit, told_by
from serl.stages.kind import Stage
from serl.stages.train.course import Course, horizon
from serl.stages.train.frozen import batches_of, inputs_of, log_probabilities, read_answers, take_steps
from serl.stages.train.section import Train
from serl.stages.train.spec import KIND
from serl.stages.train.start import starting_weights
from serl.stages.work import Work

TEMPERATURE = 1.0  # of the policies that preferences compare


def learn(work: Work, ranks: Ranks) -> None:
    """All steps on the chosen pairs or answers, and the weights that they lead to."""
    config, settings = work.run.config, work.stage.section
    source = KIND.data(work.stage, config)
    assert isinstance(settings, Train) and source is not None, "checked with the configuration"
    start, digest = starting_weights(work, settings)
    attempt = work.attempt({"policy": digest} | inputs_of(work, source))
    samples = columns.Samples(read_answers(work, ranks, source, _kept(work, source)))
    in_pairs = learns_from(settings.objective) == "pairs"
    check_fruit(work, len(samples), "pair" if in_pairs else "answer", told_by(work, source))
    batches = batches_of(work, settings, len(samples), together=2 if in_pairs else 1)
    work.phase("load")
    trainer = Trainer(
        start,
        settings,
        ranks=ranks,
        horizon=horizon(work, settings.max_steps or len(batches)),
        seed=config.seed * 1000 + work.shard.round,
        temperature=TEMPERATURE,
        head="scalar" if needs_scalar(settings.objective) else "tokens",
        in_pairs=in_pairs,
    )
    course = Course(work, ranks, attempt, trainer, total=max(1, len(batches)))
    counts = {"samples": float(len(samples))}
    if samples:
        told, loss = _told(course, samples, settings)
        take_steps(course, told, batches, loss)
    else:
        counts["idle"] = 1.0
    course.publish(load_tokenizer(start), counts)


def _told(course: Course, samples: columns.Samples, settings: Train) -> tuple[Sequence[Sample], Loss]:
    """The samples with all that the loss reads, and the loss."""
    work, length_S = course.work, samples.answers.length_S
    match settings.objective:
        case Imitation():
            weight_T = mean_weights(length_S, settings.loss_mean or "token")
            return samples.attach({"weight": weight_T}), ImitationLoss()
        case BradleyTerry() as kind:
            column = _of_pairs(work) | {"weight": torch.ones(len(samples))}
            return columns.Texts(samples, column), preference_loss(kind)
        case Dpo() as kind:
            logp = log_probabilities(work, course.ranks, course.attempt, course.trainer, samples)
            column = {
                "weight": mean_weights(length_S, "sequence"),
                "ref_logp": logp.ref_T,
                "sequence": sequence_column(length_S),
                "label": spread(_of_pairs(work)["label"], length_S),
            }
            return samples.attach(column), preference_loss(kind)
        case ImplicitReward() as kind:
            logp = log_probabilities(work, course.ranks, course.attempt, course.trainer, samples)
            column = {
                "weight": mean_weights(length_S, "sequence"),
                "ref_logp": logp.ref_T,
                "sequence": sequence_column(length_S),
            }
            if kind.form != "nca":
                label_S = _of_groups(work)
                column |= {"label": spread(label_S, length_S), "anchor": spread(0 * label_S, length_S)}
            return samples.attach(column), preference_loss(kind)
        case other:
            raise AssertionError(f"{other.kind} learns from groups that the policy has sampled")


def _kept(work: Work, source: Stage) -> list[bool]:
    """Which records of the source are learned from: of groups those that are not asked just to watch."""
    if source.gives == "groups":
        return [g.own for g in read.groups(work.run, source, completions=False)]
    return [True] * sum(m.files[0].rows for m in read.left(work.run, source))


def _of_groups(work: Work) -> Tensor:
    """What each answer earned, as the probability that it is right."""
    source = KIND.data(work.stage, work.run.config)
    groups = [g for g in read.groups(work.run, source, completions=False) if g.own]
    for g in groups:
        if wrong := [r for r in g.rewards if not 0.0 <= r <= 1.0]:
            raise ValueError(
                f"{source.name}: {g.question!r}: an answer earned {wrong[0]:g}; an implicit reward is "
                "learned from labels between 0 and 1: use another reward there, or pairs (form: nca)"
            )
    return torch.tensor([r for g in groups for r in g.rewards])


def _of_pairs(work: Work) -> Mapping[str, Tensor]:
    """The label and margin of each pair, at both of its answers."""
    source = KIND.data(work.stage, work.run.config)
    pairs = read.pairs(work.run, source)
    return {
        "label": torch.tensor([p.label for p in pairs for _ in p.completions]),
        "margin": torch.tensor([p.margin for p in pairs for _ in p.completions]),
    }
