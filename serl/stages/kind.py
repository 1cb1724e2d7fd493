"""What every kind of stage says of itself. Plan, executors, costs, sharing, status and reports ask it, and
name none.

A kind is a folder of `serl/stages`, or of a package that the run file names under `plugins`:

    spec.py   `KIND`, a `Kind`; its section of the configuration. Imports no torch.
    run.py    `run(work) -> Manifest`: the only place of the kind that opens an engine
    cost.py   `COST` (optional), a `jobs`-free estimate of what a stage takes: see `Cost`
    show.py   `SHOW` (optional), what reports and the browser draw of it: see `Show`
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from serl.config.engine import Engine as EngineSection
from serl.config.schema import Section

if TYPE_CHECKING:
    from serl.config.run import RunConfig

Engine = Literal["vllm", "deepspeed", "forward", "cpu"]
Gives = Literal[
    "documents", "candidates", "problems", "groups", "pairs", "answers", "scores", "grades", "weights",
    "records",
]  # fmt: skip
AT = "@"  # between the name of a stage and a milestone
POLICY = "policy"  # the role that answers, where nobody says otherwise


class StageSection(Section):
    """The section of a stage. A stage whose name is not that of its kind says which kind it is."""

    kind: str | None = Field(
        default=None, description="the room that does it; null: the one of the stage's name"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of one round: what it is called, which kind does it, and how.

    A *milestone* is a turn of a training after which its weights are published along the way, while it goes
    on. They are the result of a stage of their own, like train@25, which the training's work brings; the
    stages that look at them are others, like score@25.
    """

    round: int
    name: str
    kind: "Kind"
    section: Section
    phase: str
    milestone: int = 0  # 0: it has to do with the weights that its round ends with

    @property
    def job(self) -> str:
        """As r002-respond."""
        return job_name(self.round, self.name)

    @property
    def listed(self) -> str:
        """What its phase calls it: score, also where it looks at a milestone."""
        return self.name.partition(AT)[0]

    @property
    def maker(self) -> str:
        """The job whose work brings its results: its own, or of weights along the way their training's."""
        along = self.milestone and self.kind.role(self.section)
        return job_name(self.round, self.listed) if along else self.job

    def at(self, milestone: int, section: Section) -> "Stage":
        """The one that has to do with a milestone."""
        return replace(self, name=f"{self.name}{AT}{milestone}", section=section, milestone=milestone)

    @property
    def num_shards(self) -> int:
        return self.kind.num_shards(self.section)

    @property
    def gives(self) -> Gives:
        """What its records are."""
        return self.kind.given(self.section)

    @property
    def role(self) -> str | None:
        """Whose weights it moves; at a milestone that is its training's doing."""
        return None if self.milestone else self.kind.role(self.section)

    @property
    def weights(self) -> Mapping[str, str]:
        """Where the weights that it moves are, by role, within the folder that it publishes; see `role`."""
        return {} if self.milestone else self.kind.weights(self.section)


def job_name(round: int, stage: str) -> str:
    return f"r{round:03d}-{stage}"


def stage_of(name: str) -> tuple[int, str]:
    """The round and stage that a job name means."""
    return int(name[1:4]), name[5:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a whole stage writes at most: all samples at full length, nothing filtered. `temporary_bytes` go
    when it is done.
    """

    tokens: int = 0
    files: int = 0
    bytes: int = 0
    temporary_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What bounds need beside the configuration: weights of the base model, and rows of benchmark files, by
    name.
    """

    num_parameters: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)


BYTES_PER_SAMPLED_TOKEN = 12  # int32 id, float32 log-probability, about four characters; before compression
FILES_OF_A_SHARD = 3


class Kind:
    """A kind of stage. `name` and `package` are set by whoever found its folder."""

    name: str
    package: str
    section: type[Section]
    gives: Gives = "records"
    engine: Engine = "cpu"
    at_base: bool = False  # whether round 0, the base model, has such a stage, too
    signals: tuple[
        str, ...
    ] = ()  # counts of its manifests that may end a phase (`until`) once they are not 0
    wants_reader: str = ""  # an example of the stage that has to read it, where it is of no use by itself
    files = FILES_OF_A_SHARD  # of a shard, its manifest included

    # ------------------------------------------------------------------------------------------ shape
    @property
    def ranks(self) -> bool:
        """Whether its one shard is the work of several processes together."""
        return self.engine == "deepspeed"

    @property
    def array(self) -> bool:
        """Whether it has shards that do not know of each other, each with an engine."""
        return self.engine in ("vllm", "forward")

    @property
    def bare(self) -> bool:
        """Whether it has neither peers nor accelerators."""
        return self.engine == "cpu"

    def num_shards(self, section: Section) -> int:
        return 1

    def given(self, section: Section) -> Gives:
        """What it gives, where that is the section's to say."""
        return self.gives

    def role(self, section: Section) -> str | None:
        """Whose weights it moves; None where it moves none."""
        return None

    def weights(self, section: Section) -> Mapping[str, str]:
        """Where the weights that it moves are, by role, within the folder that it publishes."""
        role = self.role(section)
        return {role: ""} if role else {}

    def uses(self, section: Section) -> tuple[str, ...]:
        """The roles whose weights it loads."""
        return ()

    def milestones(self, section: Section) -> tuple[int, ...]:
        """Of a training, the turns after which it publishes its weights along the way, for others to look
        at.
        """
        return ()

    def at_milestone(self, section: Section) -> Section | None:
        """What it does with weights that are published along the way; None where it does not look at
        them.
        """
        return None

    def base_section(self, base: Section) -> Section | None:
        """How it helps to make the base model, where it does."""
        return None

    def samples(self, section: Section) -> bool:
        """Whether it opens vLLM."""
        return self.engine == "vllm"

    def held(self, section: Section, config: "RunConfig") -> EngineSection:
        """How vLLM holds the weights that it uses."""
        return config.engine

    # ------------------------------------------------------------------------------------------ place in a
    # method
    def reads(self, stage: Stage, config: "RunConfig") -> tuple[Stage, ...]:
        """The stages whose manifests it reads first-hand."""
        return ()

    def writer(self, stage: Stage, config: "RunConfig") -> Stage:
        """The stage that sampled the answers which it gives."""
        return stage

    def problems(self, stage: Stage, config: "RunConfig") -> Iterator[str]:
        """Sentences on what does not fit together, each beginning with the key, relative to the section."""
        yield from ()

    def watched(self, stage: Stage, config: "RunConfig") -> bool:
        """Of a training, whether safety looks at what it learns from."""
        return config.judged(stage.round) is not None

    def check(self, stage: Stage, config: "RunConfig", data: Path) -> None:
        """Raises ValueError for what a user has to mend outside the configuration before the stage can
        run.
        """

    def rows(self, stage: Stage, config: "RunConfig", data: Path) -> Mapping[str, int]:
        """Rows of files beyond the run that its bounds need, by name."""
        return {}

    # ------------------------------------------------------------------------------------------ bounds and
    # sharing
    def bounds(self, stage: Stage, config: "RunConfig", world: World) -> Bounds:
        return Bounds(files=self.files * stage.num_shards)

    def kept_bytes(
        self, stage: Stage, config: "RunConfig", world: World, ranks: int, *, gpu: bool
    ) -> Mapping[str, int]:
        """Of a training, what each of its ranks keeps on its device at least, by what it is."""
        return {}

    def depends(self, stage: Stage, config: "RunConfig") -> Mapping[str, object]:
        """The part of the configuration that its result depends on, as JSON or sections; `seed` among it if
        it draws.
        """
        return {"seed": config.seed, "base": config.base, "section": stage.section, "prompts": config.prompts}

    def outside(self, stage: Stage, config: "RunConfig", data: Path) -> Mapping[str, Path]:
        """Files and folders beyond the run that it reads, apart from the base model."""
        return {}

    # ------------------------------------------------------------------------------------------ its other
    # modules
    def module(self, name: str) -> ModuleType | None:
        """Its `run`, `cost` or `show`; None where it has none of that name."""
        try:
            return importlib.import_module(f"{self.package}.{name}")
        except ModuleNotFoundError as e:
            if e.name != f"{self.package}.{name}":
                raise
            return None
