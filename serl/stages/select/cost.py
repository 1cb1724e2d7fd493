"""select: a record of each question that is looked at, at least."""

from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.stages.cost import Cost, Known, cost_of
from serl.stages.kind import Stage
from serl.stages.select.spec import KIND, Right, Written


class SelectCost(Cost):
    def given(self, stage: Stage, config: RunConfig, known: Known) -> float:
        source = KIND.data(stage, config)
        low, high = stage.section.questions
        there = cost_of(source.kind).given(source, config, known) if source else known.rows.get(stage.name, 0)
        return (high - low) * there

    def samples(self, section: Section) -> int:
        """Answers of a record: two of a pair."""
        match section.choose:
            case Right(most=most):
                return most
            case Written():
                return 1
            case _:
                return 2

    def longest(self, section: Section) -> int:
        """Of pairs that are given."""
        return section.choose.max_tokens


COST = SelectCost()
