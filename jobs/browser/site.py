"""Addresses to pages: which rows of which index an address asks for, and what is shown of them."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.browser import views
from jobs.browser.groups import group_index, open_group
from jobs.browser.index import Index, Wish, instruction_index, response_index
from serl.run.rundir import Run
from serl.stages.read import band

PAGE = 50
KEPT_INDEXES = 6
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of rows: words to choose among, figures to sort by."""

    filters: tuple[str, ...]
    sorts: tuple[str, ...] = ()
    row: Callable[[Mapping], Mapping] = dict


LISTS = {
    "instructions": Listing(filters=("stage", "fate"), sorts=("rouge_l",)),
    "groups": Listing(
        filters=("fate", "role", "stage"), sorts=("agreement", "margin", "reward"), row=views.group_row
    ),
    "responses": Listing(filters=("benchmark", "verdict", "mode", "stage")),
}
OPENED = {"group": "groups", "response": "responses"}
FILTERS = sorted({name for listing in LISTS.values() for name in listing.filters})


class Site:
    """Pages of one run. Indexes are made when first asked for; those of unfinished rounds each time."""

    def __init__(self, run: Run):
        self.run = run
        self.rounds = sorted({stage.round for stage in run.config.stages})
        self._kept: dict[tuple[str, int], Index] = {}
        self._lock = threading.RLock()

    def page(self, name: str, query: Query, nonce: str) -> bytes | None:
        """The page of that name, or None where there is none; without a name, the groups."""
        name = name or "groups"
        if name not in {*LISTS, *OPENED}:
            return None
        round = whole(query, "round", default=min(1, self.rounds[-1]))
        if round not in self.rounds:
            first, last = self.rounds[0], self.rounds[-1]
            raise ValueError(f"round {round}: the rounds of this run are {first} to {last}")
        query = {**query, "round": str(round)}
        frame = {"run": self.run.root.name, "rounds": self.rounds, "lists": list(LISTS), "nonce": nonce}
        frame |= {"name": name, "listed": OPENED.get(name, name), "round": round, "query": query}
        values = self._list(name, round, query) if name in LISTS else self._opened(name, round, query)
        return views.render(f"{name}.html", **frame | values)

    def find(self, kind: str, round: int, wanted: Wish) -> tuple[Index, NDArray[np.int64]]:
        """The index, and its rows that are wished for."""
        index = self.index(kind, round)
        return index, index.find(wanted)

    def index(self, kind: str, round: int) -> Index:
        with self._lock:
            index = self._kept.pop((kind, round), None) or self._make(kind, round)
            if index.complete:
                self._kept[kind, round] = index  # last, hence the last to go
            while len(self._kept) > KEPT_INDEXES:
                del self._kept[next(iter(self._kept))]
            return index

    def _make(self, kind: str, round: int) -> Index:
        match kind:
            case "groups":
                return group_index(self.run, round)
            case "instructions":
                return instruction_index(self.run, round, self.index("groups", round))
            case _:
                return response_index(self.run, round)

    def _list(self, name: str, round: int, query: Query) -> dict[str, object]:
        listing = LISTS[name]
        index, found = self.find(name, round, wish(query))
        last = max(0, len(found) - 1) // PAGE
        number = min(whole(query, "page"), last)
        rows = index.rows([int(i) for i in found[number * PAGE :][:PAGE]])
        return {
            "rows": [{**listing.row(row), "at": number * PAGE + i} for i, row in enumerate(rows)],
            "counts": {name: index.counts(name) for name in listing.filters},
            "size": len(index), "complete": index.complete, "number": number,
            "found": len(found), "last": last, "filters": listing.filters, "sorts": ("", *listing.sorts),
            "most_votes": max((len(row.get("labels", ())) for row in rows), default=0),
        }  # fmt: skip

    def _opened(self, name: str, round: int, query: Query) -> dict[str, object]:
        """`at` is a place in the list that the rest of the query asks for."""
        index, found = self.find(OPENED[name], round, wish(query))
        at = whole(query, "at")
        if at >= len(found):
            raise ValueError(f"at {at}: {len(found)} rows fit what was asked; go back to the list")
        row = int(found[at])
        if name == "group":
            (low, high), _ = band(self.run.config, round)
            opened = views.group_row(open_group(index, row))
            values = {"row": opened, "low": low, "high": high, "most_votes": len(opened["labels"])}
        else:
            values = {"row": index.rows([row])[0]}
        return values | {"at": at, "found": len(found), "page_size": PAGE}


def wish(query: Query) -> Wish:
    """What an address asks for."""
    return Wish(
        only={name: query[name] for name in FILTERS if name in query},
        text=query.get("q", ""),
        sort=query.get("sort", ""),
        down=bool(query.get("down")),
    )


def whole(query: Query, name: str, default: int = 0) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} {text!r}: not a whole number")
    return int(text)
