"""Read what a run wrote, in a browser: `python -m jobs.browse RUN [--port P]`.

Instructions with what each was dropped for, the answers to each question with their equivalence classes, votes and rewards, and the graded
responses of score: filtered, searched, sorted, page by page. The run may be under way; what is not done yet is not shown. Nothing is
written.

Served on 127.0.0.1 only, and under a random name that the address carries, because login nodes have many users: whoever does not know the
name gets nothing. Pages load nothing from elsewhere, and their policy lets run no script but their own.

JSON, once it is stopped by Ctrl-C: `url`, `pages` (how many were served).
"""

import contextlib
import getpass
import hmac
import html
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jobs.browser import pages
from jobs.browser.index import Index, Wish, group_index, instruction_index, open_group, response_index
from jobs.browser.parts import PAGE, Frame
from jobs.plan.chain import steps
from serl.stages.read import band
from jobs.runs.find import find_run
from jobs.shell.command import Answer, data_root, main, parser
from serl.run.rundir import Run, RunError

KEPT_INDEXES = 6
KEPT_FINDS = 16
PATIENCE_S = 30.0  # of a connection that says nothing
FILTERS = ("fate", "role", "stage", "benchmark", "verdict", "mode")
NOTES = {"items", "accepted", "dropped_shots", "novel", "candidates", "kept"}


class Library:
    """The indexes of one run, made when first asked for; those of unfinished rounds are made anew each time."""

    def __init__(self, run: Run):
        self.run = run
        self._kept: dict[tuple[str, int], Index] = {}
        self._found: dict[tuple[str, int, str], NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def find(self, kind: str, round: int, wanted: Wish) -> tuple[Index, NDArray[np.int64]]:
        """The index, and its rows that are wished for; remembered, since whoever opens one row will want the next."""
        make = {"groups": self.groups, "instructions": self.instructions, "responses": self.responses}
        index, key = make[kind](round), (kind, round, repr(wanted))
        found = self._found.pop(key, None) if index.complete else None
        self._found[key] = found = index.find(wanted) if found is None else found
        while len(self._found) > KEPT_FINDS:
            self._found.pop(next(iter(self._found)), None)
        return index, found

    def groups(self, round: int) -> Index:
        return self._get("groups", round, lambda: group_index(self.run, round))

    def instructions(self, round: int) -> Index:
        groups = self.groups(round)
        return self._get("instructions", round, lambda: instruction_index(self.run, round, groups))

    def responses(self, round: int) -> Index:
        return self._get("responses", round, lambda: response_index(self.run, round))

    def _get(self, kind: str, round: int, make: Callable[[], Index]) -> Index:
        with self._lock:
            index = self._kept.pop((kind, round), None) or make()
            if index.complete:
                self._kept[kind, round] = index  # last, hence the last to go
            while len(self._kept) > KEPT_INDEXES:
                del self._kept[next(iter(self._kept))]
            return index


class Site:
    """Addresses to pages."""

    def __init__(self, run: Run):
        self.run, self.library = run, Library(run)
        self.rounds = sorted({round for round, _ in steps(run.config)})

    def prepare(self) -> None:
        """Index the round that a reader sees first, before it is asked for."""
        with contextlib.suppress(RunError):  # the page itself will say it
            self.library.groups(min(1, self.rounds[-1]))

    def page(self, name: str, query: Mapping[str, str], nonce: str) -> bytes | None:
        """The page of that name, or None where there is none."""
        round = _whole(query, "round", default=min(1, self.rounds[-1]))
        if round not in self.rounds:
            raise ValueError(
                f"round {round}: the rounds of this run are {self.rounds[0]} to {self.rounds[-1]}"
            )
        query = {**query, "round": str(round)}
        match name:
            case "":
                body = pages.overview_page([self._tally(r) for r in self.rounds])
            case "groups" | "instructions" | "responses":
                body = self._list(name, round, query, nonce)
            case "group" | "response":
                body = self._opened(name, round, query, nonce)
            case _:
                return None
        shown = {"group": "groups", "response": "responses"}.get(name, name)
        return Frame(run=self.run.root.name, rounds=self.rounds, round=round, page=shown).wrap(
            f"{self.run.root.name} {name}", body, nonce
        )

    def _list(self, name: str, round: int, query: Mapping[str, str], nonce: str) -> str:
        index, found = self.library.find(name, round, wish(query))
        number = min(_whole(query, "page"), max(0, len(found) - 1) // PAGE)
        rows = index.rows([int(i) for i in found[number * PAGE :][:PAGE]])
        match name:
            case "groups":
                return pages.groups_page(index, rows, query, number, len(found), nonce)
            case "instructions":
                return pages.instructions_page(index, rows, query, number, len(found))
            case _:
                return pages.responses_page(index, rows, query, number, len(found))

    def _opened(self, name: str, round: int, query: Mapping[str, str], nonce: str) -> str:
        """`at` is a place in the list that the rest of the query asks for."""
        index, found = self.library.find(f"{name}s", round, wish(query))
        at = _whole(query, "at")
        if at >= len(found):
            raise ValueError(f"at {at}: {len(found)} rows fit what was asked; go back to the list")
        if name == "group":
            return pages.group_page(
                open_group(index, int(found[at])),
                query,
                at,
                len(found),
                band(self.run.config, round)[0],
                nonce,
            )
        return pages.response_page(index.rows([int(found[at])])[0], query, at, len(found))

    def _tally(self, round: int) -> tuple[int, Mapping[str, int], Mapping[str, int], int]:
        """From the manifests alone: opening a run must not read it."""
        curated = self._counts(round, "problems")
        proposed = {pages.ANSWERED: int(curated["kept"])} if "kept" in curated else {}
        proposed |= {
            k: int(n)
            for counts in (self._counts(round, "candidates"), curated)
            for k, n in counts.items()
            if n and k not in NOTES
        }
        kept = self._counts(round, "weights") if round else {}
        answered = {k.removeprefix("groups_"): int(n) for k, n in kept.items() if k.startswith("groups_")}
        if not answered and (num_groups := self._rows(round, "groups")):
            answered = {pages.ANSWERED: num_groups}  # not trained on yet
        return round, proposed, answered, self._rows(round, "grades")

    def _rows(self, round: int, stage: str) -> int:
        return sum(m.files[0].rows for s in self._shards(round, stage) if (m := self.run.manifest(s)))

    def _counts(self, round: int, stage: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for manifest in filter(None, map(self.run.manifest, self._shards(round, stage))):
            total |= {k: total.get(k, 0) + n for k, n in manifest.counts.items()}
        return total

    def _shards(self, round: int, stage: str) -> list:
        return self.run.shards(round, stage) if (round, stage) in steps(self.run.config) else []


def wish(query: Mapping[str, str]) -> Wish:
    """What an address asks for; a number that is none is the reader's mistake."""
    try:
        low, high = (float(query.get(k) or v) for k, v in (("low", "0"), ("high", "1")))
    except ValueError:
        raise ValueError(
            f"agreement from {query.get('low')!r} to {query.get('high')!r}: give two numbers between 0 and 1"
        ) from None
    only = {name: query[name] for name in FILTERS if name in query}
    return Wish(
        only=only,
        between={"agreement": (low, high)},
        text=query.get("q", ""),
        sort=query.get("sort", ""),
        down=bool(query.get("down")),
    )


def _whole(query: Mapping[str, str], name: str, default: int = 0) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} {text!r}: not a whole number")
    return int(text)


class Server(ThreadingHTTPServer):
    """Pages of a site to those who know its secret name."""

    daemon_threads = True

    def __init__(self, site: Site, port: int):
        self.site, self.secret, self.num_pages = site, secrets.token_urlsafe(18), 0
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as e:
            raise ValueError(f"--port {port}: {e.strerror}; choose another, or leave it out") from e

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        """A reader that went away is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.secret}/"


class Handler(BaseHTTPRequestHandler):
    """One request; says nothing to whoever lacks the secret, and to nobody what it runs on."""

    server: Server
    timeout = PATIENCE_S
    server_version, sys_version = "browse", ""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        _, secret, *rest = *address.path.split("/"), "", ""
        host = self.headers.get("Host", "").rpartition(":")[0]
        if (
            not hmac.compare_digest(secret.encode(), self.server.secret.encode())
            or host not in ("127.0.0.1", "localhost")
            or len(rest) != 3
        ):
            return self._send(404, b"not found", "")
        nonce = secrets.token_urlsafe(12)
        try:
            content = self.server.site.page(rest[0], dict(parse_qsl(address.query, max_num_fields=20)), nonce)
        except (ValueError, RunError) as e:
            return self._send(400, _plain(str(e)), nonce)
        self.server.num_pages += 1
        return self._send(200, content, nonce) if content else self._send(404, _plain("no such page"), nonce)

    def _send(self, status: int, content: bytes, nonce: str) -> None:
        self.send_response(status)
        policy = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": policy,
        }
        headers |= {
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: an address holds the secret."""


def _plain(message: str) -> bytes:
    return f'<!doctype html><meta charset="utf-8"><p>{html.escape(message)}</p><p><a href="./">the run</a></p>'.encode()


def body(argv: Sequence[str]) -> int:
    p = parser("browse", "Read instructions, answers, votes and grades of a run in a browser.")
    p.add_argument("run", help="a run's name, or its folder")
    p.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any that is free)")
    args = p.parse_intermixed_args(argv)
    if not 0 <= args.port <= 65535:
        raise RunError(f"--port {args.port}: choose one up to 65535, or leave it out for any that is free")
    server = Server(Site(find_run(args.run, data_root(args))), args.port)
    port = server.server_address[1]
    console = Console(soft_wrap=True)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # also where a shell that started it in the background has it ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        console.print(server.url, markup=False, highlight=False)
        console.print(
            f"from elsewhere: ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.getfqdn()}",
            markup=False,
            highlight=False,
        )
        console.print("Ctrl-C ends it", highlight=False)
        threading.Thread(target=server.site.prepare, daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        console.print(f"{server.num_pages} pages read", highlight=False)
    finally:
        server.server_close()
    return Answer(fields={"url": server.url, "pages": server.num_pages})


if __name__ == "__main__":
    main(body)
