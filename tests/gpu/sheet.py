"""What a check found: a printed line a claim, and the same as JSON. After a failure the next is made."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

Figures = dict[str, float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim: whether it holds, its figures, and how it failed where it did."""

    name: str
    ok: bool
    seconds: float
    figures: Figures
    failure: str = ""

    def line(self) -> str:
        shown = ", ".join(f"{key} {_short(value)}" for key, value in self.figures.items())
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name:44s} {self.seconds:6.1f} s  {shown}{self.failure}"


@dataclass(slots=True)
class Sheet:
    """Findings in their order; written to `path` after each, so that a killed process leaves its own.

    Lines go to the standard output that the process was born with: what packages print may be sent elsewhere.
    """

    path: Path
    findings: list[Finding] = field(default_factory=list)

    def claim(self, name: str, work: Callable[[], Figures]) -> bool:
        """Whether `work` returned its figures rather than raised."""
        begun = time.monotonic()
        figures, failure = {}, ""
        try:
            figures = work()
        except Exception as error:  # noqa: BLE001  (a failure is what this is for: shown and counted)
            failure = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
        self.add(name, time.monotonic() - begun, figures, failure)
        return not failure

    def add(self, name: str, seconds: float, figures: Figures, failure: str = "") -> None:
        found = Finding(name=name, ok=not failure, seconds=seconds, figures=figures, failure=failure)
        self.findings.append(found)
        self.path.write_text(json.dumps([asdict(f) for f in self.findings], indent=1))
        print(found.line(), file=sys.__stdout__, flush=True)


def read(path: Path) -> list[Finding]:
    """The findings of another process; none where it did not come so far."""
    return [Finding(**values) for values in json.loads(path.read_text())] if path.exists() else []


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
