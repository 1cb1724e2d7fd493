"""score: a policy's answers to benchmark problems, graded. Greedy once, and sampled for pass@k and maj@k."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from evaluation.benchmark import Benchmark, benchmark_names, load_benchmark
from evaluation.benchmark import load_problems as load_benchmark_problems
from serl.config.base import Scratch
from serl.config.engine import ASKED, Engine
from serl.config.run import RunConfig
from serl.config.schema import Count, Natural, Nucleus, Positive
from serl.stages.kind import BYTES_PER_SAMPLED_TOKEN, POLICY, Bounds, Kind, Stage, StageSection, World
from serl.text.problems import GENERATED_BENCHMARKS, generated_rows


class Score(StageSection):
    """Evaluation of a policy: greedy pass@1, and pass@k and maj@k from `samples` samples."""

    role: str = Field(default=POLICY, description="who is examined")
    shards: Count
    benchmarks: tuple[str, ...] = Field(min_length=1)
    own: dict[str, Benchmark] = Field(
        default={},
        description="benchmarks of yours by name, each as a file of evaluation/benchmarks/ describes one",
    )
    validation: tuple[str, ...] = Field(
        default=(),
        description="benchmarks to choose by (a round, a sweep's best setting); reported apart, never in a "
        "headline",
    )
    along: tuple[str, ...] | None = Field(
        default=None,
        description="of these benchmarks those that a policy is asked which a training publishes along the "
        "way (train.rollout.publish_every); null: those to choose by, and all where there are none",
    )
    max_tokens: Count
    samples: Natural = 0
    temperature: Positive = 1.0
    top_p: Nucleus = 0.95
    choice_shots: Natural = Field(default=5, description="worked examples in multiple-choice prompts")
    protocol: Literal["native", "serl", "qwen25_math"] = Field(
        default="native",
        description="native: the run's prompts; else another project's literal prompts and stops "
        "(evaluation/protocols.py)",
    )
    preamble: dict[str, str] = Field(
        default={},
        description="by benchmark, a text before each of its questions, a blank line between: the worked "
        "examples "
        "of a published protocol",
    )
    choice_format: Literal["auto", "plain"] = Field(
        default="auto",
        description="auto: through the chat template where there is one; plain: the official MMLU-Pro text",
    )
    max_problems: Count | None = Field(
        default=None, description="only the first problems of each benchmark; null: all"
    )
    limit_s: Positive = 5.0
    part_prompts: Count = 256
    engine: Engine | None = Field(default=None, description="where it is not to be the run's")

    @field_validator("own")
    @classmethod
    def _named(cls, own: dict[str, Benchmark]) -> dict[str, Benchmark]:
        if taken := sorted(set(own) & set(benchmark_names())):
            raise ValueError(f"{', '.join(taken)}: the name of a shipped benchmark; choose another")
        return {name: benchmark.model_copy(update={"name": name}) for name, benchmark in own.items()}

    def described(self, name: str) -> Benchmark:
        return self.own.get(name) or load_benchmark(name)

    @property
    def asked(self) -> tuple[str, ...]:
        """Every benchmark that a policy answers: those that are reported, then those that are chosen by."""
        return self.benchmarks + self.validation


class ScoreKind(Kind):
    section = Score
    gives = "grades"
    engine = "vllm"
    at_base = True

    def num_shards(self, section: Score) -> int:
        return section.shards

    def uses(self, section: Score) -> tuple[str, ...]:
        return (section.role,)

    def at_milestone(self, section: Score) -> Score:
        chosen = section.along or section.validation or section.asked
        benchmarks = tuple(name for name in section.benchmarks if name in chosen)
        validation = tuple(name for name in section.validation if name in chosen)
        return section.model_copy(update={"benchmarks": benchmarks, "validation": validation})

    def held(self, section: Score, config: RunConfig) -> Engine:
        return section.engine or config.engine

    def reads(self, stage: Stage, config: RunConfig) -> tuple[Stage, ...]:
        trained = config.trained(stage, stage.section.role)
        return (trained,) if trained else ()

    def problems(self, stage: Stage, config: RunConfig) -> Iterator[str]:
        asked, preamble = stage.section.asked, stage.section.preamble
        if twice := sorted({name for name in asked if asked.count(name) > 1}):
            yield (
                f": {', '.join(twice)} named twice; a benchmark is either reported (benchmarks) or chosen "
                "by (validation)"
            )
        if unknown := sorted(set(stage.section.along or ()) - set(asked)):
            yield f".along: {', '.join(unknown)} is not asked; name it in benchmarks or validation, too"
        if unasked := sorted(set(preamble) - set(asked)):
            yield (
                f".preamble: {', '.join(unasked)} is not asked; name it in benchmarks, or leave its "
                "preamble out"
            )

    def check(self, stage: Stage, config: RunConfig, data: Path) -> None:
        for name in stage.section.asked:
            benchmark = stage.section.described(name)
            if benchmark.kind == "choice" and name in stage.section.preamble:
                raise ValueError(
                    f"{stage.name}.preamble.{name}: a choice benchmark brings worked examples of its own "
                    f"({stage.name}.choice_shots); leave it out"
                )
            if not _made_here(benchmark, config):
                load_benchmark_problems(benchmark, [data / "benchmarks"])

    def rows(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, int]:
        """Of benchmarks whose description does not tell; those that the run makes, or whose file is missing,
        are left out.
        """
        found = {}
        for name in stage.section.asked if not isinstance(config.base, Scratch) else ():
            benchmark = stage.section.described(name)
            if benchmark.num_rows is None and (data / "benchmarks" / benchmark.file).is_file():
                found[name] = len(load_benchmark_problems(benchmark, [data / "benchmarks"]))
        return found

    def num_problems(self, stage: Stage, config: RunConfig, rows: Mapping[str, int]) -> int:
        """Of all that a policy is asked: as the benchmarks' descriptions say; a generated one has what the
        corpus was told to make.
        """
        made = generated_rows(config.base.corpus) if isinstance(config.base, Scratch) else {}
        counts = [
            (b := stage.section.described(name)).num_rows or made.get(b.file) or rows.get(name, 0)
            for name in stage.section.asked
        ]
        return sum(min(n, stage.section.max_problems or n) for n in counts)

    def bounds(self, stage: Stage, config: RunConfig, world: World) -> Bounds:
        problems = self.num_problems(stage, config, world.rows)
        tokens = problems * (1 + stage.section.samples) * stage.section.max_tokens
        size = tokens * BYTES_PER_SAMPLED_TOKEN
        return Bounds(tokens=tokens, files=self.files * stage.num_shards, bytes=size, temporary_bytes=size)

    def depends(self, stage: Stage, config: RunConfig) -> Mapping[str, object]:
        seed = {"seed": config.seed} if stage.section.samples else {}  # greedy answers have none
        prompts = config.prompts.model_dump(include=ASKED)
        engine = self.held(stage.section, config)
        own = stage.section.model_copy(update={"engine": None})
        return (
            seed
            | {"base": config.base, "section": own, "prompts": prompts, "engine": engine}
            | {"answers": config.answers.model_dump(include={"thinking"})}
        )

    def outside(self, stage: Stage, config: RunConfig, data: Path) -> Mapping[str, Path]:
        asked = map(stage.section.described, stage.section.asked)
        found = [b for b in asked if not _made_here(b, config)]
        files: Sequence[str] = [f for b in found for f in (b.file, b.shots_file) if f]
        return {file: data / "benchmarks" / file for file in files}


def _made_here(benchmark: Benchmark, config: RunConfig) -> bool:
    return benchmark.file in GENERATED_BENCHMARKS and isinstance(config.base, Scratch)


KIND = ScoreKind()
