"""What the states of an answer are worth: rollouts from the beginning of each of its steps, by the policy
that answered, earn what answers earn (VinePPO, arXiv 2410.01679).

A state is a question and the tokens of an answer so far. Those that answers to one question share are valued
once, the question itself for all of them. Rollouts are graded and let go; what they earned stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

from evaluation.judging import Judge
from serl.config.objectives import Splitter
from serl.engines.generator import Generator
from serl.randomness import rng_of, seed_of
from serl.records import Completion, Group, Walk
from serl.rewards.kinds import Case
from serl.stages.answering import Asking, said, scores_of, verdicts
from serl.text.steps import Pieces, cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A group's question and the first tokens of an answer to it; `number` counts the group's states."""

    group: Group
    number: int
    so_far: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The states of some groups' answers, each once, and where they are in the answers.

    `cuts` and `places` have an entry for each answer, group after group: the tokens with which its steps
    begin, and the states before them, as positions in `states`.
    """

    states: Sequence[State]
    cuts: Sequence[tuple[int, ...]]
    places: Sequence[tuple[int, ...]]

    def walks(self, value: Sequence[float]) -> list[Walk]:
        """The answers as steps, given the value of each state."""
        return [
            Walk(cuts=cut, values=tuple(value[i] for i in place))
            for cut, place in zip(self.cuts, self.places, strict=True)
        ]


def tree_of(groups: Sequence[Group], pieces: Pieces, how: Splitter) -> Tree:
    """The states of all answers; a function of the tokens alone."""
    states: list[State] = []
    found, places = [], []
    for group in groups:
        known: dict[tuple[int, ...], int] = {}
        for c in group.completions:
            found.append(cuts(pieces.of(c.token_ids), how))
            for so_far in (c.token_ids[:cut] for cut in found[-1]):
                if so_far not in known:
                    known[so_far] = len(states)
                    states.append(State(group=group, number=len(known) - 1, so_far=so_far))
            places.append(tuple(known[c.token_ids[:cut]] for cut in found[-1]))
    return Tree(states=states, cuts=found, places=places)


def rollouts(engine: Generator, states: Sequence[State], asking: Asking) -> list[tuple[Completion, ...]]:
    """`asking.samples` continuations of each state, each as long as its answer might still have become."""
    seeds = (asking.seed, asking.round, asking.stage)
    return engine.generate(
        [s.group.prompt_ids + s.so_far for s in states],
        asking.sampling,
        num_samples=asking.samples,
        seeds=[seed_of(*seeds, s.group.id, "rollouts", s.number) for s in states],
        limits=[asking.sampling.max_tokens - len(s.so_far) for s in states],
    )


def values(
    states: Sequence[State],
    continued: Sequence[tuple[Completion, ...]],
    pieces: Pieces,
    reader: Judge,
    asking: Asking,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> list[float]:
    """The mean reward of each state's rollouts.

    What a vote decides is decided by the one on the group's own answers: a rollout is right if it equals
    their majority, or the text in `labels` for the group's id, which then is all that counts.
    """
    texts = [[pieces.text(s.so_far) + c.text for c in out] for s, out in zip(states, continued, strict=True)]
    answers = [
        [said(reader, s.group.question, t, c) for t, c in zip(text, out)]
        for s, text, out in zip(states, texts, continued)
    ]
    groups = [s.group for s in states]
    golds = [None if g.gold is None else reader.gold(g.question, g.gold) for g in groups]
    correct = verdicts(reader, answers, dict(enumerate(golds)))
    voted = {i: labels.get(g.id, g.majority) for i, g in enumerate(groups)}
    agreed = verdicts(reader, answers, voted)
    sequences = [
        [[*s.group.prompt_ids, *s.so_far, *c.token_ids] for c in out] for s, out in zip(states, continued)
    ]
    scores = {name: scores_of(ask, sequences) for name, ask in asking.scorers.items()}
    found = []
    for i, (state, group) in enumerate(zip(states, groups)):
        alike = [bool(same) for same in agreed.get(i, [])]
        if group.id in labels:
            found.append(fmean(alike))
            continue
        case = Case(
            labels=[0 if same else None for same in alike] or [None] * len(answers[i]),
            winner=None if voted[i] is None else 0, correct=correct.get(i, [None] * len(answers[i])),
            question=group.question, answers=answers[i], texts=texts[i], gold=group.gold,
            rng=rng_of(asking.seed, asking.round, "reward", group.id, "rollouts", state.number),
            scores={name: of_state[i] for name, of_state in scores.items()},
        )  # fmt: skip
        found.append(fmean(asking.earnings(case)))
    return found
