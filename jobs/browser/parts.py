"""What the pages of `jobs.browse` are made of: text, links, filters, pagers and the frame around it all.

Every text of a run goes through `h`, `caption` or `block`, which escape it. Addresses are relative to the page's folder, so that the secret
part of the address stands in no page.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from jobs.browser.index import Index
from jobs.browser.style import CSS, KEYS
from jobs.reporting.visible import visible

PAGE = 50
MAX_LINE = 240
MAX_BLOCK = 50_000
Query = Mapping[str, str]


def h(text: object, limit: int = MAX_LINE) -> str:
    """One harmless line."""
    return html.escape(visible(str(text), limit))


def caption(text: str, limit: int = MAX_LINE) -> str:
    """One line that is to be pressed, so never nothing."""
    return h(text, limit) if text.strip() else "(blank)"


def nothing(index: Index) -> str:
    """Why a list is empty."""
    return f"<p>{'Nothing here fits what was asked.' if len(index) else 'This round has none.' if index.complete else 'None is done yet.'}</p>"


def block(text: str) -> str:
    """Several lines, as they were written."""
    shown = "\n".join(html.escape(visible(line, MAX_BLOCK)) for line in text[:MAX_BLOCK].split("\n"))
    return shown + (f"\n... ({len(text) - MAX_BLOCK:,} more characters)" if len(text) > MAX_BLOCK else "")


def link(page: str, query: Query, label: str, *, rel: str = "", here: bool = False) -> str:
    """`label` is HTML already."""
    address = html.escape(f"{page}?{urlencode({k: v for k, v in query.items() if v != ''})}")
    marks = (f' data-rel="{rel}"' if rel else "") + (' class="here"' if here else "")
    return f'<a href="{address}"{marks}>{label}</a>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around every page: the run, its rounds, which page this is."""

    run: str
    rounds: Sequence[int]
    round: int
    page: str

    def wrap(self, title: str, body: str, nonce: str) -> bytes:
        kinds = ("instructions", "groups", "responses")
        nav = "".join(link(k, {"round": str(self.round)}, k, here=k == self.page) for k in kinds)
        page = self.page if self.page in kinds else "groups"
        rounds = "".join(link(page, {"round": str(r)}, str(r), here=r == self.round) for r in self.rounds)
        keys = "j k next, previous &middot; u up &middot; / search &middot; o open all"
        top = f'<header><b><a href="./">{h(self.run)}</a></b><nav>{nav}</nav><nav>round {rounds}</nav><span class="keys">{keys}</span></header>'
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{h(title)}</title><style nonce="{nonce}">{CSS}</style>'
        script = f'<script nonce="{nonce}">{KEYS}</script>'
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{top}<main>{body}</main>{script}</body></html>\n'.encode()


def chips(page: str, query: Query, name: str, counts: Mapping[str, int]) -> str:
    """A row of words to choose among; choosing starts again at the first page."""
    if len(counts) < 2:
        return ""
    base = {**query, "page": ""}
    shown = [link(page, {**base, name: ""}, "all", here=not query.get(name))]
    shown += [
        link(page, {**base, name: word}, f"{h(word.replace('_', ' '))} {n:,}", here=query.get(name) == word)
        for word, n in counts.items()
    ]
    return f'<div class="chips"><span>{h(name)}</span>{"".join(shown)}</div>'


def search(page: str, query: Query, sorts: Sequence[str], *, bounded: bool) -> str:
    """The form; what the chips chose goes along."""
    hidden = "".join(
        f'<input type="hidden" name="{h(k)}" value="{h(v)}">'
        for k, v in query.items()
        if k not in ("q", "sort", "down", "low", "high", "page") and v
    )
    box = (
        f'<input type="search" name="q" value="{h(query.get("q", ""))}" placeholder="text" aria-label="text">'
    )
    ends = (("low", "0"), ("high", "1")) if bounded else ()
    limits = " to ".join(
        f'<input type="number" name="{k}" min="0" max="1" step="any" value="{h(query.get(k) or v)}" aria-label="{k}">'
        for k, v in ends
    )
    bounds = f"<label>agreement {limits}</label>" if limits else ""
    options = "".join(
        f'<option value="{s}"{" selected" if query.get("sort") == s else ""}>{s or "the order of the round"}</option>'
        for s in ("", *sorts)
    )
    down = f'<label><input type="checkbox" name="down" value="1"{" checked" if query.get("down") else ""}> largest first</label>'
    order = f'<label>sort by <select name="sort">{options}</select></label>{down}' if sorts else ""
    return f'<form action="{page}">{hidden}{box}{bounds}{order}<button>show</button></form>'


def pager(page: str, query: Query, index: Index, number: int, total: int) -> str:
    last = max(0, (total - 1) // PAGE)
    parts = [f"{total:,} found" + ("" if index.complete else ", and the round is not done yet")]
    if last:
        parts.append(f"page {number + 1:,} of {last + 1:,}")
        parts += [link(page, {**query, "page": str(number - 1)}, "previous", rel="prev")] if number else []
        parts += [link(page, {**query, "page": str(number + 1)}, "next", rel="next")] if number < last else []
    return f'<div class="pager">{" ".join(f"<span>{p}</span>" for p in parts)}</div>'


def walk(page: str, up: str, query: Query, at: int, total: int) -> str:
    """To the list, and to the neighbours within what is listed."""
    back = {**query, "page": str(at // PAGE)}
    parts = [link(up, back, "back to the list", rel="up"), f"{at + 1:,} of {total:,}"]
    parts += [link(page, {**query, "at": str(at - 1)}, "previous", rel="prev")] if at else []
    parts += [link(page, {**query, "at": str(at + 1)}, "next", rel="next")] if at + 1 < total else []
    return f'<div class="pager">{" ".join(f"<span>{p}</span>" for p in parts)}</div>'
