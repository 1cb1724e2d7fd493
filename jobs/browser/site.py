"""Addresses to pages: which rows of which index an address asks for, and what is shown of them."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.browser import views
from jobs.browser.groups import group_index, open_group
from jobs.browser.index import Index, Wish, instruction_index, response_index, stages_giving
from jobs.runs.progress import summed
from serl.run.rundir import Manifest, Run, RunError
from serl.stages.read import band

PAGE = 50
KEPT_INDEXES = 6
KEPT_FINDS = 16
NOTES = {"items", "accepted", "dropped_shots", "prompts_too_long", "novel", "candidates", "kept"}
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of rows: words to choose among, figures to sort by, whether agreement can be bounded."""

    filters: tuple[str, ...]
    sorts: tuple[str, ...] = ()
    bounded: bool = False
    row: Callable[[Mapping], Mapping] = dict


LISTS = {
    "instructions": Listing(filters=("stage", "fate"), sorts=("rouge_l",)),
    "groups": Listing(
        filters=("fate", "role", "stage"), sorts=("agreement", "margin", "reward"), bounded=True,
        row=views.group_row,
    ),
    "responses": Listing(filters=("benchmark", "verdict", "mode", "stage")),
}  # fmt: skip
OPENED = {"group": "groups", "response": "responses"}
FILTERS = sorted({name for listing in LISTS.values() for name in listing.filters})


class Library:
    """The indexes of one run, made when first asked for; those of unfinished rounds each time."""

    def __init__(self, run: Run):
        self.run = run
        self._kept: dict[tuple[str, int], Index] = {}
        self._found: dict[tuple[str, int, str], NDArray[np.int64]] = {}
        self._lock = threading.RLock()

    def find(self, kind: str, round: int, wanted: Wish) -> tuple[Index, NDArray[np.int64]]:
        """The index, and its rows that are wished for; remembered, since after one row comes the next."""
        index, key = self.index(kind, round), (kind, round, repr(wanted))
        with self._lock:
            found = self._found.pop(key, None) if index.complete else None
        found = index.find(wanted) if found is None else found
        with self._lock:
            _remember(self._found, key, found, KEPT_FINDS)
        return index, found

    def index(self, kind: str, round: int) -> Index:
        with self._lock:
            index = self._kept.pop((kind, round), None) or self._make(kind, round)
            if index.complete:
                _remember(self._kept, (kind, round), index, KEPT_INDEXES)
            return index

    def _make(self, kind: str, round: int) -> Index:
        match kind:
            case "groups":
                return group_index(self.run, round)
            case "instructions":
                return instruction_index(self.run, round, self.index("groups", round))
            case _:
                return response_index(self.run, round)


def _remember(kept: dict, key: tuple, value: object, most: int) -> None:
    """Last, hence the last to go."""
    kept[key] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


class Site:
    """Addresses to pages."""

    def __init__(self, run: Run):
        self.run, self.library = run, Library(run)
        self.rounds = sorted({stage.round for stage in run.config.stages})

    def prepare(self) -> None:
        """Index the round that a reader sees first, before it is asked for."""
        with contextlib.suppress(RunError):  # the page itself will say it
            self.library.index("groups", min(1, self.rounds[-1]))

    def page(self, name: str, query: Query, nonce: str) -> bytes | None:
        """The page of that name, or None where there is none."""
        round = whole(query, "round", default=min(1, self.rounds[-1]))
        if round not in self.rounds:
            first, last = self.rounds[0], self.rounds[-1]
            raise ValueError(f"round {round}: the rounds of this run are {first} to {last}")
        if name not in {"", *LISTS, *OPENED}:
            return None
        query = {**query, "round": str(round)}
        frame = {"run": self.run.root.name, "rounds": self.rounds, "lists": list(LISTS), "nonce": nonce}
        frame |= {"name": name, "listed": OPENED.get(name, name), "round": round, "query": query}
        if not name:
            return views.render("overview.html", **frame, tallies=[self._tally(r) for r in self.rounds])
        values = self._list(name, round, query) if name in LISTS else self._opened(name, round, query)
        return views.render(f"{name}.html", **frame | values)

    def _list(self, name: str, round: int, query: Query) -> dict[str, object]:
        listing = LISTS[name]
        index, found = self.library.find(name, round, wish(query))
        last = max(0, len(found) - 1) // PAGE
        number = min(whole(query, "page"), last)
        rows = index.rows([int(i) for i in found[number * PAGE :][:PAGE]])
        return {
            "rows": [{**listing.row(row), "at": number * PAGE + i} for i, row in enumerate(rows)],
            "counts": {name: index.counts(name) for name in listing.filters},
             "size": len(index), "complete": index.complete, "number": number,
            "found": len(found), "last": last, "filters": listing.filters, "sorts": ("", *listing.sorts),
            "bounded": listing.bounded,
            "most_votes": max((len(row.get("labels", ())) for row in rows), default=0),
        }  # fmt: skip

    def _opened(self, name: str, round: int, query: Query) -> dict[str, object]:
        """`at` is a place in the list that the rest of the query asks for."""
        index, found = self.library.find(OPENED[name], round, wish(query))
        at = whole(query, "at")
        if at >= len(found):
            raise ValueError(f"at {at}: {len(found)} rows fit what was asked; go back to the list")
        row = int(found[at])
        if name == "group":
            values = views.group(open_group(index, row), *band(self.run.config, round)[0])
        else:
            values = {"row": index.rows([row])[0]}
        return values | {"at": at, "found": len(found), "page_size": PAGE}

    def _tally(self, round: int) -> dict[str, object]:
        """From the manifests alone: opening a run must not read it."""
        groups, chosen = self._manifests(round, "groups"), summed(self._manifests(round, "problems"))
        became = summed(self._manifests(round, "candidates")) | chosen
        proposed = {views.ANSWERED: chosen.get("kept", 0)} | {
            k: n for k, n in became.items() if k not in NOTES
        }
        trained = summed(self._manifests(round, "weights")) if round else {}
        answered = {k.removeprefix("groups_"): n for k, n in trained.items() if k.startswith("groups_")}
        if not answered:  # not trained on yet
            answered = {views.ANSWERED: _rows(groups)}
        by = {views.ANSWERED: {"stage": groups[0].shard.stage} if groups else {"fate": "kept"}}
        return {
            "round": round,
            "proposed": views.tallies(proposed, by),
            "answered": views.tallies(answered, {views.ANSWERED: {}}),
            "graded": _rows(self._manifests(round, "grades")),
        }

    def _manifests(self, round: int, gives: str) -> list[Manifest]:
        """Of the shards that are done."""
        stages = stages_giving(self.run, round, gives)
        shards = [shard for stage in stages for shard in self.run.shards(round, stage.name)]
        return list(filter(None, map(self.run.manifest, shards)))


def _rows(manifests: list[Manifest]) -> int:
    return sum(m.files[0].rows for m in manifests if m.files)


def wish(query: Query) -> Wish:
    """What an address asks for; a number that is none is the reader's mistake."""
    try:
        low, high = (float(query.get(k) or v) for k, v in (("low", "0"), ("high", "1")))
    except ValueError:
        given = f"agreement from {query.get('low')!r} to {query.get('high')!r}"
        raise ValueError(f"{given}: give two numbers between 0 and 1") from None
    return Wish(
        only={name: query[name] for name in FILTERS if name in query},
        between={"agreement": (low, high)},
        text=query.get("q", ""),
        sort=query.get("sort", ""),
        down=bool(query.get("down")),
    )


def whole(query: Query, name: str, default: int = 0) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} {text!r}: not a whole number")
    return int(text)
