"""The pages that show a run: nothing for strangers, nothing run that a model wrote, and keys that walk, in a real browser too."""

import asyncio
import copy
import html.parser
import http.client
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_run import do_curate, do_propose, do_score, group, make_run, publish, round_groups

from jobs.browser.server import Server
from jobs.browser.site import Site, wish
from serl.records import groups_to_parquet
from serl.run.rundir import Run
from tests.conftest import SMALL

HOSTILE = "</pre><script>document.title = 'OWNED'</script><img src=x onerror=\"document.title='OWNED'\">\u202etxet &amp; <b>bold</b>"
CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
OPTIONS += ("--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Run:
    run = make_run(tmp_path_factory.mktemp("browse"), copy.deepcopy(SMALL))
    evil = group(
        "evil",
        [0, 0, 0, 1, 1, 2, None, 0],
        question=HOSTILE,
        answers=(HOSTILE, "0", "0", "1", "1", "2", None, "0"),
    )
    evil = type(evil)(**{n: getattr(evil, n) for n in evil.__dataclass_fields__ if n != "completions"}, completions=tuple(
        type(c)(token_ids=c.token_ids, logprobs=c.logprobs, text=f"{HOSTILE} {i}\nsecond line", finish_reason="stop" if i != 6 else "length") for i, c in enumerate(evil.completions)
    ))  # fmt: skip
    groups = [evil, *round_groups(1, 120, 0.5)]
    for i in range(3):
        publish(run, 1, "respond", i, groups_to_parquet(groups[i * 44 : (i + 1) * 44]), {})
    do_propose(run, 1)
    do_curate(run, 1)
    do_score(run, 1, num=30)
    return run


@pytest.fixture(scope="module")
def server(made) -> Iterator[Server]:
    server = Server(Site(made), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Tags(html.parser.HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def get(server: Server, address: str) -> str:
    return urllib.request.urlopen(server.url + address).read().decode()


def test_whoever_lacks_the_secret_gets_nothing(server):
    port = server.server_address[1]
    for path, host in (
        ("/", f"127.0.0.1:{port}"), ("/groups", f"127.0.0.1:{port}"), (f"/{'x' * 24}/groups", f"127.0.0.1:{port}"), ("foo", f"127.0.0.1:{port}"), ("//", f"127.0.0.1:{port}"),
        (f"/{server.secret}/groups", f"evil.example:{port}"), (f"/{server.secret}/../groups", f"127.0.0.1:{port}"), (f"/{server.secret}", f"127.0.0.1:{port}"),
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, body) == (404, b"not found"), path
        assert b"made-up" not in body and "Python" not in str(answer.headers)


def test_it_listens_on_this_machine_only_and_secrets_differ(server, made):
    assert server.server_address[0] == "127.0.0.1"
    other = Server(Site(made), 0)
    other.server_close()
    assert other.secret != server.secret and len(server.secret) >= 24


def test_a_taken_port_is_one_sentence(server, made):
    with pytest.raises(ValueError, match=r"--port \d+: Address already in use; choose another"):
        Server(Site(made), server.server_address[1])


def test_no_page_holds_the_secret_loads_anything_or_runs_a_models_text(server):
    for address in (
        "",
        "groups?round=1",
        "group?round=1&at=0",
        "instructions?round=1",
        "responses?round=1",
        "response?round=1&at=0",
        "groups?q=<script>&fate=<b>",
    ):
        answer = urllib.request.urlopen(server.url + urllib.parse.quote(address, safe="?=&"))
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
        nonce = re.search(r"script-src 'nonce-([^']+)'", policy)[1]
        assert "default-src 'none'" in policy and server.secret not in page
        found = Tags()
        found.feed(page)
        assert [a for name, a in found.tags if name == "script"] == [{"nonce": nonce}], address
        assert not {"img", "link", "iframe", "object", "base"} & {name for name, _ in found.tags}
        assert not [a for _, a in found.tags if any(k.startswith("on") or k in ("style", "src") for k in a)]
        assert "\u202e" not in page and "<b>bold" not in page


def test_a_group_shows_its_classes_rewards_and_why_it_is_kept(server):
    page = get(server, "group?round=1&at=0")
    assert "kept" in page and "the mean reward 0.5 lies in the band 0.2 to 0.8" in page
    assert page.count("<details") == 8 and page.count("<details open") == 4, (
        "the first answer of each class is open"
    )
    assert "no answer" in page and "length" in page and "&lt;script&gt;" in page and "second line" in page
    assert "2 to 2 an answer" in page and "mean log-probability -0.150" in page


def test_the_neighbours_of_an_opened_group_are_those_of_the_list(server):
    listed = re.findall(
        r'href="(group\?[^"]+)"', get(server, "groups?round=1&fate=kept&sort=agreement&down=1")
    )
    page = get(server, listed[3].replace("&amp;", "&"))
    around = dict(re.findall(r'href="([^"]+)" data-rel="(prev|next|up)"', page))
    assert {around_rel: href for href, around_rel in around.items()}["next"] == listed[4]
    assert {around_rel: href for href, around_rel in around.items()}["prev"] == listed[2]


def test_pages_end_where_the_rows_do(server):
    first = get(server, "groups?round=1")
    assert "131 found" in first and "page 1 of 3" in first
    last = get(server, "groups?round=1&page=99999")
    assert "page 3 of 3" in last and 'data-rel="next"' not in last
    assert "Nothing here fits" in get(server, "groups?round=1&q=nosuchtext")


def test_an_empty_list_says_why_and_a_partial_one_that_more_comes(server, made):
    assert "This round has none." in get(server, "groups?round=0")
    assert "None is done yet." in get(server, "groups?round=2") and "None is done yet." in get(
        server, "responses?round=3"
    )
    publish(made, 2, "respond", 1, groups_to_parquet([group("only", [0] * 8, question=" \n ")]), {})
    partial = get(server, "groups?round=2")
    assert "1 found, and the round is not done yet" in partial and ">(blank)</a>" in partial, (
        "a blank question can be opened too"
    )
    assert "not done yet" not in get(server, "groups?round=1")


@pytest.mark.parametrize(
    "address",
    [
        "groups?round=99",
        "groups?round=x",
        "group?round=1&at=5000",
        "groups?page=-1",
        "group?at=1e3",
    ],
)
def test_a_wrong_address_is_one_sentence(server, address):
    with pytest.raises(urllib.error.HTTPError) as e:
        get(server, address)
    assert e.value.code == 400 and b"Traceback" not in e.value.read()


def test_a_wish_is_read_from_an_address():
    found = wish({"fate": "kept", "q": "x", "sort": "margin", "down": "1", "evil": "y"})
    assert (found.only, found.text, found.sort, found.down) == (
        {"fate": "kept"},
        "x",
        "margin",
        True,
    )


# ------------------------------------------------------------------------------------------------ a real browser
def _endpoint(folder: Path) -> str:
    """Where the browser listens, once it has said so."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = folder / "DevToolsActivePort"
        if path.exists() and len(lines := path.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError("chromium did not start within a minute")


async def _walk(endpoint: str, url: str) -> dict[str, str]:
    """Open the first group, press keys, and say after each what the page shows."""
    import websockets

    async with websockets.connect(endpoint, max_size=2**24) as socket:
        number = 0

        async def ask(method: str, session: str = "", **params):
            nonlocal number
            number += 1
            await socket.send(
                json.dumps(
                    {"id": number, "method": method, "params": params}
                    | ({"sessionId": session} if session else {})
                )
            )
            while (answer := json.loads(await socket.recv())).get("id") != number:
                pass
            return answer["result"]

        target = (await ask("Target.createTarget", url=url))["targetId"]
        session = (await ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]

        async def value(expression: str) -> str:
            return (await ask("Runtime.evaluate", session, expression=expression, returnByValue=True))[
                "result"
            ].get("value", "")

        async def until(expression: str) -> None:
            for _ in range(600):
                if await value(f"document.readyState === 'complete' && !!({expression})"):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(f"never became true: {expression}")

        async def press(key: str) -> None:
            for kind in ("keyDown", "keyUp"):
                await ask(
                    "Input.dispatchKeyEvent",
                    session,
                    type=kind,
                    key=key,
                    text=key if len(key) == 1 and kind == "keyDown" else "",
                )

        seen = {}
        await until("document.querySelector('.pager')")
        seen["title"], seen["question"] = (
            await value("document.title"),
            await value("document.querySelector('.question').textContent"),
        )
        seen["first"], seen["owned"] = (
            await value("document.querySelector('.pager').innerText"),
            await value("String(document.querySelectorAll('img, main script').length)"),
        )
        seen["wide"] = await value(
            "String([...document.querySelectorAll('.votes i')].every(i => i.getBoundingClientRect().width > 0))"
        )
        await press("j")
        await until("location.search.includes('at=1')")
        seen["next"] = await value("document.querySelector('.pager').innerText")
        await press("k")
        await until("location.search.includes('at=0')")
        await press("o")
        seen["open"] = await value("String([...document.querySelectorAll('details')].every(d => d.open))")
        await press("u")
        await until("location.pathname.endsWith('/groups')")
        await press("/")
        seen["focus"] = await value("document.activeElement.name")
        return seen


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_chromium_keys_walk_and_a_hostile_answer_stays_text(server, tmp_path):
    pytest.importorskip("websockets")
    process = subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0"],
        stderr=subprocess.DEVNULL,
    )
    try:
        seen = asyncio.run(_walk(_endpoint(tmp_path), f"{server.url}group?round=1&at=0"))
    finally:
        process.terminate()
        process.wait()
    assert seen["title"] == "made-up group" and seen["owned"] == "0"
    assert "<script>document.title = 'OWNED'</script>" in seen["question"]
    assert "1 of 131" in seen["first"] and "2 of 131" in seen["next"]
    assert (seen["wide"], seen["open"], seen["focus"]) == ("true", "true", "q")
