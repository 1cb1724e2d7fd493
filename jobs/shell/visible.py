"""Text of a model, a log or an exception, made harmless for whoever reads it, on a page or in a terminal.

Control characters, bidirectional marks and the like are shown as escapes, and long text is cut. Doing it
twice changes nothing.
"""

import unicodedata

MAX_TEXT = 300
MAX_LONG = 50_000
MAX_ACCENTS = 2


def visible(text: str, limit: int = MAX_TEXT) -> str:
    """One line of harmless characters: what would not show, or would move its surroundings, becomes an
    escape; long text is cut and says so.
    """
    shown = "".join(_character(c) for c in _few_accents(text[:limit]))
    return shown if len(text) <= limit else f"{shown} ... ({len(text) - limit:,} more characters)"


def _character(c: str) -> str:
    if c in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[c]
    if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return c
    return (
        f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}"
    )


def _few_accents(text: str) -> str:
    """Without the combining marks beyond the second on one letter, which would climb over the lines above."""
    kept, accents = [], 0
    for c in text:
        accents = accents + 1 if unicodedata.category(c) in ("Mn", "Me") else 0
        if accents <= MAX_ACCENTS:
            kept.append(c)
    return "".join(kept)


def visible_lines(text: str) -> str:
    """Several lines, which keep their breaks and nothing else that is not shown."""
    return "\n".join(visible(line, MAX_LONG) for line in text[:MAX_LONG].split("\n"))
