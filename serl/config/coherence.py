"""What of a configuration does not fit together, though each key is right by itself: sentences with the key
in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from serl.config.base import HEAD_SIZES, Scratch
from serl.config.schema import Section
from serl.stages.kind import POLICY, Stage
from serl.stages.sources import GeneratedProblems

if TYPE_CHECKING:
    from serl.config.run import Phase, RunConfig

MAX_ROUNDS = 999
OF_USE = ("pairs", "answers", "scores", "records")  # also where nothing is trained


def incoherences(c: RunConfig) -> Iterator[str]:
    """Sentences that say what does not fit together, in the order a reader would fix them."""
    first = 1
    if not list(c.phases.items()):
        yield "phases: none; give at least one, with its stages"
    for name, phase in c.phases.items():
        listed = c.at(first) if phase.rounds else c.at(0)
        here = [s for s in listed if s.phase == name and not s.milestone]
        for stage in here:
            for problem in (*stage.kind.problems(stage, c), *_role_problems(stage, c)):
                yield f"phases.{name}.{stage.name}{problem}"
        yield from (f"phases.{name}: {problem}" for problem in _phase_problems(phase, here))
        for stage in here:
            if (example := stage.kind.wants_reader) and c.reader(stage) is None:
                yield (
                    f"phases.{name}.{stage.name}: no stage after it reads its {stage.kind.gives}; list one "
                    "that does, "
                    f"{example}"
                )
        first += phase.rounds
    if c.rounds > MAX_ROUNDS:
        yield f"phases: {c.rounds} rounds in all; at most {MAX_ROUNDS}"
    if c.quality.min_words > c.quality.max_words:
        yield "quality: min_words is above max_words: no instruction could pass"
    yield from _engine_incoherences(c)
    if isinstance(c.base, Scratch):
        yield from _scratch_incoherences(c, c.base)
    if isinstance(c.seeds, GeneratedProblems) and not isinstance(c.base, Scratch):
        yield (
            f"seeds of kind {c.seeds.kind} exist only where base.kind is scratch; give a jsonl or "
            "dataset source"
        )


def _role_problems(stage: Stage, c: RunConfig) -> Iterator[str]:
    for role in stage.kind.uses(stage.section):
        if role != POLICY and c.trained(stage, role) is None:
            known = sorted({POLICY, *(r for s in c.before(stage) for r in s.weights)})
            yield f".role {role}: no stage before it trains that role; roles so far: {', '.join(known)}"


def _phase_problems(phase: Phase, here: list[Stage]) -> Iterator[str]:
    roles = [r for s in here for r in s.weights]
    if twice := sorted({r for r in roles if roles.count(r) > 1}):
        both = " and ".join(s.name for s in here if twice[0] in s.weights)
        yield (
            f"{both} both train the role {twice[0]} in one round; give one of them another role, or a "
            "phase of its own"
        )
    signals = sorted({name for s in here for name in s.kind.signals})
    if phase.until is not None and phase.until not in signals:
        told = f"its stages publish {', '.join(signals)}" if signals else "its stages publish none that could"
        yield f"until {phase.until}: no count of its stages; {told}"
    if phase.rounds and not roles and not any(s.gives in OF_USE for s in here):
        yield (
            f"rounds {phase.rounds}: nothing is trained, so that there is only round 0, the base model; "
            "set rounds: 0"
        )


def _engine_incoherences(c: RunConfig) -> Iterator[str]:
    room = c.engine.max_model_len
    for name, phase in c.phases.items():
        for stage in phase.stages:
            section = phase.section(stage)
            limits = {
                key: longest
                for key in ("max_tokens", "sampling.max_tokens")
                if isinstance(longest := _dig(section, key), int)
            }
            for key, longest in limits.items():
                if longest >= room:
                    yield (
                        f"phases.{name}.{stage}.{key} {longest}: engine.max_model_len {room} leaves no "
                        "room for a "
                        "prompt; raise it or ask for fewer tokens"
                    )
    if isinstance(c.base, Scratch) and room > (most := c.base.architecture.max_positions):
        yield (
            f"engine.max_model_len {room}: the base model has {most} positions "
            "(base.architecture.max_positions)"
        )


def _dig(section: Section, key: str) -> object:
    for part in key.split("."):
        section = getattr(section, part, None)
    return section


def _scratch_incoherences(c: RunConfig, base: Scratch) -> Iterator[str]:
    shape = base.architecture
    if (size := shape.hidden / shape.heads) not in HEAD_SIZES:
        sizes = ", ".join(map(str, HEAD_SIZES))
        yield (
            f"base.architecture: hidden {shape.hidden} over {shape.heads} heads is {size:g} each; "
            f"vLLM needs one of {sizes}"
        )
    if isinstance(c.seeds, GeneratedProblems):
        made = base.corpus.seeds if c.seeds.part == "seeds" else base.corpus.problems
        for stage in c.stages:
            for key in ("seed_shots", "anchors"):
                wanted = _dig(stage.section, key)
                if isinstance(wanted, int) and wanted > made:
                    yield (
                        f"phases.{stage.phase}.{stage.name}.{key} {wanted}: the corpus has {made} seed "
                        "problems; "
                        "ask for fewer, or give more"
                    )
