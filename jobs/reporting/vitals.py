"""The checkups of a run as people see them: its vitals by round, what fired, and what a person accepted. For
status, the report and JSON.

Read from the records that training left before its first step; nothing is judged here.
"""

from collections.abc import Collection
from dataclasses import asdict

from rich.console import RenderableType
from rich.text import Text

from jobs.reporting.render import Table, listing, to_terminal
from serl.run.rundir import Run
from serl.safety.checkup import Checkup, accepted, checkups, halted, message

COLUMNS = {
    "round": "round", "verdict": "told", "anchors right": "right", "conviction": "conviction:+.3f",
    "anchors agree": "anchor_agreement:.3f", "agreement": "agreement:.3f", "margin": "margin:.3f",
    "entropy": "entropy:.3f", "monotony": "monotony:.3f", "no vote": "silent:.3f", "length": "length:.1f",
    "kept": "kept:.3f", "duplicates": "duplicates:.3f",
}  # fmt: skip
ON_A_TERMINAL = ("round", "anchors right", "conviction", "agreement", "no vote", "length", "verdict")


def vital_facts(run: Run) -> list[dict]:
    """The vitals of every round that was looked at, as JSON, with its alarms and what was accepted."""
    return [_facts(run, c) for c in checkups(run)]


def _facts(run: Run, c: Checkup) -> dict:
    v = c.vitals
    known = asdict(v) | {"conviction": v.conviction, "silent": v.silent, "anchors_right": v.accuracy}
    known["anchors"] = len(known.pop("leads"))
    known |= {} if v.leads else {"anchor_agreement": None}
    own = {"policy": v.round - 1, "verdict": c.verdict, "accepted": accepted(run, v.round)}
    return known | own | {"alarms": [asdict(a) for a in c.alarms]}


def vital_table(run: Run, names: Collection[str] = tuple(COLUMNS)) -> Table:
    """One row for each round that was looked at."""
    rows = []
    for fact in vital_facts(run):
        told = ", ".join(f"{a['rule']}: {a['action']}" for a in fact["alarms"]) or "go"
        told += ", accepted" * (fact["verdict"] != "go" and fact["accepted"])
        right = f"{fact['anchors_right']:.3f} ({fact['anchors']})" if fact["anchors"] else "unknown"
        rows.append(fact | {"told": told, "right": right})
    return listing(rows, {name: COLUMNS[name] for name in names})


def alarm_sentences(run: Run) -> list[str]:
    """What fired, in order, but for what halts the run now, which `halt` tells."""
    found = checkups(run)
    waiting, overruled = halted(run, found), {True: "accepted"}
    return [
        f"round {c.vitals.round}, policy {c.vitals.round - 1}: {a.sentence} "
        f"({'a warning' if a.action == 'warn' else overruled.get(accepted(run, c.vitals.round), a.action)})"
        for c in found
        for a in c.alarms
        if c is not waiting or a.action == "warn"
    ]


def halt(run: Run) -> list[str]:
    """Why the run is halted and what a person can do, if it is: to be read before any figure."""
    waiting = halted(run)
    return [f"{run.root.name} is {message(run, waiting)}"] if waiting else []


def status_lines(run: Run) -> list[RenderableType]:
    """What status adds: a table of the vitals, and what fired; why the run is halted it says itself."""
    told = vital_table(run, ON_A_TERMINAL)
    return [to_terminal(told, ""), *(Text(s, style="red") for s in alarm_sentences(run))] if told else []
