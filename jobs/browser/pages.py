"""Pages of `jobs.browse` as HTML. Every text of a run goes through `h` or `block`, which escape it; the rest is literal.

Addresses are relative to the page's folder, so that the secret part of the address stands in no page.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from urllib.parse import urlencode

from jobs.browser.index import Index
from jobs.browser.style import CSS, KEYS
from jobs.reporting.visible import visible

PAGE = 50
MAX_LINE = 240
MAX_BLOCK = 50_000
NUM_COLOURS = 8
ANSWERED = "answered"  # in the overview: what curate let through
REASONS = {
    "kept": "trained on: the mean reward {reward:.3g} lies in the band {low:g} to {high:g}",
    "too_easy": "dropped: the mean reward {reward:.3g} is above {high:g}, the answers agree too well to teach anything",
    "too_hard": "dropped: the mean reward {reward:.3g} is below {low:g}, the majority is hardly more than noise",
    "tie": "dropped: two answers share the first place, so there is no majority",
    "no_votes": "dropped: no answer could be read, so nobody voted",
    "anchor": "never trained on: a problem with a gold answer, to measure the vote by",
}
DROPS = {
    "near_duplicate": "too near to",
    "exact_duplicate": "the same as",
    "surplus": "new, but the round had enough",
    "duplicate_or_surplus": "not kept (this run did not record why)",
    "prompt_too_long": "kept, but its prompt leaves no room for an answer",
    "not_curated_yet": "waits for curate",
    "not_answered_yet": "waits for its answers",
}
Query = Mapping[str, str]


def h(text: object, limit: int = MAX_LINE) -> str:
    """One harmless line."""
    return html.escape(visible(str(text), limit))


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
        link(page, {**base, name: word}, f"{h(word.replace('_', ' '))} {n:,}", here=query.get(name) == word) for word, n in counts.items()
    ]
    return f'<div class="chips"><span>{h(name)}</span>{"".join(shown)}</div>'


def search(page: str, query: Query, sorts: Sequence[str], *, bounded: bool) -> str:
    """The form; what the chips chose goes along."""
    hidden = "".join(
        f'<input type="hidden" name="{h(k)}" value="{h(v)}">'
        for k, v in query.items()
        if k not in ("q", "sort", "down", "low", "high", "page") and v
    )
    box = f'<input type="search" name="q" value="{h(query.get("q", ""))}" placeholder="text" aria-label="text">'
    ends = (("low", "0"), ("high", "1")) if bounded else ()
    limits = " to ".join(
        f'<input type="number" name="{k}" min="0" max="1" step="any" value="{h(query.get(k) or v)}" aria-label="{k}">' for k, v in ends
    )
    bounds = f"<label>agreement {limits}</label>" if limits else ""
    options = "".join(
        f'<option value="{s}"{" selected" if query.get("sort") == s else ""}>{s or "the order of the round"}</option>' for s in ("", *sorts)
    )
    down = f'<label><input type="checkbox" name="down" value="1"{" checked" if query.get("down") else ""}> largest first</label>'
    order = f'<label>sort by <select name="sort">{options}</select></label>{down}' if sorts else ""
    return f'<form action="{page}">{hidden}{box}{bounds}{order}<button>show</button></form>'


def pager(page: str, query: Query, number: int, total: int) -> str:
    last = max(0, (total - 1) // PAGE)
    parts = [f"{total:,} found"]
    if last:
        parts.append(f"page {number + 1:,} of {last + 1:,}")
        parts += [link(page, {**query, "page": str(number - 1)}, "previous", rel="prev")] if number else []
        parts += [link(page, {**query, "page": str(number + 1)}, "next", rel="next")] if number < last else []
    return f'<div class="pager">{" ".join(f"<span>{p}</span>" for p in parts)}</div>'


def votes_bar(labels: Sequence[int | None]) -> str:
    """The classes by size, those without a vote last."""
    sizes = [(label, n) for label, n in class_sizes(labels)]
    cells = "".join(f'<i class="{_colour(rank, label)} w{n}"></i>' for rank, (label, n) in enumerate(sizes))
    words = ", ".join(f"{n} {'silent' if label is None else ''}".strip() for label, n in sizes)
    return f'<span class="votes" title="{h(words)}">{cells}</span>'


def widths(num: int, nonce: str) -> str:
    """A class for each share of the bar, since the page's policy allows no style attributes."""
    return f'<style nonce="{nonce}">{"".join(f".w{n}{{width:{100 * n / num:.3f}%}}" for n in range(1, num + 1))}</style>'


def class_sizes(labels: Sequence[int | None]) -> list[tuple[int | None, int]]:
    sizes = {label: sum(other == label for other in labels) for label in dict.fromkeys(labels)}
    return sorted(sizes.items(), key=lambda item: (item[0] is None, -item[1], item[0] or 0))


def _colour(rank: int, label: int | None) -> str:
    return "none" if label is None else f"c{rank % NUM_COLOURS}"


def fate_word(fate: str) -> str:
    tone = "kept" if fate == "kept" else "soft" if fate in ("anchor", "surplus", ANSWERED) or fate.endswith("_yet") else "dropped"
    return f'<span class="fate {tone}">{h(fate.replace("_", " "))}</span>'


def majority(row: Mapping) -> str | None:
    """The shortest spelling of the answer that won."""
    mine = [a for a, k in zip(row["answers"], row["labels"]) if a is not None and k == row["winner"] and k is not None]
    return min(mine, key=lambda a: (len(a), a)) if mine else None


def groups_page(index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int, nonce: str) -> str:
    head = "".join(
        f"<th{c}>{t}</th>"
        for t, c in (("question", ""), ("fate", ""), ("majority", ""), ("gold", ""), ("votes", ""), ("agreement", ' class="number"'))
    )
    lines = []
    for place, row in enumerate(rows):
        right = {True: "correct", False: "wrong", None: ""}[row["winner_correct"]]
        opened = link("group", {**query, "at": str(number * PAGE + place)}, h(row["question"]))
        cells = f"<td>{opened}</td><td class=tight>{fate_word(row['fate'])}</td><td class='{right}'><bdi>{h(majority(row) or '', 60)}</bdi></td><td>{h(row['gold'] or '', 60)}</td>"
        lines.append(f"<tr>{cells}<td class=tight>{votes_bar(row['labels'])}</td><td class=number>{row['agreement']:.3f}</td></tr>")
    num = max((len(row["labels"]) for row in rows), default=1)
    filters = chips("groups", query, "fate", index.counts["fate"]) + chips("groups", query, "role", index.counts["role"])
    form = search("groups", query, ("agreement", "margin", "reward"), bounded=True)
    table = f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else "<p>Nothing here fits what was asked.</p>"
    return widths(num, nonce) + filters + form + pager("groups", query, number, total) + table + pager("groups", query, number, total)


def group_page(row: Mapping, query: Query, at: int, total: int, band: tuple[float, float], nonce: str) -> str:
    """One question: why it is or is not trained on, its classes, and its answers class by class."""
    ranks = {label: rank for rank, (label, _) in enumerate(class_sizes(row["labels"]))}
    why = REASONS[row["fate"]].format(reward=row["reward"], low=band[0], high=band[1])
    gold = {True: "the majority is right", False: "the majority is wrong", None: "no majority to compare with it"}[row["winner_correct"]]
    facts = {
        "id": row["id"],
        "agreement": f"{row['agreement']:.3f}",
        "margin": f"{row['margin']:.3f}",
        "mean reward": f"{row['reward']:.3f}",
    }
    facts |= {"gold": f"{row['gold']} ({gold})"} if row["gold"] is not None else {}
    facts |= {"undecided": str(row["undecided"])} if row["undecided"] else {}
    tokens = [len(c["token_ids"]) for c in row["completions"]]
    facts |= {"tokens": f"{sum(tokens):,} in all, {min(tokens):,} to {max(tokens):,} an answer"} if tokens else {}
    listed = "".join(f"<div><dt>{h(k)}</dt><dd><bdi>{h(v)}</bdi></dd></div>" for k, v in facts.items())
    top = f'<div class="card"><h2>question</h2><div class="question">{block(row["question"])}</div><dl>{listed}</dl><p class="why">{fate_word(row["fate"])} &ndash; {h(why)}</p></div>'
    order = sorted(range(len(row["labels"])), key=lambda i: (ranks[row["labels"][i]], i))
    answers = "".join(_answer(row, i, ranks, first=n == 0 or row["labels"][order[n - 1]] != row["labels"][i]) for n, i in enumerate(order))
    body = f'<div class="card"><h2>classes</h2>{_classes(row, ranks)}</div><div class="card"><h2>answers</h2>{answers}</div>'
    return widths(len(row["labels"]), nonce) + walk("group", "groups", query, at, total) + top + body


def walk(page: str, up: str, query: Query, at: int, total: int) -> str:
    """To the list, and to the neighbours within what is listed."""
    back = {**query, "page": str(at // PAGE)}
    parts = [link(up, back, "back to the list", rel="up"), f"{at + 1:,} of {total:,}"]
    parts += [link(page, {**query, "at": str(at - 1)}, "previous", rel="prev")] if at else []
    parts += [link(page, {**query, "at": str(at + 1)}, "next", rel="next")] if at + 1 < total else []
    return f'<div class="pager">{" ".join(f"<span>{p}</span>" for p in parts)}</div>'


def _classes(row: Mapping, ranks: Mapping[int | None, int]) -> str:
    lines = []
    for label, n in class_sizes(row["labels"]):
        mine = [i for i, k in enumerate(row["labels"]) if k == label]
        spelled = sorted({row["answers"][i] for i in mine if row["answers"][i] is not None}, key=lambda a: (len(a), a))
        shown = "no vote: unread, cut off or undecided" if label is None else "  |  ".join(spelled)
        won = "majority" if label is not None and label == row["winner"] else ""
        reward = fmean(row["rewards"][i] for i in mine)
        bar = f'<span class="votes"><i class="{_colour(ranks[label], label)} w{n}"></i></span>'
        lines.append(
            f"<tr><td class=tight>{bar}</td><td class=number>{n}</td><td><bdi>{h(shown)}</bdi></td><td class=number>{reward:g}</td><td>{won}</td></tr>"
        )
    return f"<table><tr><th>votes</th><th></th><th>answer</th><th class=number>reward</th><th></th></tr>{''.join(lines)}</table>"


def _answer(row: Mapping, i: int, ranks: Mapping[int | None, int], *, first: bool) -> str:
    c, label = row["completions"][i], row["labels"][i]
    mean = f"mean log-probability {fmean(c['logprobs']):.3f}" if c["logprobs"] else ""
    end = "" if c["finish_reason"] == "stop" else f'<span class="dropped">{h(c["finish_reason"])}</span>'
    facts = [
        f'<span class="class {_colour(ranks[label], label)}"></span>',
        f"answer {i + 1}",
        f"<b><bdi>{h(row['answers'][i] if row['answers'][i] is not None else 'no answer', 80)}</bdi></b>",
    ]
    facts += [f"reward {row['rewards'][i]:g}", f"{len(c['token_ids']):,} tokens", f'<span class="soft">{mean}</span>', end]
    summary = "".join(f"<span>{f}</span>" for f in facts if f)
    return f"<details{' open' if first else ''}><summary>{summary}</summary><pre>{block(c['text'])}</pre></details>"


def instructions_page(index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int) -> str:
    lines = []
    for row in rows:
        text = h(row["text"])
        shown = link("group", {"round": query["round"], "at": str(row["group"])}, text) if row["group"] is not None else text
        like = f", ROUGE-L {row['rouge_l']:.2f}: {h(row['like'])}" if row["like"] else ""
        note = f'<br><span class="soft">{h(DROPS[row["fate"]])}{like}</span>' if row["fate"] in DROPS else ""
        lines.append(f"<tr><td>{shown}{note}</td><td class=tight>{h(row['stage'])}</td><td class=tight>{fate_word(row['fate'])}</td></tr>")
    filters = "".join(chips("instructions", query, name, index.counts[name]) for name in ("stage", "fate"))
    table = (
        f"<table><tr><th>instruction</th><th>decided by</th><th>fate</th></tr>{''.join(lines)}</table>"
        if lines
        else "<p>Nothing here fits what was asked.</p>"
    )
    ends = pager("instructions", query, number, total)
    return filters + search("instructions", query, ("rouge_l",), bounded=False) + ends + table + ends


def responses_page(index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int) -> str:
    lines = []
    for place, row in enumerate(rows):
        opened = link("response", {**query, "at": str(number * PAGE + place)}, h(row["response"] or "(empty)", 160))
        cells = f"<td class=tight>{h(row['benchmark'], 40)}</td><td class=tight>{h(row['id'], 40)}</td><td>{opened}</td><td>{h(row['extracted'] or '', 60)}</td><td>{h(row['gold'], 60)}</td>"
        lines.append(f"<tr>{cells}<td class='tight {h(row['verdict'])}'>{h(row['verdict'])}</td></tr>")
    filters = "".join(chips("responses", query, name, index.counts[name]) for name in ("benchmark", "verdict", "mode"))
    head = "".join(f"<th>{t}</th>" for t in ("benchmark", "problem", "response", "answer", "gold", "verdict"))
    table = f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else "<p>Nothing here fits what was asked.</p>"
    ends = pager("responses", query, number, total)
    return filters + search("responses", query, (), bounded=False) + ends + table + ends


def response_page(row: Mapping, query: Query, at: int, total: int) -> str:
    names = ("benchmark", "id", "mode", "sample", "gold", "extracted", "verdict", "finish_reason", "subject", "level", "label")
    listed = "".join(
        f"<div><dt>{h(k.replace('_', ' '))}</dt><dd class='{h(row[k]) if k == 'verdict' else ''}'><bdi>{h(row[k])}</bdi></dd></div>"
        for k in names
        if row[k] not in ("", None)
    )
    return (
        walk("response", "responses", query, at, total)
        + f'<div class="card"><h2>response</h2><pre>{block(row["response"])}</pre><dl>{listed}</dl></div>'
    )


def overview_page(rounds: Sequence[tuple[int, Mapping[str, int], Mapping[str, int], int]]) -> str:
    """What there is to read: for each round its instructions and groups by fate, and its responses."""
    lines = []
    for round, proposed, answered, graded in rounds:
        query = {"round": str(round)}
        cells = [
            _tally("instructions", query, proposed),
            _tally("groups", query, answered),
            link("responses", query, f"{graded:,} responses") if graded else "",
        ]
        lines.append(f"<tr><td class=number>{round}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>")
    return f"<table><tr><th>round</th><th>instructions</th><th>groups of answers</th><th>graded</th></tr>{''.join(lines)}</table>"


def _tally(page: str, query: Query, counts: Mapping[str, int]) -> str:
    shown = [
        link(page, {**query, **({"stage": "respond"} if word == ANSWERED else {"fate": word})}, f"{n:,} {fate_word(word)}")
        for word, n in counts.items()
    ]
    return link(page, query, f"<b>{sum(counts.values()):,}</b>") + ": " + ", ".join(shown) if counts else ""
