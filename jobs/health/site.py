"""What a Slurm site says about itself: commands asked, outputs parsed; nothing is judged here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from jobs.runs.queue import SlurmError, ask_slurm, seconds

NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "(null)", "N/A", "")

SHOW_CONFIG = ("scontrol", "show", "config")
SHOW_PARTITIONS = ("scontrol", "--oneliner", "show", "partition")
LIST_NODES = ("sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%f")
_SHOW = ("sacctmgr", "--noheader", "--parsable2", "show")
LIST_ASSOCIATIONS = (*_SHOW, "association", "format=Account,Partition,QOS,MaxSubmit")
LIST_QOS = (*_SHOW, "qos", "format=Name,PreemptMode,GraceTime,MaxWall,MaxSubmitPU")

Row = TypeVar("Row", bound=BaseModel)


def minutes(text: str) -> int | None:
    """Slurm's [days-]hours:minutes:seconds, rounded down; None for no limit."""
    return None if text in NO_LIMIT else seconds(text) // 60


def _limit(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", *NO_LIMIT) else tuple(text.split(","))


def _gpus(gres: str) -> list[list[str]]:
    """Words like [gpu, h100, 4] of gpu:h100:4(S:0-1)."""
    return [g.split("(")[0].split(":") for g in gres.split(",") if g.startswith("gpu:")]


Limit = Annotated[int | None, BeforeValidator(_limit)]
Names = Annotated[tuple[str, ...] | None, BeforeValidator(_names)]
AtLeast = Annotated[int, BeforeValidator(lambda text: text.rstrip("+"))]
Words = Annotated[tuple[str, ...], BeforeValidator(lambda text: tuple(filter(None, text.split(","))))]


class Partition(BaseModel):
    """A line of `scontrol show partition`; limits are None where there are none."""

    name: str = Field(alias="PartitionName")
    up: Annotated[bool, BeforeValidator(lambda text: text == "UP")] = Field(default=True, alias="State")
    max_minutes: Annotated[int | None, BeforeValidator(minutes)] = Field(default=None, alias="MaxTime")
    max_nodes: Limit = Field(default=None, alias="MaxNodes")
    preempt_mode: str = Field(default="OFF", alias="PreemptMode")
    grace_s: Limit = Field(default=None, alias="GraceTime")
    accounts: Names = Field(default=None, alias="AllowAccounts")
    qos: Names = Field(default=None, alias="AllowQos")


class Nodes(BaseModel):
    """Nodes of a partition that are alike: a line of sinfo."""

    partition: str
    count: int
    cpus: AtLeast
    memory_mb: AtLeast
    gres: Annotated[list[list[str]], BeforeValidator(_gpus)]
    words: Words

    @property
    def gpus(self) -> int:
        return sum(int(words[-1]) for words in self.gres if words[-1].isdigit())

    @property
    def gpu_types(self) -> tuple[str, ...]:
        return tuple(words[1] for words in self.gres if len(words) > 2)

    @property
    def features(self) -> frozenset[str]:
        return frozenset(self.words) - {"(null)"}


class Association(BaseModel):
    """What accounting lets a user charge to."""

    account: str
    partition: str
    qos: Words
    max_submit: Limit


class Qos(BaseModel):
    name: str
    preempt_mode: str
    grace_s: Annotated[int, BeforeValidator(seconds)]
    max_wall: str
    max_submit: Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All of it; `associations` and `qos` are None where accounting did not answer."""

    settings: Mapping[str, str]
    partitions: Mapping[str, Partition]
    default_partition: str | None
    nodes: tuple[Nodes, ...]
    associations: tuple[Association, ...] | None
    qos: Mapping[str, Qos] | None

    def nodes_of(self, partition: str) -> list[Nodes]:
        return [n for n in self.nodes if n.partition == partition]

    def number(self, key: str) -> int | None:
        """The first number of a setting, like 300 of "300 sec"."""
        found = re.match(r"\d+", self.settings.get(key, ""))
        return int(found.group()) if found else None

    def has(self, key: str, word: str) -> bool:
        """Whether a comma-separated setting lists a word."""
        return word in re.split(r"[,\s]+", self.settings.get(key, "").lower())

    @property
    def preemption(self) -> Literal["none", "partition", "qos"]:
        """What decides who gives way to whom."""
        kind = self.settings.get("PreemptType", "").rpartition("/")[2]
        if kind in ("none", "(null)", "") or self.settings.get("PreemptMode", "OFF").upper() == "OFF":
            return "none"
        return "qos" if kind == "qos" else "partition"


def ask_site() -> Site:
    settings = parse_settings(ask_slurm([*SHOW_CONFIG]))
    partitions, default = parse_partitions(ask_slurm([*SHOW_PARTITIONS]))
    try:
        user = ask_slurm(["id", "--user", "--name"]).strip()
        associations = parse_associations(ask_slurm([*LIST_ASSOCIATIONS, "where", f"user={user}"]))
        qos = parse_qos(ask_slurm([*LIST_QOS]))
    except SlurmError:  # no accounting, or it is down: a finding of its own
        associations = qos = None
    return Site(
        settings=settings, partitions=partitions, default_partition=default,
        nodes=parse_nodes(ask_slurm([*LIST_NODES])), associations=associations, qos=qos,
    )  # fmt: skip


def parse_settings(text: str) -> dict[str, str]:
    """`scontrol show config`; its other sections have keys of their own and do no harm."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_partitions(text: str) -> tuple[dict[str, Partition], str | None]:
    """Partitions by name, and the default one."""
    rows = [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in text.splitlines()]
    found = [Partition.model_validate(row) for row in rows if "PartitionName" in row]
    default = next((row.get("PartitionName") for row in rows if row.get("Default") == "YES"), None)
    return {p.name: p for p in found}, default


def parse_nodes(text: str) -> tuple[Nodes, ...]:
    return _rows(text, Nodes)


def parse_associations(text: str) -> tuple[Association, ...]:
    return _rows(text, Association)


def parse_qos(text: str) -> dict[str, Qos]:
    return {qos.name: qos for qos in _rows(text, Qos)}


def _rows(text: str, kind: type[Row]) -> tuple[Row, ...]:
    """Lines of as many columns as there are fields; others are not for us."""
    names = list(kind.model_fields)
    rows = (line.split("|") for line in text.splitlines())
    return tuple(kind.model_validate(dict(zip(names, row))) for row in rows if len(row) == len(names))
