"""The checkups of a run as people see them: its vitals by round, what fired, and what a person accepted. For
status, the report and JSON.

Read from the records that training left before its first step; nothing is judged here.
"""

from collections.abc import Collection, Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from jobs.reporting.render import Table, listing, to_terminal
from serl.run.rundir import Run
from serl.safety.checkup import Checkup, accepted, checkups, halted, message

FACTS = (
    "conviction", "anchor_agreement", "agreement", "margin", "entropy", "monotony", "silent", "unparsed",
    "truncated", "undecided", "length", "kept", "duplicates",
)  # fmt: skip
COLUMNS = {
    "round": "round", "verdict": "told", "anchors right": "right", "conviction": "conviction:+.3f",
    "anchors agree": "anchor_agreement:.3f", "agreement": "agreement:.3f", "margin": "margin:.3f",
    "entropy": "entropy:.3f", "monotony": "monotony:.3f", "no vote": "silent:.3f", "length": "length:.1f",
    "kept": "kept:.3f", "duplicates": "duplicates:.3f",
}  # fmt: skip
ON_A_TERMINAL = ("round", "anchors right", "conviction", "agreement", "no vote", "length", "verdict")


def vital_facts(run: Run) -> list[dict]:
    """The vitals of every round that was looked at, as JSON, with its alarms and what was accepted."""
    facts = []
    for c in checkups(run):
        v, alarms = c.vitals, [
            {"rule": a.rule, "action": a.action, "sentence": a.sentence, "figures": dict(a.figures)}
            for a in c.alarms
        ]  # fmt: skip
        known = {name: getattr(v, name) for name in FACTS} | ({} if v.leads else {"anchor_agreement": None})
        own = {"round": v.round, "policy": v.round - 1, "verdict": c.verdict, "alarms": alarms}
        anchors = {"anchors_right": v.accuracy, "anchors": len(v.leads)}
        facts.append(own | {"accepted": accepted(run, v.round)} | anchors | known)
    return facts


def vital_table(run: Run, names: Collection[str] = tuple(COLUMNS)) -> Table:
    """One row for each round that was looked at."""
    return listing(map(_words, vital_facts(run)), {name: COLUMNS[name] for name in names})


def _words(fact: Mapping) -> dict:
    """With its verdict and its anchors as a table tells them."""
    told = ", ".join(f"{a['rule']}: {a['action']}" for a in fact["alarms"]) or "go"
    right = f"{fact['anchors_right']:.3f} ({fact['anchors']})" if fact["anchors"] else "unknown"
    overruled = fact["verdict"] != "go" and fact["accepted"]
    return {**fact, "right": right, "told": told + ", accepted" * overruled}


def alarm_sentences(run: Run, found: Sequence[Checkup]) -> list[str]:
    """What fired, in order, but for what halts the run now, which `halt` tells."""
    waiting = halted(run, found)
    return [
        f"round {c.vitals.round}, policy {c.vitals.round - 1}: {a.sentence} ({_fate(run, c, a.action)})"
        for c in found
        for a in c.alarms
        if c is not waiting or a.action == "warn"
    ]


def halt(run: Run) -> list[str]:
    """Why the run is halted and what a person can do, if it is: to be read before any figure."""
    waiting = halted(run)
    return [f"{run.root.name} is {message(run, waiting)}"] if waiting else []


def _fate(run: Run, checkup: Checkup, action: str) -> str:
    return "a warning" if action == "warn" else "accepted" if accepted(run, checkup.vitals.round) else action


def status_lines(run: Run) -> list[RenderableType]:
    """What status adds: a table of the vitals, and what fired; why the run is halted it says itself."""
    told = vital_table(run, ON_A_TERMINAL)
    alarms = (Text(s, style="red") for s in alarm_sentences(run, checkups(run)))
    return [to_terminal(told, ""), *alarms] if told else []
