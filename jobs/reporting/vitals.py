"""The checkups of a run as people see them: its vitals by round, what fired, and what a person accepted. For
status, the report and JSON.

Read from the records that training left before its first step; nothing is judged here.
"""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from jobs.reporting.render import Block, Heading, Paragraph, Table, table, to_terminal
from serl.run.rundir import Run
from serl.safety.checkup import Checkup, accepted, checkups, halted, message

COLUMNS = {
    "conviction": ("conviction", "+.3f"),
    "anchors agree": ("anchor_agreement", ".3f"),
    "agreement": ("agreement", ".3f"),
    "margin": ("margin", ".3f"),
    "entropy": ("entropy", ".3f"),
    "monotony": ("monotony", ".3f"),
    "no vote": ("silent", ".3f"),
    "length": ("length", ".1f"),
    "kept": ("kept", ".3f"),
    "duplicates": ("duplicates", ".3f"),
}
ON_A_TERMINAL = ("round", "anchors right", "conviction", "agreement", "no vote", "length", "verdict")
FACTS = (
    "conviction", "anchor_agreement", "agreement", "margin", "entropy", "monotony", "unparsed", "truncated",
    "undecided", "length", "kept", "duplicates",
)  # fmt: skip
NOTE = (
    "Measured on the answers that a round's training starts from, so round r is about policy r-1 and "
    "round 1 about the base model. Anchors right: the share whose majority is right, a vote without a "
    "winner counted as wrong. Conviction: the mean lead of their majorities, negative where they are "
    "wrong. Entropy: of the votes on a question, in nats. Monotony: share of questions with the "
    "commonest majority answer. No vote: answers unparsed, truncated or undecided. The last policy has "
    "no round after it; its score is what tells."
)


def vital_table(run: Run, found: Sequence[Checkup]) -> Table:
    """One row for each round that was looked at."""
    rows = []
    for c in found:
        v = c.vitals
        right = f"{v.accuracy:.3f} ({len(v.leads)})" if v.accuracy is not None else "unknown"
        known = {name: getattr(v, name) for name, _ in COLUMNS.values()}
        known |= {} if v.leads else {"anchor_agreement": None}
        figures = (
            f"{known[name]:{how}}" if known[name] is not None else None for name, how in COLUMNS.values()
        )
        rows.append([str(v.round), _verdict(run, c), right, *figures])
    header = ("round", "verdict", "anchors right", *COLUMNS)
    return Table(header=header, rows=rows, numeric=frozenset(range(len(header))) - {1})


def _verdict(run: Run, checkup: Checkup) -> str:
    if not checkup.alarms:
        return "go"
    rules = ", ".join(f"{a.rule}: {a.action}" for a in checkup.alarms)
    return f"{rules}, accepted" if checkup.verdict != "go" and accepted(run, checkup.vitals.round) else rules


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


def vital_blocks(run: Run) -> list[Block]:
    """The section of the report; nothing where no round was looked at."""
    found = checkups(run)
    if not found:
        return []
    told = [*alarm_sentences(run, found), *halt(run)] or ["No rule fired."]
    shown = vital_table(run, found)
    return [Heading("Self-play safety"), *map(Paragraph, told), shown, Paragraph(NOTE, "note")]


def status_lines(run: Run) -> list[RenderableType]:
    """What status adds: a table of the vitals, and what fired; why the run is halted it says itself."""
    found = checkups(run)
    if not found:
        return []
    whole = vital_table(run, found)
    places = [whole.header.index(name) for name in ON_A_TERMINAL]
    shown = table(ON_A_TERMINAL, ([row[i] for i in places] for row in whole.rows))
    return [to_terminal(shown, ""), *(Text(s, style="red") for s in alarm_sentences(run, found))]


def vital_facts(run: Run) -> list[dict]:
    """The vitals of every round that was looked at, as JSON, with its alarms and what was accepted."""
    return [
        {
            "round": c.vitals.round, "policy": c.vitals.round - 1, "verdict": c.verdict,
            "accepted": accepted(run, c.vitals.round), "anchors_right": c.vitals.accuracy,
            "anchors": len(c.vitals.leads),
            "alarms": [
                {"rule": a.rule, "action": a.action, "sentence": a.sentence, "figures": dict(a.figures)}
                for a in c.alarms
            ],
        } | {name: getattr(c.vitals, name) for name in FACTS}
        for c in checkups(run)
    ]  # fmt: skip
