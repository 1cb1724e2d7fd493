"""What a reader of a run looks through: filters, orders, fates and the reasons why something was dropped."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_run import do_score, group, make_run, publish, round_groups

from jobs.browser.groups import fates, group_index, open_group
from jobs.browser.index import Wish, instruction_index, response_index
from serl.records import PROPOSAL, Candidate, Novelty, Problem, groups_to_parquet, to_jsonl
from serl.rewards.vote import fate
from serl.run.attempt import Attempt


@pytest.fixture
def made(tmp_path, small_tree):
    return make_run(tmp_path, small_tree)


def answer(run, groups, shards=3):
    for i in range(shards):
        publish(run, 1, "respond", i, groups_to_parquet(groups[i::shards]), {})
    return [g for i in range(shards) for g in groups[i::shards]]


def test_the_fate_of_every_group_is_the_filters_own(made):
    groups = answer(
        made,
        [
            *round_groups(1, 300, 0.5),
            group("silent", [None] * 8),
            group("split", [0] * 4 + [1] * 4),
            group("lonely", [0] + [None] * 7),
        ],
    )
    low, high = made.config.training(1).section.agreement
    expected = ["anchor" if g.role == "anchor" else fate(g, low, high, voted=True) for g in groups]
    index = group_index(made, 1)
    assert index.table["fate"].to_pylist() == expected
    assert {"kept", "too_easy", "too_hard", "tie", "no_votes", "anchor"} == set(expected)
    assert np.allclose(index.table["reward"].to_numpy(), [g.mean_reward for g in groups])


@pytest.mark.parametrize("low", [0.0, 0.2])
def test_rewards_below_zero_and_proposals_have_the_fates_of_the_filter(made, low):
    groups = [
        group("sad", [0, 1, 2, 3], rewards=(-1.0, -1.0, 0.5, -1.0)),
        group("asked", [0, None], role=PROPOSAL, rewards=(1.0, -1.0)),
        group("glad", [0, 0, 1, 1], rewards=(0.5,) * 4),
    ]
    table = pq.read_table(io.BytesIO(groups_to_parquet(groups)))
    reward = np.array([g.mean_reward for g in groups])
    expected = [PROPOSAL if not g.own else fate(g, low, 0.8, voted=False) for g in groups]
    assert fates(table, reward, (low, 0.8), False).tolist() == expected
    assert expected[0] == ("too_hard" if low else "kept")


def test_filters_are_what_a_loop_would_find(made):
    groups = answer(made, round_groups(1, 200, 0.5))
    index = group_index(made, 1)
    fate = index.table["fate"].to_pylist()
    found = index.find(
        Wish(only={"fate": "kept", "role": ""}, sort="margin", down=True)
    )
    loop = [
        i for i, g in enumerate(groups) if fate[i] == "kept"
    ]
    assert found.tolist() == sorted(loop, key=lambda i: -groups[i].margin), (
        "equal margins stay in the round's order"
    )
    assert [row["id"] for row in index.rows([int(i) for i in found])] == [groups[i].id for i in found]


def test_search_looks_into_questions_ids_golds_and_answers_and_takes_no_text_for_a_pattern(made):
    groups = [
        group("a1", [0, 1], question="Half of (1+2)*?"),
        group("b2", [None, 1], question="what?"),
        group("c3", [5, 5], question="none", gold="7.5"),
    ]
    answer(made, groups, shards=3)
    index = group_index(made, 1)

    def hits(text):
        return sorted(row["id"] for row in index.rows(index.find(Wish(text=text)).tolist()))

    assert (
        hits("(1+2)*") == ["a1"]
        and hits("HALF") == ["a1"]
        and hits("B2") == ["b2"]
        and hits("7.5") == ["c3"]
        and hits(".*") == []
    )
    assert hits("5") == ["c3"]


def test_an_opened_group_is_what_was_written_across_shards_and_row_groups(made):
    groups = answer(made, round_groups(1, 500, 0.5))
    index = group_index(made, 1)
    for row in (0, 127, 128, 170, 171, len(groups) - 1):
        opened = open_group(index, row)
        assert (opened["id"], opened["labels"]) == (groups[row].id, list(groups[row].labels))
        assert [tuple(c["token_ids"]) for c in opened["completions"]] == [
            c.token_ids for c in groups[row].completions
        ]
    with pytest.raises(ValueError, match="there are 510 groups"):
        open_group(index, 510)


def test_of_a_round_under_way_what_is_done_is_shown(made):
    publish(made, 1, "respond", 1, groups_to_parquet([group("only", [0] * 8)]), {})
    index = group_index(made, 1)
    assert len(index) == 1 and not index.complete
    assert len(group_index(made, 2)) == 0 and len(group_index(made, 0)) == 0
    assert len(response_index(made, 1)) == 0


def test_every_proposal_says_what_became_of_it(made):
    proposed = [
        [
            Candidate(prompt=0, item=0, text="one two"),
            Candidate(prompt=0, item=1, text="x", rejection="too_short"),
            Candidate(prompt=0, item=2, text="one two!"),
        ],
        [
            Candidate(prompt=1, item=0, text="three"),
            Candidate(prompt=1, item=1, text="four"),
            Candidate(prompt=1, item=2, text="long"),
        ],
    ]
    for i, candidates in enumerate(proposed):
        publish(made, 1, "propose", i, to_jsonl(candidates), {})
    fates = [
        Novelty(fate="kept", id="p0"), Novelty(fate="near_duplicate", like="one two", rouge_l=1.0), Novelty(fate="kept", id="p1"),
        Novelty(fate="surplus"), Novelty(fate="kept", id="p2"),
    ]  # fmt: skip
    kept = [Problem(id=f"p{i}", question=q) for i, q in enumerate(("one two", "three", "long"))]
    attempt = Attempt(made, made.shards(1, "curate")[0], id="a", inputs={})
    attempt.publish_bytes(".jsonl", to_jsonl(kept), 3, beside={".fates.jsonl": to_jsonl(fates)})
    answer(made, [group("p1", [0] * 8), group("p0", [0] * 4 + [1, 1, 2, 3])])
    groups = group_index(made, 1)
    index = instruction_index(made, 1, groups)
    rows = index.rows(range(6))
    assert [row["fate"] for row in rows] == [
        "kept",
        "too_short",
        "near_duplicate",
        "too_easy",
        "surplus",
        "prompt_too_long",
    ]
    assert [row["stage"] for row in rows] == ["respond", "propose", "curate", "respond", "curate", "respond"]
    assert rows[2]["like"] == "one two" and rows[2]["rouge_l"] == 1.0
    assert [groups.rows([row["group"]])[0]["id"] for row in (rows[0], rows[3])] == ["p0", "p1"]


def test_a_run_that_recorded_no_reasons_is_still_readable(made):
    """Before candidates had fates, only what was kept was stored."""
    for i in range(2):
        publish(made, 1, "propose", i, b'{"prompt": 0, "item": 0, "text": "q"}\n', {})
    publish(made, 1, "curate", 0, to_jsonl([Problem(id="p0", question="q")]), {})
    index = instruction_index(made, 1, group_index(made, 1))
    assert index.table["fate"].to_pylist() == ["not_answered_yet", "duplicate_or_surplus"]


def test_graded_responses_are_found_by_verdict_and_text(made):
    do_score(made, 1, num=20)
    index = response_index(made, 1)
    assert len(index) == 2 * 20 * 5
    wrong = index.find(
        Wish(only={"verdict": "wrong", "benchmark": "sums", "mode": "greedy"}, text="<SCRIPT>")
    )
    assert 0 < len(wrong) <= 20
    assert {row["verdict"] for row in index.rows(wrong.tolist())} == {"wrong"}


def test_a_lone_surrogate_does_not_end_the_reading(made):
    do_score(made, 1, num=2)
    publish_path = made.path(
        made.manifest(made.shards(1, "score")[0]), made.manifest(made.shards(1, "score")[0]).files[0]
    )
    publish_path.write_bytes(publish_path.read_bytes().replace(b"<script>", b"\\ud800"))
    assert len(response_index(made, 1)) == 20
