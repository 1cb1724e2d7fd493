"""What a Slurm site says about itself: commands asked, outputs parsed; nothing is judged here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.chain.queue import SlurmError, ask_slurm, seconds

NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "(null)", "N/A", "")

SHOW_CONFIG = ("scontrol", "show", "config")
SHOW_PARTITIONS = ("scontrol", "--oneliner", "show", "partition")
LIST_NODES = ("sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%f")
_SHOW = ("sacctmgr", "--noheader", "--parsable2", "show")
LIST_ASSOCIATIONS = (*_SHOW, "association", "format=Account,Partition,QOS,MaxSubmit")
LIST_QOS = (*_SHOW, "qos", "format=Name,PreemptMode,GraceTime,MaxWall,MaxSubmitPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A line of `scontrol show partition`; limits are None where there are none."""

    name: str
    up: bool
    max_minutes: int | None
    max_nodes: int | None
    preempt_mode: str
    grace_s: int
    accounts: tuple[str, ...] | None
    qos: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Nodes of a partition that are alike: a line of sinfo."""

    partition: str
    count: int
    cpus: int
    memory_mb: int
    gpus: int
    gpu_types: tuple[str, ...]
    features: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """What accounting lets a user charge to."""

    account: str
    partition: str
    qos: tuple[str, ...]
    max_submit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    preempt_mode: str
    grace_s: int
    max_submit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All of it; `associations` and `qos` are None where accounting did not answer."""

    settings: Mapping[str, str]
    partitions: Mapping[str, Partition]
    default_partition: str | None
    nodes: tuple[Nodes, ...]
    associations: tuple[Association, ...] | None
    qos: Mapping[str, Qos] | None

    def number(self, key: str) -> int | None:
        """The first number of a setting, like 300 of "300 sec"."""
        found = re.match(r"\d+", self.settings.get(key, ""))
        return int(found.group()) if found else None

    def has(self, key: str, word: str) -> bool:
        """Whether a comma-separated setting lists a word."""
        return word in re.split(r"[,\s]+", self.settings.get(key, "").lower())


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


def kind_of_preemption(site: Site) -> Literal["none", "partition", "qos"]:
    """What decides who gives way to whom."""
    kind = site.settings.get("PreemptType", "").rpartition("/")[2]
    if kind in ("none", "(null)", "") or site.settings.get("PreemptMode", "OFF").upper() == "OFF":
        return "none"
    return "qos" if kind == "qos" else "partition"


def parse_settings(text: str) -> dict[str, str]:
    """`scontrol show config`; its other sections have keys of their own and do no harm."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_partitions(text: str) -> tuple[dict[str, Partition], str | None]:
    """Partitions by name, and the default one."""
    rows = [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in text.splitlines()]
    rows = [row for row in rows if "PartitionName" in row]
    default = next((row["PartitionName"] for row in rows if row.get("Default") == "YES"), None)
    return {row["PartitionName"]: _partition(row) for row in rows}, default


def _partition(row: Mapping[str, str]) -> Partition:
    return Partition(
        name=row["PartitionName"],
        up=row.get("State", "UP") == "UP",
        max_minutes=minutes(row.get("MaxTime", "")),
        max_nodes=_limit(row.get("MaxNodes", "")),
        preempt_mode=row.get("PreemptMode", "OFF"),
        grace_s=_limit(row.get("GraceTime", "")) or 0,
        accounts=_names(row.get("AllowAccounts", "ALL")),
        qos=_names(row.get("AllowQos", "ALL")),
    )


def parse_nodes(text: str) -> tuple[Nodes, ...]:
    return tuple(_nodes(*row) for row in _rows(text, 6))


def _nodes(partition: str, count: str, cpus: str, memory: str, gres: str, features: str) -> Nodes:
    """`gres` is like gpu:4, or gpu:h100:4(S:0-1)."""
    gpus = [g.split("(")[0].split(":") for g in gres.split(",") if g.startswith("gpu:")]
    return Nodes(
        partition=partition,
        count=int(count),
        cpus=int(cpus.rstrip("+")),
        memory_mb=int(memory.rstrip("+")),
        gpus=sum(int(g[-1]) for g in gpus if g[-1].isdigit()),
        gpu_types=tuple(g[1] for g in gpus if len(g) > 2),
        features=frozenset(features.split(",")) - {"(null)"},
    )


def parse_associations(text: str) -> tuple[Association, ...]:
    return tuple(
        Association(account=a, partition=p, qos=tuple(filter(None, q.split(","))), max_submit=_limit(n))
        for a, p, q, n in _rows(text, 4)
    )


def parse_qos(text: str) -> dict[str, Qos]:
    return {
        name: Qos(preempt_mode=mode, grace_s=seconds(grace), max_submit=_limit(submit))
        for name, mode, grace, _, submit in _rows(text, 5)
    }


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """Lines of as many columns; others are not for us."""
    return (row for line in text.splitlines() if len(row := line.split("|")) == columns)


def minutes(text: str) -> int | None:
    """Slurm's [days-]hours:minutes:seconds, rounded down; None for no limit."""
    return None if text in NO_LIMIT else seconds(text) // 60


def _limit(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", *NO_LIMIT) else tuple(text.split(","))
