"""The method of a run: phases, who reads what, and whose weights move; as words and as a graph."""

from collections.abc import Iterator

from jobs.plan.chain import after_of
from serl.config.run import RunConfig
from serl.stages.kind import Stage, stage_of


def phase_of(config: RunConfig, stage: Stage) -> str:
    if stage.round == 0:
        return "(base)"
    name, phase, _ = config.phase(stage.round)
    until = f" until {phase.until}" if phase.until else ""
    carry = ", carried" if phase.carry == "phase" else ""
    return f"{name} x {phase.rounds}{until}{carry}"


def reads(config: RunConfig, stage: Stage) -> Iterator[str]:
    """The stages that a stage reads, with their round where that is another."""
    for round, other in map(stage_of, after_of(config, stage.round, stage.name)):
        of = "" if round == stage.round else f" of r-{stage.round - round}" if round else " of the base"
        yield other + of


def graph(config: RunConfig) -> str:
    """Every stage of every round and what it reads, as Graphviz text: `dot -Tsvg`."""
    lines = [f'digraph "{config.name}" {{', "  rankdir=LR; node [shape=box, fontname=sans];"]
    for round in sorted({s.round for s in config.stages}):
        label = "base model" if round == 0 else f"round {round} ({config.at(round)[0].phase})"
        lines += [f"  subgraph cluster_{round} {{", f'    label="{label}";']
        lines += [f"    {_node(s.job)} [{_look(s)}];" for s in config.at(round)]
        lines.append("  }")
    lines += [
        f"  {_node(a)} -> {_node(s.job)};" for s in config.stages for a in after_of(config, s.round, s.name)
    ]
    return "\n".join([*lines, "}", ""])


def _node(job: str) -> str:
    return job.replace("-", "_")


def _look(stage: Stage) -> str:
    filled = ', style=filled, fillcolor="#dddddd"' if stage.role else ""
    trains = f"\\ntrains {stage.role}" if stage.role else ""
    return f'label="{stage.name}{trains}"{filled}'
