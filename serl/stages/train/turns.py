"""Policy optimisation in turns: sample with the present weights, take some steps on that, give the engine the
new weights.

A kill loses no sample: a resumed training loads the newest checkpoint, which says the turn, and trains again
on the parts that are committed. On as many ranks as before it ends with the same weights.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch

from serl.config.objectives import Correction, Ppo, Vine
from serl.engines import transfer
from serl.engines.model import load_tokenizer
from serl.engines.ranks import Ranks
from serl.engines.resident import Resident
from serl.engines.trainer import StepStats, Trainer
from serl.learning import algorithms, batch
from serl.learning.objective import k3, mismatch
from serl.records import Group, Walk
from serl.rewards.spec import judges
from serl.safety.turns import TurnFigures, examine_turn
from serl.stages import read
from serl.stages.answering import thoughts_of
from serl.stages.fruitless import check_fruit, told_by
from serl.stages.train import credit
from serl.stages.train.course import Course, horizon, safe_point
from serl.stages.train.critic import Critic
from serl.stages.train.guard import check_turn
from serl.stages.train.rollout import Questions, Sampled, Sampler, folded, questions_of
from serl.stages.train.section import Train
from serl.stages.train.spec import CRITIC, KIND
from serl.stages.train.start import Forward, critic_weights, look_first, reference, starting_weights
from serl.stages.work import Work

PROBES = 4  # samples on which engine and trainer are compared after each transfer


def reinforce(work: Work, ranks: Ranks) -> None:
    """All turns of a training, and the policy that they lead to."""
    config, settings = work.run.config, work.stage.section
    assert isinstance(settings, Train) and settings.rollout is not None, "chosen by the section"
    start, digest = starting_weights(work, settings)
    questions = questions_of(work)
    check_fruit(work, len(questions.problems), "question", told_by(work, KIND.data(work.stage, config)))
    judging = {role: work.weights(role)[1] for role in judges(settings.rollout.reward)}
    inputs = {"policy": digest} | judging | dict(questions.inputs)
    if isinstance(settings.objective, Ppo):
        first_critic, inputs["critic"] = critic_weights(work, settings)
    attempt = work.attempt(inputs)
    if judged := config.judged(work.shard.round):
        look_first(work, ranks, read.groups(work.run, judged, completions=False))
    num_turns = _num_turns(settings, len(questions.problems))
    steps = num_turns * _steps_of_a_turn(settings)
    work.phase("engine")
    held = work.held
    engine = Resident(start, held, ranks=ranks)
    engine.sleep()
    work.phase("load")
    trainer = Trainer(
        start,
        settings,
        ranks=ranks,
        horizon=horizon(work, settings.max_steps or steps),
        seed=config.seed * 1000 + work.shard.round,
        temperature=settings.rollout.sampling.temperature,
    )
    critic = Critic(first_critic, settings, trainer) if isinstance(settings.objective, Ppo) else None
    total = min(steps, settings.max_steps or steps)
    within = {CRITIC: critic.trainer} if critic else {}
    course = Course(work, ranks, attempt, trainer, total=max(1, total), within=within)
    sampler = Sampler(work, ranks, engine, questions, held.tensor_parallel)
    tokenizer = load_tokenizer(start)
    try:
        school = School(work, course, engine, sampler, questions, tokenizer, critic)
        counts = school.teach(num_turns)
    finally:
        sampler.close()
    course.publish(tokenizer, counts, kept=school.kept(), beside={read.TURNS: school.folded()})


def _num_turns(settings: Train, num_questions: int) -> int:
    how = settings.rollout
    once = -(-num_questions // how.prompts)
    return min(how.turns or once, once * 10**6)  # without a question there is no turn


def _steps_of_a_turn(settings: Train) -> int:
    how = settings.rollout
    samples = how.prompts * (how.samples + bool(how.proposer and how.proposer.learns))
    return settings.epochs * -(-samples // settings.batch_samples)


@dataclass(slots=True)
class Place:
    """Where a training is: the turn that comes next, where it begins to ask, on how many answers it has been
    trained, and the weight of its KL.
    """

    turn: int = 0
    position: int = 0
    learned: int = 0
    kl: float = 0.0


VALUES = {"value": "value", "value_error": "value_error", "value_clip_fraction": "value_clip_fraction"}
"""Figures of a critic's steps that a turn tells."""
WORST = ("mismatch_kl", "mismatch_max")
"""Figures of the turns of which a training tells the largest."""


class School:
    """The turns of a training."""

    def __init__(
        self,
        work: Work,
        course: Course,
        engine: Resident,
        sampler: Sampler,
        questions: Questions,
        tokenizer,
        critic: Critic | None,
    ):
        self._tokenizer, self._critic = tokenizer, critic
        self._work, self._course, self._engine, self._sampler = work, course, engine, sampler
        self._questions, self._settings = questions, work.stage.section
        self._ranks, self._trainer, self._attempt = course.ranks, course.trainer, course.attempt
        self._reference: Forward | None = None
        self._figures: list[TurnFigures] = []
        self._longest_s = 0.0

    def teach(self, num_turns: int) -> dict[str, float]:
        """Every turn that no checkpoint holds yet; counts of all."""
        place = Place(**({"kl": self._settings.objective.kl} | self._course.resume()))
        self._reference = reference(self._work, self._ranks, self._trainer.temperature, moving=True)
        probes = self._first_probes()
        self._sampler.remember(Sampled.decoded(self._part(number)) for number in range(place.turn))
        while place.turn < num_turns and not self._enough():
            begun = time.monotonic()
            if place.turn in self._settings.rollout.milestones:
                self._course.publish_along(place.turn, self._tokenizer, place.learned)
            sampled, transfer_s = self._sampled(place, probes)
            self._sampler.remember([sampled])
            samples, kl = self._learn(place, sampled, transfer_s)
            probes = samples[:PROBES] or probes
            learned = place.learned + len(samples)
            place = Place(turn=place.turn + 1, position=sampled.position, learned=learned, kl=kl)
            self._longest_s = max(self._longest_s, time.monotonic() - begun)
            last = place.turn == num_turns or self._enough()
            due = place.turn % self._settings.checkpoint_every == 0
            self._course.rest(asdict(place), last=last, due=due, next_s=self._longest_s)
        self._check_fruit(place.learned)
        return self._counts(place.turn)

    def _check_fruit(self, learned: int) -> None:
        """Raise, on all ranks, where no answer of any turn was trained on."""
        groups = [g for part in self._parts for g in Sampled.decoded(part).answered]
        told = ("turns", {"questions": float(len(groups))} | self._sampler.fates(groups))
        what = "group in the band of agreement in any turn"
        check_fruit(self._work, learned, what, self._ranks.from_first([told]))

    def _enough(self) -> bool:
        return self._settings.max_steps is not None and self._course.done >= self._settings.max_steps

    # ------------------------------------------------------------------------------------------ sampling
    def _sampled(self, place: Place, probes: Sequence[batch.Sample]) -> tuple[Sampled, float]:
        """The groups of a turn, from its part if it is committed; and the seconds that the weights took to
        the engine.
        """
        data, transfer_s = self._part(place.turn), 0.0
        if data is None:
            safe_point(self._work, self._ranks, self._longest_s)
            self._work.phase(f"transfer {place.turn + 1}")
            begun = time.monotonic()
            transfer.move(self._engine, self._trainer)
            transfer.check(self._engine, self._trainer, probes)
            transfer_s = time.monotonic() - begun
            self._work.phase(f"sample {place.turn + 1}")
            sampled = self._sampler.turn(place.turn, place.position)
            self._engine.sleep()
            data = self._commit(place.turn, sampled.encoded())
        return Sampled.decoded(data), transfer_s

    def _part(self, number: int) -> bytes | None:
        return self._ranks.from_first(self._attempt.part(number) if self._ranks.first else None)

    def _commit(self, number: int, data: bytes) -> bytes:
        return self._ranks.from_first(self._attempt.commit(number, data) if self._ranks.first else None)

    def _first_probes(self) -> list[batch.Sample]:
        """Before anything is sampled there are the questions' own tokens."""
        tokenizer = self._engine.tokenizer
        chosen = self._questions.problems[:PROBES]
        rows = [torch.tensor(tokenizer(p.question)["input_ids"]) for p in chosen]
        return [batch.Sample(token_L=row, num_prompt=1, column={}) for row in rows if len(row) > 1]

    # ------------------------------------------------------------------------------------------ learning
    def _learn(self, place: Place, sampled: Sampled, transfer_s: float) -> tuple[list[batch.Sample], float]:
        """Some optimizer steps on the turn's groups; the samples that they were taken on, and the weight of
        the KL from here on.
        """
        settings, begun, kl = self._settings, time.monotonic(), place.kl
        kept = self._sampler.in_band(sampled.groups)
        figures = TurnFigures.of(
            place.turn + 1, sampled.answered, len(kept), sampled.asked, settings.rollout.prompts
        )
        samples: list[batch.Sample] = []
        told = sampled.of_proposals()
        if thoughts := thoughts_of(sampled.answered, self._work.run.config.answers):
            told |= thoughts | {"thought_share": thoughts["thought_tokens"] / max(1, thoughts["tokens"])}
        self._work.phase(f"log-probabilities {place.turn + 1}")
        if kept:
            samples, logp = self._prepared(kept, sampled.branches.walks, place.kl)
            figures = replace(figures, **_gaps(logp, settings.correction))
            kl = credit.next_kl(settings, kl, logp)
        if sampled.proposals and self._proposer_learns(place.turn):
            samples = [*samples, *self._prepared(sampled.proposals, (), place.kl)[0]]
        logprob_s = time.monotonic() - begun
        if samples:
            stats, of_critic = self._steps(place, samples)
            told |= _means(of_critic, VALUES) | ({"kl_weight": place.kl} if self._critic else {})
            moved = _means(stats, {"approx_kl": "kl", "clip_fraction": "clip_fraction"})
            figures = replace(figures, **moved)
        spent = {"sample_s": sampled.sample_s, "vote_s": sampled.vote_s, "transfer_s": transfer_s}
        if branches := sampled.branches.states:
            spent |= {"branch_s": sampled.branch_s, "states": branches, "whole": sampled.branches.whole}
        spent |= {"logprob_s": logprob_s, "step_s": time.monotonic() - begun - logprob_s}
        self._tell(figures, told | spent)
        return samples, kl

    def _proposer_learns(self, turn: int) -> bool:
        how = self._settings.rollout.proposer
        return how is not None and how.learns and (turn + 1) % how.every == 0

    def _prepared(
        self, groups: Sequence[Group], walks: Sequence[Walk], kl: float
    ) -> tuple[list[batch.Sample], algorithms.LogProbs]:
        """What is learned of groups of one size, with all that the loss reads, and its log-probabilities."""
        samples = [_sample(g, i) for g in groups for i in range(len(g.completions))]
        logp = self._log_probabilities(samples, groups)
        value_T = self._critic.values(samples) if self._critic else None
        columns = credit.columns(self._settings, groups, walks, value_T, logp, kl)
        return batch.attach(samples, columns), logp

    def _log_probabilities(
        self, samples: Sequence[batch.Sample], kept: Sequence[Group]
    ) -> algorithms.LogProbs:
        old_T = torch.cat(self._trainer.logprobs(samples))
        ref_T = torch.cat(self._reference(samples)) if self._reference else old_T
        behaviour_T = torch.tensor([x for g in kept for c in g.completions for x in c.logprobs])
        length_S = torch.tensor([s.num_response for s in samples])
        return algorithms.LogProbs(old_T=old_T, ref_T=ref_T, behaviour_T=behaviour_T, length_S=length_S)

    def _steps(
        self, place: Place, samples: Sequence[batch.Sample]
    ) -> tuple[list[StepStats], list[StepStats]]:
        """The turn's steps, of the policy and of the critic beside it."""
        settings, config, shard = self._settings, self._work.run.config, self._work.shard
        loss = credit.policy_loss(settings, place.kl)
        stats: list[StepStats] = []
        of_critic: list[StepStats] = []
        for epoch in range(settings.epochs):
            number = place.turn * settings.epochs + epoch
            order = batch.sample_order(len(samples), config.seed, shard.round, shard.stage, number)
            for chosen in batch.split_evenly(order, settings.batch_samples):
                if not self._enough():
                    mine = [samples[i] for i in chosen]
                    stats.append(self._course.step(mine, loss))
                    if self._critic:
                        of_critic.append(self._critic.step(mine))
        return stats, of_critic

    # ------------------------------------------------------------------------------------------ telling
    def _tell(self, figures: TurnFigures, spent: dict[str, float]) -> None:
        """Say how the turn went; raise Unsafe, on all ranks, where that is a reason to stop."""
        self._figures.append(figures)
        numbers = {k: float(f"{v:.6g}") for k, v in (figures.numbers() | spent).items()}
        if self._ranks.first:
            self._work.events.add("turn", turn=figures.turn, step=self._course.done, **numbers)
            self._course.draw({f"turn/{name}": v for name, v in numbers.items()}, self._course.at)
        alarms = examine_turn(self._figures, self._work.run.config.safety)
        check_turn(self._work, self._ranks, figures, alarms)

    def _counts(self, turns: int) -> dict[str, float]:
        """Of all turns, read from their parts, so that a resumed training counts what it found, too."""
        decoded = [Sampled.decoded(part) for part in self._parts]
        groups = [g for s in decoded for g in s.answered]
        proposals = [k for s in decoded for g in s.proposals for k in g.labels]
        kept = self._sampler.in_band(groups)
        counts = {"turns": turns, "asked": sum(s.asked for s in decoded), "groups": len(groups)}
        counts |= {"groups_kept": len(kept), "samples": sum(len(g.rewards) for g in kept)}
        counts |= thoughts_of(groups, self._work.run.config.answers)
        if isinstance(self._settings.objective, Vine):
            counts |= {
                "states": sum(s.branches.states for s in decoded),
                "rollouts": sum(s.branches.rollouts for s in decoded),
                "answers_whole": sum(s.branches.whole for s in decoded),
            }
        if proposals:
            counts |= {"proposals": len(proposals), "valid": sum(k is not None for k in proposals)}
        if self._figures:
            counts |= {f"turn_{name}": value for name, value in self._figures[-1].numbers().items()}
            counts |= {name: max(getattr(f, name) for f in self._figures) for name in WORST}
        return counts | ({} if kept else {"idle": 1.0})

    def kept(self) -> list[Group]:
        """The questions that passed the difficulty filter: of the stage before, or of the turns."""
        source = KIND.data(self._work.stage, self._work.run.config)
        if source is not None and source.gives == "groups":
            return read.trainable(
                self._work.stage, source, read.groups(self._work.run, source, completions=False)
            )[0]
        groups = [g for part in self._parts for g in Sampled.decoded(part).groups]
        return list({g.question: g for g in self._sampler.in_band(groups)}.values())

    def folded(self) -> bytes:
        return folded(self._parts)

    @cached_property
    def _parts(self) -> list[bytes]:
        """What all turns sampled, on rank 0; for when the last of them is done."""
        parts, number = [], 0
        while self._ranks.first and (part := self._attempt.part(number)) is not None:
            parts.append(part)
            number += 1
        return parts


def _sample(group: Group, i: int) -> batch.Sample:
    tokens = torch.tensor(group.prompt_ids + group.completions[i].token_ids)
    return batch.Sample(token_L=tokens, num_prompt=len(group.prompt_ids), column={})


def _gaps(logp: algorithms.LogProbs, correction: Correction) -> dict[str, float]:
    """How far the sampler and the reference are from the policy, and what the former weighs."""
    found = mismatch(logp.old_T, logp.behaviour_T)
    gaps = {name: found[name] for name in ("mismatch_kl", "mismatch_max")}
    gaps |= algorithms.correction_summary(correction, logp)
    return gaps | {"kl_ref": k3(logp.old_T, logp.ref_T).mean().item()}


def _means(stats: Sequence[StepStats], names: Mapping[str, str]) -> dict[str, float]:
    """Of the turn's steps, those that they tell of `names`, under ours."""
    if not stats:
        return {}
    tokens = sum(s.tokens for s in stats)
    return {
        ours: sum(s.means[name] * s.tokens for s in stats) / tokens
        for name, ours in names.items()
        if name in stats[0].means
    }
