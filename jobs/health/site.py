"""What a Slurm site says about itself: commands asked, outputs parsed; nothing is judged here."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from jobs.chain.batch import errand_text, sbatch
from jobs.chain.window import full
from jobs.plan.cluster import Resources, Slurm
from jobs.runs.code import ROOT
from jobs.runs.queue import SlurmError, ask_slurm, seconds, settings

NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "(null)", "N/A", "")

SHOW_PARTITIONS = ("scontrol", "--oneliner", "show", "partition")
LIST_QOS = ("sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name,PreemptMode,GraceTime")


def minutes(text: str) -> int | None:
    """Slurm's [days-]hours:minutes:seconds, rounded down; None for no limit."""
    return None if text in NO_LIMIT else seconds(text) // 60


class Partition(BaseModel):
    """A line of `scontrol show partition`."""

    name: str = Field(alias="PartitionName")
    default: Annotated[bool, BeforeValidator(lambda text: text == "YES")] = Field(False, alias="Default")
    max_minutes: Annotated[int | None, BeforeValidator(minutes)] = Field(None, alias="MaxTime")
    preempt_mode: str = Field("OFF", alias="PreemptMode")
    grace_s: Annotated[int, BeforeValidator(seconds)] = Field(0, alias="GraceTime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    preempt_mode: str
    grace_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All of it; `qos` is None where accounting did not answer."""

    settings: Mapping[str, str]
    partitions: Mapping[str, Partition]
    qos: Mapping[str, Qos] | None

    def partitions_of(self, asked: Resources) -> list[str]:
        """Names of those that a job asks for, there or not; none where there is no default either."""
        default = next((p.name for p in self.partitions.values() if p.default), None)
        named = asked.partition or default
        return named.split(",") if named else []

    @property
    def preemption(self) -> Literal["none", "partition", "qos"]:
        """What decides who gives way to whom."""
        kind = self.settings.get("PreemptType", "").rpartition("/")[2]
        if kind in ("none", "(null)", "") or self.settings.get("PreemptMode", "OFF").upper() == "OFF":
            return "none"
        return "qos" if kind == "qos" else "partition"


def ask_site() -> Site:
    partitions = parse_partitions(ask_slurm([*SHOW_PARTITIONS]))
    try:
        qos = parse_qos(ask_slurm([*LIST_QOS]))
    except SlurmError:  # no accounting, or it is down: a finding of its own
        qos = None
    return Site(settings=settings(), partitions=partitions, qos=qos)


def parse_partitions(text: str) -> dict[str, Partition]:
    rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
    found = [Partition.model_validate(row) for row in rows if "PartitionName" in row]
    return {p.name: p for p in found}


def parse_qos(text: str) -> dict[str, Qos]:
    rows = [line.split("|") for line in text.splitlines()]
    return {
        name: Qos(preempt_mode=mode, grace_s=seconds(grace))
        for name, mode, grace in (row for row in rows if len(row) == 3)
    }


def refusal(cluster: Slurm, asked: Resources) -> str:
    """What Slurm says against a job of this size, which is not submitted; empty where it would take it, now
    or once there is room for it in the queue.
    """
    options = {"nodes": asked.nodes, "ntasks": None, "ntasks_per_node": asked.tasks_per_node}
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".sbatch") as script:
            script.write(errand_text(ROOT, cluster, asked, options, "true"))
            script.flush()
            sbatch(Path(script.name), "--test-only")
    except SlurmError as e:
        return "" if full(str(e)) else " ".join(str(e).split())
    return ""
