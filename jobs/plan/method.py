"""The method of a run as people see it: phases, who reads what, and whose weights move."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from jobs.plan.chain import after_of
from serl.config.run import RunConfig
from serl.stages.kind import Stage, stage_of


def show_method(config: RunConfig, console: Console) -> None:
    """One line for each stage of a phase, as it is in the phase's last round."""
    table = Table(
        title=f"{config.name}: who reads what, in the last round of each phase", title_justify="left"
    )
    for column in ("phase", "stage", "kind", "reads", "loads", "trains", "gives"):
        table.add_column(column, overflow="fold")
    for stage in _latest(config):
        reads = ", ".join(_told(name, stage) for name in after_of(config, stage.round, stage.name))
        uses = ", ".join(stage.kind.uses(stage.section))
        table.add_row(
            _phase(config, stage),
            stage.name,
            stage.kind.name,
            reads,
            uses,
            stage.role or "",
            stage.kind.gives,
        )
    console.print(table)


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


def _latest(config: RunConfig) -> Iterator[Stage]:
    """Each stage of each phase once, in the last round that has it."""
    return iter({(s.phase if s.round else "", s.name): s for s in config.stages}.values())


def _phase(config: RunConfig, stage: Stage) -> str:
    if stage.round == 0:
        return "(base)"
    name, phase, _ = config.phase(stage.round)
    until = f" until {phase.until}" if phase.until else ""
    carry = ", carried" if phase.carry == "phase" else ""
    return f"{name} x {phase.rounds}{until}{carry}"


def _told(name: str, stage: Stage) -> str:
    """A job that is read, with its round where that is another."""
    round, other = stage_of(name)
    return (
        other
        if round == stage.round
        else f"{other} of {'the base' if round == 0 else f'r-{stage.round - round}'}"
    )


def _node(job: str) -> str:
    return job.replace("-", "_")


def _look(stage: Stage) -> str:
    filled = ', style=filled, fillcolor="#dddddd"' if stage.role else ""
    trains = f"\\ntrains {stage.role}" if stage.role else ""
    return f'label="{stage.name}{trains}"{filled}'
