"""train: optimizer steps on the tokens of documents, or of the groups that pass the difficulty filter."""

import math
from collections.abc import Mapping

from serl.config.run import RunConfig
from serl.config.training import Pretrain
from serl.stages.cost import Cost, Known, Lesson, cost_of
from serl.stages.kind import Stage
from serl.stages.train.section import Train
from serl.stages.train.spec import KIND


class TrainCost(Cost):

    def lesson(self, stage: Stage, config: RunConfig, known: Known) -> Lesson:
        source, section = KIND.data(stage, config), stage.section
        if isinstance(section, Train) and section.rollout:
            return self._turns(stage, config, known)
        assert source is not None, "checked with the configuration"
        reckon = cost_of(source.kind)
        if isinstance(section, Pretrain):
            per_document = known.rate(source, "tokens", "documents", 0.0)
            tokens = per_document * reckon.given(source, config, known)
            steps = max(1, math.ceil(tokens * section.epochs / section.batch_tokens))
            return Lesson(steps=steps, step_tokens=section.batch_tokens)
        writer = source.kind.writer(source, config)
        length = cost_of(writer.kind).length(writer, known)
        kept = known.rate(stage, "kept", "groups", 1.0)
        answers = reckon.samples(source.section)
        samples = reckon.given(source, config, known) * kept * answers
        most = section.max_groups(answers)
        learned = samples if most is None else min(samples, most * answers)
        steps = max(1, math.ceil(learned / section.batch_samples)) * section.epochs
        return Lesson(
            steps=min(steps, section.max_steps or steps),
            step_tokens=learned * section.epochs / steps * length,
        )

    def even(self, section: Train | Pretrain) -> bool:
        """Between the steps of two turns it samples."""
        return isinstance(section, Pretrain) or section.rollout is None

    def keeps_every(self, section: Train | Pretrain) -> int:
        """In turns, checkpoints are counted in them."""
        if self.even(section):
            return section.checkpoint_every
        answers = section.rollout.prompts * section.rollout.samples
        return section.checkpoint_every * section.epochs * math.ceil(answers / section.batch_samples)

    def _turns(self, stage: Stage, config: RunConfig, known: Known) -> Lesson:
        """Steps on every answer that is kept; a turn's sampling is in what a step was measured to take."""
        section, how = stage.section, stage.section.rollout
        kept = known.rate(stage, "kept", "groups", 1.0)
        turns = KIND.num_turns(stage, config)
        samples = turns * how.prompts * how.samples * (1.0 if how.refill else kept)
        samples += turns * how.prompts * bool(how.proposer and how.proposer.learns)
        steps = max(1, math.ceil(samples / section.batch_samples)) * section.epochs
        steps = min(steps, section.max_steps or steps)
        length = known.rate(stage, "tokens", "samples", how.sampling.max_tokens)
        tokens = samples * min(length, how.sampling.max_tokens)
        return Lesson(steps=steps, step_tokens=tokens / steps)

    def yields(
        self, stage: Stage, counts: Mapping[str, float], items: float, tokens: float
    ) -> dict[str, float]:
        groups = counts.get("groups", sum(n for name, n in counts.items() if name.startswith("groups_")))
        return {"groups": groups, "kept": counts.get("groups_kept", 0.0)}


COST = TrainCost()
