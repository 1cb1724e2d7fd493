"""select: a new set from stored answers: pairs to compare, or the right ones to imitate."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serl.config.run import RunConfig
from serl.config.schema import Count, Fraction, Positive, Section
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, Bounds, Gives, Kind, Stage, StageSection, World
from serl.stages.sources import Pairs, Part, Texts
from serl.text.pairs import load_pairs, load_texts
from serl.text.problems import source_files

By = Literal["gold", "reward", "scores"]


class Cross(Section):
    """Each better answer to a question with each worse one, at most so many a question."""

    kind: Literal["cross"] = "cross"
    by: By = Field(
        default="reward",
        description="who tells better from worse: the gold answer, the groups' rewards, or a model's scores",
    )
    most: Count = Field(default=8, description="pairs of a question, drawn from all there are")


class Extremes(Section):
    """The best answer to a question with the worst one."""

    kind: Literal["extremes"] = "extremes"
    by: By = "scores"


class Right(Section):
    """The right answers, at most so many a question: rejection sampling, RestEM (arXiv 2312.06585)."""

    kind: Literal["right"] = "right"
    by: By = "reward"
    most: Count = Field(default=10, description="answers to a question, drawn from all that are right")
    least: float = Field(default=1.0, description="what an answer has to earn or score")


class Gate(Section):
    """Self-labelling (SER, arXiv 2411.00418): the pairs of which a reward model is sure, as it orders them.

    With p of both answers, the model can tell good from bad where one is above `high` and the other below
    `low`, or rank them where they differ by more than `gap`. The first of the two that holds for `enough`
    pairs of the pool decides which are taken; where neither does, the model has `settled`. What was taken
    leaves the pool, and stays. The numbers are the paper's (`enough` as its reviewers quote it, for HH-RLHF).
    """

    kind: Literal["gate"] = "gate"
    of: Literal["pair", "answer"] = Field(
        default="pair",
        description="pair: p = sigmoid of the difference of both scores, which an offset of all scores "
        "leaves alone; answer: sigmoid of each score, as published",
    )
    high: Fraction = 0.55
    low: Fraction = 0.45
    gap: Fraction = 0.3
    enough: Count = 600
    random: bool = Field(default=False, description="the control: as many, drawn from the whole pool")
    labelled: str | None = Field(default=None, description="a stage whose pairs come first, in every round")

    @property
    def by(self) -> By:
        return "scores"

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}; swap them")
        return self


class FromPeople(Section):
    """What people wrote, of a file or a dataset: no stage is read."""

    max_tokens: Count = Field(
        default=1024, description="left out, and counted, is where a question with an answer has more"
    )

    @property
    def by(self) -> None:
        """Nobody here tells better from worse."""


class Given(FromPeople):
    """Pairs, to compare."""

    kind: Literal["given"] = "given"
    source: Pairs


class Written(FromPeople):
    """Answers, to imitate."""

    kind: Literal["written"] = "written"
    source: Texts


Choice = Annotated[Cross | Extremes | Right | Gate | Given | Written, Field(discriminator="kind")]


class Select(StageSection):
    """A choice of answers, of all questions or of a share of them."""

    data: str | None = Field(
        default=None, description="the stage whose groups are chosen from; null: the nearest before"
    )
    scores: str | None = Field(
        default=None, description="the stage that scored them, where that matters; null: the nearest before"
    )
    choose: Choice
    questions: Part = (0.0, 1.0)
    limit_s: Positive = Field(default=5.0, description="time limit of one comparison with a gold answer, s")


class SelectKind(Kind):
    section = Select
    gives = "pairs"
    signals = ("settled",)

    def given(self, section: Select) -> Gives:
        return "answers" if isinstance(section.choose, Right | Written) else "pairs"

    def data(self, stage: Stage, config: RunConfig) -> Stage | None:
        """The stage whose groups it chooses from; of a gate, whose pairs; none where pairs are given."""
        if isinstance(stage.section.choose, FromPeople):
            return None
        gives = "pairs" if isinstance(stage.section.choose, Gate) else "groups"
        return config.source(stage, gives, stage.section.data)

    def scored(self, stage: Stage, config: RunConfig) -> Stage | None:
        """The stage whose scores it goes by."""
        if stage.section.choose.by != "scores":
            return None
        return config.source(stage, "scores", stage.section.scores)

    def first(self, stage: Stage, config: RunConfig) -> Stage | None:
        """Whose pairs a gate adds to: its own of the round before in its phase, or the labelled ones."""
        for other in config.before(stage):
            if (other.name, other.phase) == (stage.name, stage.phase):
                return other
        name = stage.section.choose.labelled
        return config.source(stage, "pairs", name) if name else None

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        match stage.section.choose:
            case Gate():
                first = self.first(stage, config)
            case FromPeople():  # its tokenizer is the base's
                first = config.training(0)
            case _:
                first = None
        return tuple(s for s in (self.data(stage, config), self.scored(stage, config), first) if s)

    def writer(self, stage: Stage, config: RunConfig) -> Stage:
        source = self.data(stage, config)
        return source.kind.writer(source, config) if source else stage

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        section, gate = stage.section, isinstance(stage.section.choose, Gate)
        if isinstance(section.choose, FromPeople):
            if section.choose.max_tokens > (room := config.engine.max_model_len):
                most = section.choose.max_tokens
                yield f".choose.max_tokens {most}: engine.max_model_len is {room}; lower it"
            return
        if self.data(stage, config) is None:
            yield missing("data", section.data, *(("pairs", "select") if gate else ("groups", "respond")))
        if gate and (name := section.choose.labelled) and config.source(stage, "pairs", name) is None:
            yield f".choose{missing('labelled', name, 'pairs', 'select')}"
        if gate and section.questions != (0.0, 1.0):
            yield ".questions: a gate looks at all pairs of its pool; choose questions where these are made"
        if section.choose.by == "scores" and self.scored(stage, config) is None:
            yield missing("scores", section.scores, "scores", "judge")

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        self.rows(stage, config, data)

    def rows(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, int]:
        match stage.section.choose:
            case Given(source=source):
                return {stage.name: len(load_pairs(source, data))}
            case Written(source=source):
                return {stage.name: len(load_texts(source, data))}
            case _:
                return {}

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        choose = stage.section.choose
        return source_files(choose.source, data) if isinstance(choose, FromPeople) else {}

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        """An answer may stand in as many pairs as there are."""
        choose = stage.section.choose
        if isinstance(choose, FromPeople):
            tokens = 2 * choose.max_tokens * world.rows.get(stage.name, 0)
            return Bounds(files=self.files, bytes=tokens * BYTES_PER_SAMPLED_TOKEN)
        source = self.data(stage, config)
        if isinstance(choose, Gate):
            labelled = config.source(stage, "pairs", choose.labelled) if choose.labelled else None
            read = [s.kind.bounds(s, config, world).bytes for s in (source, labelled) if s]
            return Bounds(files=self.files, bytes=sum(read))
        tokens = source.kind.bounds(source, config, world).tokens
        copies = 2 * getattr(stage.section.choose, "most", 1) / self.writer(stage, config).section.samples
        return Bounds(files=self.files, bytes=int(tokens * max(1, copies)) * BYTES_PER_SAMPLED_TOKEN)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        given = isinstance(stage.section.choose, FromPeople)
        own = {"base": config.base, "prompts": config.prompts} if given else {}
        how = {"seed": config.seed, "section": stage.section, "answers": config.answers.model_dump()}
        return how | own


def missing(key: str, name: str | None, gives: str, example: str) -> str:
    """That there is no stage to read `gives` from."""
    if name:
        return f".{key} {name}: no stage of that name before it gives {gives}; list one, like {example}"
    return f": no stage before it in the round gives {gives}; list one, like {example}, or name it in {key}"


KIND = SelectKind()
