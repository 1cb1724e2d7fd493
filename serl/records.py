"""What the stages hand to each other: plain frozen values, as JSON lines or Parquet.

Text in a record was written by a model or a stranger: it is data, never code, and readers escape it.
"""

import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

ANCHOR = "anchor"  # the role of a seed problem whose answers measure the vote and are never trained on
PROPOSAL = "proposal"  # the role of a group of questions that one prompt was answered with
ROW_GROUP = 128  # groups that a reader of one has to decompress


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question, with the gold answer where one is known."""

    id: str
    question: str
    gold: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One generated instruction, which prompt wrote it, and the name of the quality rule that rejected it, if
    one did.
    """

    prompt: int
    item: int
    text: str
    rejection: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """What curate decided of a well-formed candidate: the id it got, or why it was left out.

    `like` is a text that it repeats or comes too near to, `rouge_l` how near.
    """

    fate: str
    id: str | None = None
    like: str | None = None
    rouge_l: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer: the sampler's own token ids and log-probabilities (of the sampling distribution),
    never re-tokenised.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One question, its N completions, the vote over their answers, and the reward of each.

    `labels[i]` is the equivalence class of answer i (None: no answer, truncated, or undecided); `winner` the
    majority's class (None: tie or no votes); `undecided` how many answers could not be compared in time;
    `agreement` the winner's share of all N. `role` is "train", "anchor" or
    "proposal", where an answer is a proposed question, and its label None if it is no valid one.
    """

    id: str
    role: str
    question: str
    gold: str | None
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    answers: tuple[str | None, ...]
    labels: tuple[int | None, ...]
    winner: int | None
    tie: bool
    undecided: int
    agreement: float
    margin: float
    winner_correct: bool | None
    rewards: tuple[float, ...]

    @property
    def own(self) -> bool:
        """Whether it is a question of the round, neither an anchor nor proposals."""
        return self.role not in (ANCHOR, PROPOSAL)

    @property
    def mean_reward(self) -> float:
        return sum(self.rewards) / len(self.rewards)

    def first(self, count: int) -> "Group":
        """Its first answers alone, with the vote and the rewards that all of them gave."""
        lists = ("completions", "answers", "labels", "rewards")
        return dataclasses.replace(self, **{name: getattr(self, name)[:count] for name in lists})

    @property
    def majority(self) -> str | None:
        """The answer that won, as first written in canonical order."""
        if self.winner is None:
            return None
        return min(
            (a for a, k in zip(self.answers, self.labels) if k == self.winner and a is not None),
            key=lambda a: (len(a), a),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """An answer as steps: `cuts` are the tokens with which they begin, the first of them 0, and `values` what
    the state before each step is worth: the mean reward of rollouts from there.
    """

    cuts: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to a question, the better one first; with probability `label`, where that is not sure.

    `margin` is how much better it has to be; `says` who tells (gold, reward, a role, a file); `right` whether
    the gold answer agrees, None where it does not tell them apart.
    """

    id: str
    question: str
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, Completion]
    says: str
    label: float = 1.0
    margin: float = 0.0
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a model's scalar head gave each answer of a group, or of a pair, in their order."""

    id: str
    scores: tuple[float, ...]


_COMPLETION = pa.struct(
    [
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
    ]
)
GROUP_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("role", pa.string()),
        ("question", pa.string()),
        ("gold", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completions", pa.list_(_COMPLETION)),
        ("answers", pa.list_(pa.string())),
        ("labels", pa.list_(pa.int32())),
        ("winner", pa.int32()),
        ("tie", pa.bool_()),
        ("undecided", pa.int32()),
        ("agreement", pa.float64()),
        ("margin", pa.float64()),
        ("winner_correct", pa.bool_()),
        ("rewards", pa.list_(pa.float64())),
    ]
)


PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completions", pa.list_(_COMPLETION)),
        ("says", pa.string()),
        ("label", pa.float64()),
        ("margin", pa.float64()),
        ("right", pa.bool_()),
    ]
)


def groups_to_parquet(groups: Iterable[Group]) -> bytes:
    """Equal groups give equal bytes."""
    return _parquet(groups, GROUP_SCHEMA)


def pairs_to_parquet(pairs: Iterable[Pair]) -> bytes:
    return _parquet(pairs, PAIR_SCHEMA)


def pairs_from_parquet(data: bytes) -> list[Pair]:
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return [
        Pair(**row | {"prompt_ids": tuple(row["prompt_ids"]), "completions": _completions(row)})
        for row in rows
    ]


def _parquet(records: Iterable[Group | Pair], schema: pa.Schema) -> bytes:
    rows = [_shallow(r) | {"completions": [_shallow(c) for c in r.completions]} for r in records]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue()


def _shallow(record: Group | Pair | Completion) -> dict[str, object]:
    """The fields as they are; `dataclasses.asdict` would copy every token id."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def groups_from_parquet(data: bytes, *, completions: bool = True) -> list[Group]:
    """The groups; without `completions`, votes and rewards alone, for readers that need no text and no
    tokens.
    """
    heavy = ("completions", "prompt_ids")
    columns = None if completions else [name for name in GROUP_SCHEMA.names if name not in heavy]
    return [
        _group({key: [] for key in heavy} | row)
        for row in pq.read_table(io.BytesIO(data), columns=columns).to_pylist()
    ]


def _group(row: dict) -> Group:
    lists = {key: tuple(row[key]) for key in ("prompt_ids", "answers", "labels", "rewards")}
    return Group(**(row | lists | {"completions": _completions(row)}))


def _completions(row: dict) -> tuple[Completion, ...]:
    return tuple(
        Completion(
            token_ids=tuple(c["token_ids"]),
            logprobs=tuple(c["logprobs"]),
            text=c["text"],
            finish_reason=c["finish_reason"],
        )
        for c in row["completions"]
    )


def to_jsonl(rows: Iterable[object]) -> bytes:
    """One JSON object a line, ASCII only, so that no text of a model can break a line or a terminal."""
    lines = (
        json.dumps(dataclasses.asdict(r) if dataclasses.is_dataclass(r) else r, allow_nan=False) for r in rows
    )
    return "".join(line + "\n" for line in lines).encode("ascii")


def from_jsonl(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def share(items: Sequence, index: int, count: int) -> Sequence:
    """The contiguous slice of `items` that is shard `index` of `count`; sizes differ by at most one."""
    return items[len(items) * index // count : len(items) * (index + 1) // count]
