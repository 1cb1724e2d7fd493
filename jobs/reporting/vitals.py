"""The checkups of a run as people see them: its vitals by round, what fired, and what a person accepted. For status, the report and JSON.

Read from the records that training left before its first step; nothing is judged here.
"""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from jobs.reporting.render import Block, Heading, Paragraph, Table
from serl.run.rundir import Run
from serl.safety.checkup import Checkup, accepted, checkups, halted, message

HEADER = (
    "round", "verdict", "anchors right", "conviction", "anchors agree", "agreement", "margin", "entropy", "monotony", "no vote", "length", "kept",
    "duplicates",
)  # fmt: skip
ON_A_TERMINAL = ("round", "anchors right", "conviction", "agreement", "no vote", "length", "verdict")
VERDICT = HEADER.index("verdict")
NOTE = (
    "Measured on the answers that a round's training starts from, so round r is about policy r-1 and round 1 about the base model. Anchors right: "
    "the share whose majority is right, a vote without a winner counted as wrong. Conviction: the mean lead of their majorities, negative where they "
    "are wrong. Entropy: of the votes on a question, in nats. Monotony: share of questions with the commonest majority answer. No vote: answers "
    "unparsed, truncated or undecided. The last policy has no round after it; its score is what tells."
)


def vital_rows(run: Run, found: Sequence[Checkup]) -> list[list[str]]:
    """One row for each round that was looked at."""
    return [_row(run, c) for c in found]


def _row(run: Run, checkup: Checkup) -> list[str]:
    v = checkup.vitals
    accuracy = f"{v.accuracy:.3f} ({len(v.leads)})" if v.accuracy is not None else "unknown"
    known = f"{v.duplicates:.3f}" if v.duplicates is not None else ""
    figures = [f"{x:.3f}" for x in (v.agreement, v.margin, v.entropy, v.monotony, v.silent)]
    lead = f"{v.conviction:+.3f}" if v.conviction is not None else ""
    agree = f"{v.anchor_agreement:.3f}" if v.leads else ""
    return [
        str(v.round),
        _verdict(run, checkup),
        accuracy,
        lead,
        agree,
        *figures,
        f"{v.length:.1f}",
        f"{v.kept:.3f}",
        known,
    ]


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
    alarms: list[Block] = [Paragraph(sentence) for sentence in (*alarm_sentences(run, found), *halt(run))]
    table = Table(
        header=HEADER, rows=vital_rows(run, found), numeric=frozenset(range(len(HEADER))) - {VERDICT}
    )
    return [
        Heading("Self-play safety"),
        *(alarms or [Paragraph("No rule fired.")]),
        table,
        Paragraph(NOTE, "note"),
    ]


def status_lines(run: Run) -> list[RenderableType]:
    """What status adds: a table of the vitals, and what fired; why the run is halted it says itself."""
    found = checkups(run)
    if not found:
        return []
    table = RichTable(box=None, pad_edge=False)
    shown = [HEADER.index(name) for name in ON_A_TERMINAL]
    for name in ON_A_TERMINAL:
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=name != "verdict")
    for row in vital_rows(run, found):
        table.add_row(*(row[i] for i in shown))
    return [table, *(Text(s, style="red") for s in alarm_sentences(run, found))]


def vital_facts(run: Run) -> list[dict]:
    """The vitals of every round that was looked at, as JSON, with its alarms and whether they were accepted."""
    return [
        {
            "round": c.vitals.round, "policy": c.vitals.round - 1, "verdict": c.verdict, "accepted": accepted(run, c.vitals.round),
            "alarms": [{"rule": a.rule, "action": a.action, "sentence": a.sentence, "figures": dict(a.figures)} for a in c.alarms],
            "anchors_right": c.vitals.accuracy, "conviction": c.vitals.conviction, "anchors": len(c.vitals.leads),
            "anchor_agreement": c.vitals.anchor_agreement,
            "agreement": c.vitals.agreement, "margin": c.vitals.margin, "entropy": c.vitals.entropy, "monotony": c.vitals.monotony,
            "unparsed": c.vitals.unparsed, "truncated": c.vitals.truncated, "undecided": c.vitals.undecided, "length": c.vitals.length,
            "kept": c.vitals.kept, "duplicates": c.vitals.duplicates,
        }
        for c in checkups(run)
    ]  # fmt: skip
