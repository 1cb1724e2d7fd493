"""The report as files: whole by itself, true to the run at any point of it, and unmoved by anything that a model wrote."""

import base64
import csv
import html.parser
import io
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_run import SAMPLES, SCORE, do_propose, do_respond, do_round, do_score, group, make_run
from rich.console import Console

from jobs.reporting import scalars
from jobs.reporting.findings import gather
from jobs.reporting.render import Table, environment
from jobs.reporting.written import write_report, write_tensorboard
from jobs.shell.visible import visible
from serl.run.events import Events
from serl.run.rundir import Run
from tests.conftest import run_config

REPO = Path(__file__).resolve().parents[2]
HOSTILE = [
    "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>",
    "a | b \\| c \n\n# heading\n```\n[click](javascript:alert(1)) ![x](http://evil.example/x.png) www.evil.example a@b.c",
    "\x1b[31mred\x1b[2J\x07\x00\x9b31m\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\u202eevil\u2066\u200b\ufeff\U000e0041\u2028next",
    "[bold red]markup[/] [link=http://evil.example]x[/link] [/nothing]",
    "a" + "\u0301" * 500,
    "x" * 100_000,
    "--- === *** ___ ~~~ $$ <!-- <![CDATA[ &lt; &#60; {{ }} ${x} `",
]

WORDS = """{% from words import heading, paragraph, table, code with context %}
{{ heading(text) }}{{ paragraph(text) }}{{ paragraph(text, text) }}{{ table(told) }}
{{ code(text) }}"""


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page, as a browser's parser would see them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def run(tmp_path, small_tree):
    return make_run(tmp_path, small_tree)


def shown(summary, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(summary)
    return console.file.getvalue()


def unseen(text: str) -> set[str]:
    """Characters that a reader does not see, but a terminal or a browser may obey."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") and c != "\n"}


def csv_rows(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_finished_run_gets_a_page_that_needs_nothing_but_itself(run):
    for round in range(4):
        do_round(run, round)
    paths, summary = write_report(run)
    page = Page(paths.html.read_text())
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "a"}
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 5
    for image in images:
        ElementTree.fromstring(base64.b64decode(image.removeprefix("data:image/svg+xml;base64,")))
    assert "http" not in re.sub(r"http-equiv", "", paths.html.read_text().split("<body>")[0])
    assert (
        "better on sums, 41.0 % to 90.5 % (200 problems, p < 0.0001); not shown better on choices"
        in page.text
    )
    assert (
        "Missing" not in page.text
        and run.digest in page.text
        and "0123abc" in page.text
        and "python -m jobs.resume" in page.text
    )
    assert "not shown better on choices" in paths.markdown.read_text()
    table = shown(summary)
    assert "0.905" in table and "reward accuracy" in table and "better on sums" in table


def test_the_csv_is_tidy_and_holds_the_scores_with_their_intervals(run):
    do_round(run, 0)
    do_round(run, 1)
    Events(run.root / "events", "respond-r001-00000-a-0", stage="respond", round=1, shard=0).add(
        "phase", name="respond part 7", seconds=2.0
    )
    paths, _ = write_report(run)
    rows = csv_rows(paths.csv)
    assert list(rows[0]) == ["round", "benchmark", "metric", "value", "stderr", "low", "high", "n"]
    keys = [(r["round"], r["benchmark"], r["metric"]) for r in rows]
    assert len(keys) == len(set(keys))
    (score,) = [r for r in rows if (r["round"], r["benchmark"], r["metric"]) == ("1", "sums", "pass_at_1")]
    assert float(score["low"]) < float(score["value"]) < float(score["high"]) and score["n"] == "200"
    metrics = {r["metric"] for r in rows}
    assert {
        "agreement",
        "kept_share",
        "reward_accuracy/anchors",
        "unparsed_share",
        "response_tokens",
        "mismatch_kl",
        "seconds/train",
    } <= metrics
    assert {m for m in metrics if m.startswith("seconds/train/")} == {"seconds/train/steps"}, (
        "the phases of training, and of no other stage"
    )


@pytest.mark.parametrize("done", range(4))
def test_a_run_that_stopped_anywhere_is_reported_and_says_what_is_missing(run, done):
    if done >= 1:
        do_score(run, 0)
    if done >= 2:
        do_propose(run, 1)
    if done >= 3:
        do_respond(run, 1)
    paths, summary = write_report(run)
    text = Page(paths.html.read_text()).text
    assert "Missing: round" in text and ("No policy has been scored yet" in text) == (done == 0)
    assert shown(summary)


def test_a_run_without_rounds_reports_its_base_model_alone(tmp_path, small_tree):
    tree = {key: small_tree[key] for key in ("name", "base", "prompts", "engine")} | {
        "rounds": 0,
        "stages": ["score"],
        "score": SCORE,
    }
    run = Run.create(tmp_path / "runs" / "base-only", run_config(tree), "x")
    do_score(run, 0)
    text = Page(write_report(run)[0].html.read_text()).text
    assert "The base model solves sums 0.410 [0.344, 0.479]" in text and "Missing" not in text


def test_a_run_that_does_not_score_says_so(tmp_path, small_tree):
    run = Run.create(tmp_path / "runs" / "unscored", run_config(small_tree), "x")
    assert "does not score" in write_report(run)[0].markdown.read_text()


def test_agreement_that_rises_while_the_majority_is_less_often_right_is_called_a_collapse(run):
    for round, (size, right) in enumerate(((5, 18), (7, 2)), start=1):
        anchors = [
            group(f"a{i}", [int(i >= right)] * size + [2] * (SAMPLES - size), role="anchor")
            for i in range(20)
        ]
        do_respond(run, round, [group("g", [0] * 5 + [1] * 3), *anchors])
    assert "right in 10.0%, 90.0% in round 1" in gather(run).warnings[0]
    assert "collapse" in write_report(run)[0].markdown.read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_model_writes_stays_text(run, text):
    """In a question, an answer and a gold answer: neither page, table nor terminal obeys it."""
    answers = (text, text, text, text, "2", None, None, "3")
    labels = (0, 0, 0, 0, 1, None, None, 2)
    do_respond(
        run,
        1,
        [
            group(f"g{i}", labels, question=text, answers=answers, gold=text, winner_correct=True)
            for i in range(4)
        ],
    )
    paths, summary = write_report(run)
    page = Page(paths.html.read_text())
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th", "td", "bdi", "figure", "img", "figcaption", "pre"
    }  # fmt: skip
    assert all(
        set(attrs) <= {"class", "src", "alt", "lang", "charset", "content", "http-equiv", "name"}
        for _, attrs in page.tags
    )
    for content in (paths.html.read_text(), paths.markdown.read_text(), shown(summary)):
        assert unseen(content) == set()
    assert len(paths.markdown.read_text()) < 30_000


def test_visible_text_is_bounded_one_line_and_says_what_it_left_out():
    assert visible("plain text, 2 + 3 = 5 \u03c0 \u4e2d") == "plain text, 2 + 3 = 5 \u03c0 \u4e2d"
    assert visible("a\nb\x1b\u202e\U000e0041") == "a\\nb\\x1b\\u202e\\U000e0041"
    assert visible("x" * 1000, 10) == "xxxxxxxxxx ... (990 more characters)"
    assert visible(visible("a\x1b")) == visible("a\x1b")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_block_lets_text_through_as_markup(text):
    html, markdown = (environment(suffix).from_string(WORDS).render(text=text, told=Table([text], [[text]])) for suffix in ("html", "md"))
    page = Page(html)
    assert (
        page.open == []
        and "script" not in {tag for tag, _ in page.tags}
        and not any("onerror" in attrs for _, attrs in page.tags)
    )
    assert unseen(html + markdown) == set()
    fence = re.findall(r"^`{3,}$", markdown, re.MULTILINE)[-1]
    outside = markdown.split("\n" + fence + "\n")[0]
    assert not re.search(r"(?<!\\)[<\[`*]", outside.replace("**", "")) and "javascript:" not in outside


def test_tensorboard_holds_each_round_once_however_often_the_report_is_written(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for round in (0, 1, 1):
        do_round(run, round)
        findings = gather(run)
        write_tensorboard(run, findings, scalars.rows(findings))
    folder = run.root / "tensorboard" / "rounds"
    assert len(list(folder.iterdir())) == 1
    board = EventAccumulator(str(folder))
    board.Reload()
    tags = board.Tags()["scalars"]
    assert {
        "agreement",
        "kept_share",
        "reward_accuracy/anchors",
        "score/sums/pass_at_1",
        "seconds/respond",
        "truncated_share",
    } <= set(tags)
    assert [e.step for e in board.Scalars("score/sums/pass_at_1")] == [0, 1]
    assert board.Scalars("score/sums/pass_at_1")[1].value == pytest.approx(0.57)


def test_equal_runs_get_equal_pages(run):
    do_round(run, 0)
    first = [p.read_bytes() for p in (write_report(run)[0].html, write_report(run)[0].csv)]
    assert first == [p.read_bytes() for p in (write_report(run)[0].html, write_report(run)[0].csv)]


def test_the_verb_imports_nothing_heavy_and_prints_the_table(run):
    do_round(run, 0)
    check = "import sys, jobs.report; print(*(m for m in ('torch', 'vllm', 'transformers', 'deepspeed', 'matplotlib', 'tensorboard') if m in sys.modules))"
    assert python("-c", check).stdout.strip() == ""
    told = python("-m", "jobs.report", str(run.root))
    assert told.returncode == 0 and "report.html" in told.stdout and "0.410" in told.stdout, told.stderr
    missing = python("-m", "jobs.report", "nothing", "--data", str(run.data_root))
    assert missing.returncode == 2 and "no such run; runs there: made-up" in missing.stderr.replace("\n", " ")


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=REPO, capture_output=True, text=True, check=False)
