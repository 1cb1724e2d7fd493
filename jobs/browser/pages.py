"""Pages of `jobs.browse` as HTML, of what the index found; a text of a run goes through `h`, `caption` or `block`, the rest is literal."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from jobs.browser.index import Index
from jobs.browser.parts import PAGE, Query, block, caption, chips, h, link, nothing, pager, search, walk

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
    tone = (
        "kept"
        if fate == "kept"
        else "soft"
        if fate in ("anchor", "surplus", ANSWERED) or fate.endswith("_yet")
        else "dropped"
    )
    return f'<span class="fate {tone}">{h(fate.replace("_", " "))}</span>'


def majority(row: Mapping) -> str | None:
    """The shortest spelling of the answer that won."""
    mine = [
        a
        for a, k in zip(row["answers"], row["labels"])
        if a is not None and k == row["winner"] and k is not None
    ]
    return min(mine, key=lambda a: (len(a), a)) if mine else None


def groups_page(
    index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int, nonce: str
) -> str:
    head = "".join(
        f"<th{c}>{t}</th>"
        for t, c in (
            ("question", ""),
            ("fate", ""),
            ("majority", ""),
            ("gold", ""),
            ("votes", ""),
            ("agreement", ' class="number"'),
        )
    )
    lines = []
    for place, row in enumerate(rows):
        right = {True: "correct", False: "wrong", None: ""}[row["winner_correct"]]
        opened = link("group", {**query, "at": str(number * PAGE + place)}, caption(row["question"]))
        cells = f"<td class=text>{opened}</td><td class=tight>{fate_word(row['fate'])}</td><td class='{right}'><bdi>{h(majority(row) or '', 60)}</bdi></td><td>{h(row['gold'] or '', 60)}</td>"
        lines.append(
            f"<tr>{cells}<td class=tight>{votes_bar(row['labels'])}</td><td class=number>{row['agreement']:.3f}</td></tr>"
        )
    num = max((len(row["labels"]) for row in rows), default=1)
    filters = chips("groups", query, "fate", index.counts["fate"]) + chips(
        "groups", query, "role", index.counts["role"]
    )
    form = search("groups", query, ("agreement", "margin", "reward"), bounded=True)
    table = f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else nothing(index)
    return (
        widths(num, nonce)
        + filters
        + form
        + pager("groups", query, index, number, total)
        + table
        + pager("groups", query, index, number, total)
    )


def group_page(row: Mapping, query: Query, at: int, total: int, band: tuple[float, float], nonce: str) -> str:
    """One question: why it is or is not trained on, its classes, and its answers class by class."""
    ranks = {label: rank for rank, (label, _) in enumerate(class_sizes(row["labels"]))}
    why = REASONS[row["fate"]].format(reward=row["reward"], low=band[0], high=band[1])
    gold = {
        True: "the majority is right",
        False: "the majority is wrong",
        None: "no majority to compare with it",
    }[row["winner_correct"]]
    facts = {
        "id": row["id"],
        "agreement": f"{row['agreement']:.3f}",
        "margin": f"{row['margin']:.3f}",
        "mean reward": f"{row['reward']:.3f}",
    }
    facts |= {"gold": f"{row['gold']} ({gold})"} if row["gold"] is not None else {}
    facts |= {"undecided": str(row["undecided"])} if row["undecided"] else {}
    tokens = [len(c["token_ids"]) for c in row["completions"]]
    facts |= (
        {"tokens": f"{sum(tokens):,} in all, {min(tokens):,} to {max(tokens):,} an answer"} if tokens else {}
    )
    listed = "".join(f"<div><dt>{h(k)}</dt><dd><bdi>{h(v)}</bdi></dd></div>" for k, v in facts.items())
    top = f'<div class="card"><h2>question</h2><div class="question">{block(row["question"])}</div><dl>{listed}</dl><p class="why">{fate_word(row["fate"])} &ndash; {h(why)}</p></div>'
    order = sorted(range(len(row["labels"])), key=lambda i: (ranks[row["labels"][i]], i))
    answers = "".join(
        _answer(row, i, ranks, first=n == 0 or row["labels"][order[n - 1]] != row["labels"][i])
        for n, i in enumerate(order)
    )
    body = f'<div class="card"><h2>classes</h2>{_classes(row, ranks)}</div><div class="card"><h2>answers</h2>{answers}</div>'
    return widths(len(row["labels"]), nonce) + walk("group", "groups", query, at, total) + top + body


def _classes(row: Mapping, ranks: Mapping[int | None, int]) -> str:
    lines = []
    for label, n in class_sizes(row["labels"]):
        mine = [i for i, k in enumerate(row["labels"]) if k == label]
        spelled = sorted(
            {row["answers"][i] for i in mine if row["answers"][i] is not None}, key=lambda a: (len(a), a)
        )
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
    facts += [
        f"reward {row['rewards'][i]:g}",
        f"{len(c['token_ids']):,} tokens",
        f'<span class="soft">{mean}</span>',
        end,
    ]
    summary = "".join(f"<span>{f}</span>" for f in facts if f)
    return f"<details{' open' if first else ''}><summary>{summary}</summary><pre>{block(c['text'])}</pre></details>"


def instructions_page(index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int) -> str:
    lines = []
    for row in rows:
        text = caption(row["text"])
        shown = (
            link("group", {"round": query["round"], "at": str(row["group"])}, text)
            if row["group"] is not None
            else text
        )
        like = f", ROUGE-L {row['rouge_l']:.2f}: {h(row['like'])}" if row["like"] else ""
        note = f'<br><span class="soft">{h(DROPS[row["fate"]])}{like}</span>' if row["fate"] in DROPS else ""
        lines.append(
            f"<tr><td class=text>{shown}{note}</td><td class=tight>{h(row['stage'])}</td><td class=tight>{fate_word(row['fate'])}</td></tr>"
        )
    filters = "".join(chips("instructions", query, name, index.counts[name]) for name in ("stage", "fate"))
    table = (
        f"<table><tr><th>instruction</th><th>decided by</th><th>fate</th></tr>{''.join(lines)}</table>"
        if lines
        else nothing(index)
    )
    ends = pager("instructions", query, index, number, total)
    return filters + search("instructions", query, ("rouge_l",), bounded=False) + ends + table + ends


def responses_page(index: Index, rows: Sequence[Mapping], query: Query, number: int, total: int) -> str:
    lines = []
    for place, row in enumerate(rows):
        opened = link("response", {**query, "at": str(number * PAGE + place)}, caption(row["response"], 160))
        cells = f"<td class=tight>{h(row['benchmark'], 40)}</td><td class=tight>{h(row['id'], 40)}</td><td class=text>{opened}</td><td>{h(row['extracted'] or '', 60)}</td><td>{h(row['gold'], 60)}</td>"
        lines.append(f"<tr>{cells}<td class='tight {h(row['verdict'])}'>{h(row['verdict'])}</td></tr>")
    filters = "".join(
        chips("responses", query, name, index.counts[name]) for name in ("benchmark", "verdict", "mode")
    )
    head = "".join(f"<th>{t}</th>" for t in ("benchmark", "problem", "response", "answer", "gold", "verdict"))
    table = f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else nothing(index)
    ends = pager("responses", query, index, number, total)
    return filters + search("responses", query, (), bounded=False) + ends + table + ends


def response_page(row: Mapping, query: Query, at: int, total: int) -> str:
    names = (
        "benchmark",
        "id",
        "mode",
        "sample",
        "gold",
        "extracted",
        "verdict",
        "finish_reason",
        "subject",
        "level",
        "label",
    )
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
        lines.append(
            f"<tr><td class=number>{round}</td>{''.join(f'<td class=text>{c}</td>' for c in cells)}</tr>"
        )
    return f"<table><tr><th>round</th><th>instructions</th><th>groups of answers</th><th>graded</th></tr>{''.join(lines)}</table>"


def _tally(page: str, query: Query, counts: Mapping[str, int]) -> str:
    shown = [
        link(
            page,
            {**query, **({"stage": "groups"} if word == ANSWERED else {"fate": word})},
            f"{n:,} {fate_word(word)}",
        )
        for word, n in counts.items()
    ]
    return link(page, query, f"<b>{sum(counts.values()):,}</b>") + ": " + ", ".join(shown) if counts else ""
