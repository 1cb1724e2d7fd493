"""What a run is: phases of rounds of stages, and what all of them share.

Nothing here reads a file (see `files`), imports torch, or knows where jobs run: a cluster file says *where*,
a run file says *what*. What a stage may be told is its kind's business (`serl.stages`). The schema of a run
therefore depends on its phases: `schema_of` makes it, `parse` uses it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evaluation.domain import Answers, MathAnswers
from serl import stages as rooms
from serl.config.base import BaseModelSpec
from serl.config.coherence import MAX_ROUNDS, incoherences
from serl.config.engine import Engine, Prompts, Quality
from serl.config.rules import Safety
from serl.config.schema import Section, Seed
from serl.stages.kind import AT, POLICY, Kind, Stage, StageSection
from serl.stages.sources import Problems

NAME = r"^[a-z][a-z0-9_]{0,39}$"  # of a phase or a stage


class Phase(Section):
    """`rounds` times the same stages. Each stage has a section of its name beside these keys."""

    rounds: Annotated[int, Field(ge=0, le=MAX_ROUNDS)] = 1
    stages: Annotated[tuple[str, ...], Field(min_length=1)]
    until: str | None = Field(
        default=None, description="a count that ends the phase after the first round in which it is not 0"
    )
    carry: Literal["phase", "round"] = Field(
        default="round",
        description="phase: a role's optimizer, schedule and step count go on through the rounds; round: "
        "they begin anew",
    )

    def section(self, stage: str) -> StageSection:
        return getattr(self, stage)


class Phases(Section):
    """The phases by name, in their order."""

    def items(self) -> Iterator[tuple[str, Phase]]:
        return ((name, getattr(self, name)) for name in type(self).model_fields)


class RunConfig(Section):
    """One experiment, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    seed: Seed = 0
    base: BaseModelSpec
    prompts: Prompts
    answers: Answers = MathAnswers()
    quality: Quality = Quality()
    seeds: Problems | None = None
    engine: Engine
    plugins: tuple[str, ...] = Field(
        default=(), description="packages that are kinds of stages, like my_project.stages.debate"
    )
    safety: Safety = Safety()
    phases: Phases

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if problem := next(incoherences(self), None):
            raise ValueError(problem)
        return self

    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    # ------------------------------------------------------------------------------------------ the method
    @property
    def rounds(self) -> int:
        """Of all phases together; round 0, the base model, is not counted."""
        return sum(phase.rounds for _, phase in self.phases.items())

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage of every round, in the order in which a single worker would do them."""
        return tuple(_stages(self))

    @cached_property
    def _by_name(self) -> Mapping[tuple[int, str], int]:
        return {(s.round, s.name): i for i, s in enumerate(self.stages)}

    def stage(self, round: int, name: str) -> Stage:
        return self.stages[self._by_name[round, name]]

    def has(self, round: int, name: str) -> bool:
        return (round, name) in self._by_name

    def at(self, round: int) -> tuple[Stage, ...]:
        return tuple(s for s in self.stages if s.round == round)

    def phase(self, round: int) -> tuple[str, Phase, int]:
        """The name and the phase of a round above 0, and the phase's first round."""
        first = 1
        for name, phase in self.phases.items():
            if round < first + phase.rounds:
                return name, phase, first
            first += phase.rounds
        raise ValueError(f"round {round}: the run has {self.rounds}")

    def before(self, stage: Stage) -> Iterator[Stage]:
        """The stages that come before it, the nearest first."""
        return reversed(self.stages[: self._by_name[stage.round, stage.name]])

    def source(self, stage: Stage, gives: str, name: str | None = None) -> Stage | None:
        """The nearest stage before it in its round that gives such records; if `name` is given, the nearest
        of any round that is called so. Milestones are nobody's source.
        """
        for other in self.before(stage):
            if name is None and other.round != stage.round:
                return None
            if other.gives == gives and not other.milestone and name in (None, other.name):
                return other
        return None

    def reader(self, stage: Stage) -> Stage | None:
        """A stage after it in its round that reads it."""
        return next((s for s in self.at(stage.round) if stage in s.kind.reads(s, self)), None)

    def trained(self, stage: Stage, role: str) -> Stage | None:
        """The last training of a role before a stage, or the milestone of it that the stage looks at; None
        where the role still is the base model.
        """
        last = next((s for s in self.before(stage) if role in s.weights), None)
        if last is None or not stage.milestone:
            return last
        along = f"{last.name}{AT}{stage.milestone}"
        return self.stage(last.round, along) if self.has(last.round, along) else last

    def giving(self, round: int, gives: str, milestone: int = 0) -> Stage | None:
        """The round's first stage that gives such records of its last weights, or of those of a milestone."""
        ours = (s for s in self.at(round) if s.milestone == milestone)
        return next((s for s in ours if s.gives == gives), None)

    def milestones(self, training: Stage) -> list[Stage]:
        """What a training publishes along the way."""
        return [s for s in self.at(training.round) if s.maker == training.job != s.job]

    def training(self, round: int, role: str = POLICY) -> Stage | None:
        return next((s for s in self.at(round) if s.role == role), None)

    def judged(self, round: int) -> Stage | None:
        """The stage whose groups the policy's training of a round learns from: what safety looks at."""
        training = self.training(round) if round else None
        found = training.kind.reads(training, self) if training else ()
        return next((s for s in found if s.gives == "groups" and s.round == round), None)

    def ended_by(self, stage: Stage) -> Stage | None:
        """The stage of the round before whose count may have ended the phase that both are in."""
        if stage.round < 2:
            return None
        _, phase, first = self.phase(stage.round)
        if phase.until is None or stage.round == first:
            return None
        return next(s for s in self.at(stage.round - 1) if phase.until in s.kind.signals)

    def cut(self, rounds: int) -> Self:
        """The same with its first `rounds` rounds alone."""
        left, phases = rounds, {}
        for name, phase in self.phases.items():
            phases[name] = phase.model_copy(update={"rounds": min(phase.rounds, left)})
            left -= phases[name].rounds
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        return type(self).model_construct(**fields | {"phases": self.phases.model_copy(update=phases)})


def digest(config: dict) -> str:
    """What every manifest records of a configuration as JSON: two runs with equal digests do the same
    work.
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _at_base(name: str, phase: Phase, own: Mapping[str, Kind]) -> list[Stage]:
    """The stages of a phase that round 0, the base model, has, too."""
    found = [(stage, section := phase.section(stage), own[section.kind or stage]) for stage in phase.stages]
    return [
        Stage(round=0, name=stage, kind=kind, section=section, phase=name)
        for stage, section, kind in found
        if kind.at_base
    ]


def _stages(config: RunConfig) -> Iterator[Stage]:
    """Round 0 makes the base model where it is made on the spot, and does what can be done with it of the
    first phase that has such stages.
    """
    own = rooms.kinds(config.plugins)
    phases = list(config.phases.items())
    for name, kind in own.items():
        if section := kind.base_section(config.base):
            yield Stage(round=0, name=name, kind=kind, section=section, phase="")
    yield from next(filter(None, (_at_base(name, phase, own) for name, phase in phases)), [])
    round = 0
    for name, phase in phases:
        for _ in range(phase.rounds):
            round += 1
            sections = ((stage, phase.section(stage)) for stage in phase.stages)
            listed = [
                Stage(round=round, name=stage, kind=own[s.kind or stage], section=s, phase=name)
                for stage, s in sections
            ]
            for place, stage in enumerate(listed):
                yield stage
                yield from _along(stage, listed[place + 1 :])


def _along(training: Stage, after: Sequence[Stage]) -> Iterator[Stage]:
    """What a training publishes along the way, and what of the stages after it looks at that."""
    for turn in training.kind.milestones(training.section):
        yield training.at(turn, training.section)
        for stage in after:
            section = stage.kind.at_milestone(stage.section)
            if section is not None and training.role in stage.kind.uses(stage.section):
                yield stage.at(turn, section)
