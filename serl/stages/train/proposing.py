"""Questions that the policy writes itself, in a turn: the proposals of one prompt are a group, and what each
of them earns is a function of how the answers to it came out.

A proposal is one line, continued from a numbered list of seed problems. It is valid if it passes the quality
rules and repeats neither a seed nor a proposal before it in its turn.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from serl.config.engine import Sampling
from serl.engines.ranks import Ranks
from serl.engines.resident import Resident
from serl.engines.shares import gathered, share_of
from serl.randomness import rng_of, seed_of
from serl.records import PROPOSAL, Completion, Group, Problem
from serl.rewards.proposer import proposer_reward
from serl.stages.train.section import Proposer
from serl.stages.work import Work
from serl.text.prompts import propose_prompt
from serl.text.selfinstruct import choose_shots, parse_list, rejection, twins


class Proposing:
    """The proposer of a training; its shots are drawn from `seeds`, and from what it is told to remember."""

    def __init__(
        self, work: Work, ranks: Ranks, engine: Resident, seeds: Sequence[str], tensor_parallel: int
    ):
        rollout = work.stage.section.rollout
        self._how: Proposer = rollout.proposer
        self._num_prompts = rollout.prompts // self._how.proposals
        self._place = (work.run.config.seed, work.shard.round, work.shard.stage)
        self._prompts, self._seeds = work.run.config.prompts, seeds
        self._kept: dict[str, None] = {}
        self._rules = work.run.config.quality, work.run.config.answers
        self._ranks, self._engine, self._tensor_parallel = ranks, engine, tensor_parallel
        temperature = rollout.sampling.temperature
        self._sampling = Sampling(temperature=temperature, max_tokens=self._how.max_tokens, stop=("\n",))

    def remember(self, questions: Iterable[str]) -> None:
        """Those of a turn that passed the difficulty filter."""
        self._kept |= dict.fromkeys(questions)

    def propose(self, turn: int) -> list[Group]:
        """The turn's proposals, on every rank, earning nothing yet; a label is given to those that are
        valid.
        """
        own = share_of(
            self._num_prompts, rank=self._ranks.rank, size=self._ranks.size,
            tensor_parallel=self._tensor_parallel,
        )  # fmt: skip
        asked = [(i, *self._prompt(turn, i)) for i in own]
        asked = [(i, shots, ids) for i, shots, ids in asked if ids]
        outputs = self._engine.generate(
            [ids for _, _, ids in asked],
            self._sampling,
            num_samples=self._how.proposals,
            seeds=[seed_of(*self._place, "propose", turn, i) for i, _, _ in asked],
        )
        mine = [self._group(turn, *one, out) for one, out in zip(asked, outputs)]
        return self._without_repeats(gathered(self._ranks, mine, tensor_parallel=self._tensor_parallel))

    def _prompt(self, turn: int, i: int) -> tuple[list[str], list[int]]:
        rng = rng_of(*self._place, "shots", turn, i)
        shots = choose_shots(self._seeds, list(self._kept), self._how.shots, self._how.kept_shots, rng)
        room = self._engine.max_model_len - self._how.max_tokens
        ids, used = propose_prompt(self._engine.tokenizer, self._prompts, shots, room)
        return shots[:used], ids

    def _group(
        self, turn: int, i: int, shots: Sequence[str], ids: Sequence[int], out: tuple[Completion, ...]
    ) -> Group:
        texts = tuple(map(self._text, out))
        valid = [t is not None and rejection(t, *self._rules) is None for t in texts]
        return Group(
            id=f"t{turn:04d}-p{i:04d}", role=PROPOSAL, question="\n".join(shots), gold=None,
            prompt_ids=tuple(ids), completions=out, answers=texts,
            labels=tuple(j if ok else None for j, ok in enumerate(valid)), winner=None, tie=False,
            undecided=0, agreement=0.0, margin=0.0, winner_correct=None, rewards=(0.0,) * len(out),
        )  # fmt: skip

    def _text(self, completion: Completion) -> str | None:
        """The question that was written; None where there is none, or it was cut off."""
        if completion.finish_reason == "length":
            return None
        continues = self._engine.tokenizer.chat_template is None
        return next(iter(parse_list(completion.text, continues=continues, truncated=False)), None)

    def _without_repeats(self, groups: Sequence[Group]) -> list[Group]:
        places = [(g, j) for g in groups for j, k in enumerate(g.labels) if k is not None]
        found = twins([g.answers[j] for g, j in places], self._seeds, self._how.max_rouge_l)
        repeats = {(g.id, j) for (g, j), twin in zip(places, found) if twin is not None}
        return [
            replace(g, labels=tuple(None if (g.id, j) in repeats else k for j, k in enumerate(g.labels)))
            for g in groups
        ]

    def paid(self, proposals: Sequence[Group], answered: Sequence[Group]) -> list[Group]:
        """The proposals with what they earn, where they learn; one whose question was too long to be answered
        is not valid.
        """
        if not self._how.learns:
            return list(proposals)
        shares = {g.id: agreed(g) for g in answered}
        return [replace(g, rewards=tuple(self._earned(g, shares))) for g in proposals]

    def _earned(self, proposals: Group, shares: Mapping[str, float]) -> Iterator[float]:
        for j, label in enumerate(proposals.labels):
            share = None if label is None else shares.get(question_id(proposals, j))
            yield proposer_reward(self._how.reward, share)


def agreed(group: Group) -> float:
    """The share of the answers that say the commonest thing; 0 where no two say the same."""
    commonest = max(Counter(k for k in group.labels if k is not None).values(), default=0)
    return commonest / len(group.labels) if commonest > 1 else 0.0


def question_id(proposals: Group, j: int) -> str:
    return f"{proposals.id}-{j:02d}"


def proposed_questions(proposals: Sequence[Group]) -> list[Problem]:
    """Those that are valid, in their order."""
    return [
        Problem(id=question_id(g, j), question=g.answers[j])
        for g in proposals
        for j, k in enumerate(g.labels)
        if k is not None
    ]
