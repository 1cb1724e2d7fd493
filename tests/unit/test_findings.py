"""What the report knows of a run: identities of its counts, honest comparisons, and runs that are not finished or not whole."""

import itertools
import json
import math

import pytest
import report_run as made
from report_run import (
    do_curate,
    do_propose,
    do_respond,
    do_round,
    do_score,
    do_train,
    group,
    make_run,
    publish,
)

from jobs.reporting import harvest, scalars
from jobs.reporting.findings import gather
from jobs.reporting.render import sentences
from jobs.reporting.written import write_report
from serl.records import to_jsonl
from serl.run.events import Events
from serl.run.rundir import Run, RunError
from serl.stages.read import round_groups, trainable


@pytest.fixture
def run(tmp_path, small_tree):
    return make_run(tmp_path, small_tree)


def test_every_question_that_leaves_the_funnel_is_counted_under_a_reason(run):
    do_round(run, 1)
    funnel = gather(run).rounds[1].funnel
    assert [p.name for p in funnel] == ["proposed", "well-formed", "novel", "kept", "answered", "trainable"]
    for before, after in itertools.pairwise(funnel):
        assert before.count - after.count == sum(after.lost.values()), after.name


def test_the_votes_agree_with_what_the_trainer_would_keep(run):
    do_round(run, 1)
    votes = gather(run).rounds[1].votes
    groups = round_groups(run, 1, completions=False)
    training, source = run.config.training(1), run.config.judged(1)
    kept, fates = trainable(training, source, groups)
    assert votes.fates == fates and votes.fates["kept"] == len(kept)
    assert (
        votes.num_groups
        == sum(g.role == "train" for g in groups)
        == sum(votes.first)
        == sum(votes.fates.values())
    )
    assert sum(votes.tied) == votes.fates["tie"]
    assert math.isclose(
        sum(k * n for k, n in enumerate(votes.first)) / votes.num_samples / votes.num_groups,
        votes.means["agreement"].value,
    )


def test_reward_accuracy_counts_only_majorities_that_exist_and_never_the_rounds_own_unlabelled_questions(run):
    right, wrong, tie, silent = [0] * 5 + [1] * 3, [1] * 5 + [0] * 3, [0] * 4 + [1] * 4, [None] * 8
    groups = [
        group(f"a{i}", labels, role="anchor")
        for i, labels in enumerate((right, right, wrong, tie, silent, [1] * 8))
    ] + [group("t", right)]
    votes = harvest.votes(run.config, 1, groups)
    assert (votes.right["anchors"].value, votes.right["anchors"].n) == (0.5, 4)
    assert (votes.right["anchors in the band"].value, votes.right["anchors in the band"].n) == (2 / 3, 3)
    assert "trained" not in votes.right and votes.num_groups == 1


@pytest.mark.parametrize(("skill", "word"), [(0.8, "better"), (0.5, "not shown"), (0.2, "worse")])
def test_a_policy_is_called_better_or_worse_only_where_the_paired_test_shows_it(run, skill, word):
    do_score(run, 0, 0.5)
    do_score(run, 1, skill)
    by_name = {c.benchmark: c for c in gather(run).rounds[1].comparisons}
    assert by_name["sums"].word == word and (by_name["sums"].p < 0.05) == (word != "not shown")
    assert by_name["sums"].found.num_problems == 200


def test_validation_scores_choose_a_round_and_are_in_no_result(tmp_path, small_tree):
    score = made.SCORE | {"benchmarks": ["sums"], "validation": ["choices"]}
    run = make_run(tmp_path, small_tree, score=score)
    for round, skill in enumerate((0.2, 0.7, 0.5)):
        for i, name in enumerate(("sums", "choices")):
            publish(run, round, "score", i, to_jsonl(made.grades(name, 60, skill, round)), {})
    found = gather(run)
    assert {name for r in found.rounds for name in r.scores} == {"sums"} and {c.benchmark for r in found.rounds for c in r.comparisons} == {
        "sums"
    }
    assert (
        found.chosen.round == 1
        and set(found.chosen.scores) == {"choices"}
    )
    header = scalars.summary_table(found, scalars.rows(found)).header
    assert "choices" not in sentences("run_headline.txt", findings=found)[0] and "choices" not in header
    rows = {(r.round, r.benchmark, r.metric) for r in scalars.rows(found)}
    assert (1, "choices", "pass_at_1") in rows and (1, "", "best_on_validation") in rows
    text = write_report(run)[0].markdown.read_text()
    assert (
        "Best on validation\\: the policy of round 1" in text
        and "choices" not in text.split("## Validation")[0]
    )


def test_a_policy_without_a_scored_base_is_compared_with_nothing(run):
    do_score(run, 1, 0.9)
    assert gather(run).rounds[1].scores and gather(run).rounds[1].comparisons == ()


def test_of_a_step_taken_twice_the_later_counts(run):
    """A preempted attempt goes beyond its last checkpoint; the next one takes those steps again, and they are the policy's."""
    earlier = Events(run.root / "events", "train-r001-00000-z-0", stage="train", round=1, shard=0)
    earlier.add("step", step=1, loss=5.0)
    earlier.add("step", step=2, loss=5.0)
    (run.root / "events" / "torn.jsonl").write_text('{"time": 1, "ki')
    path = run.root / "events" / "train-r001-00000-a-0.jsonl"
    later = [
        {"time": 1e12, "kind": "step", "round": 1, "step": n, "loss": 1.0, "stage": "train", "shard": 0}
        for n in (2, 3)
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in later))
    assert list(gather(run).rounds[1].trainings[0].steps.items()) == [
        (1, {"loss": 5.0}),
        (2, {"loss": 1.0}),
        (3, {"loss": 1.0}),
    ]


def test_every_stage_that_is_missing_is_named_wherever_the_run_stopped(run):
    do_score(run, 0)
    for done, stage in enumerate((do_propose, do_curate, do_respond, do_train, do_score)):
        stage(run, 1)
        found = gather(run)
        named = [
            name for name in ("propose", "curate", "respond", "train", "score") if name in found.missing[0]
        ]
        assert named == ["propose", "curate", "respond", "train", "score"][done + 1 :]
        assert found.missing[-1] == "rounds 2, 3: not begun"


def test_a_stage_with_a_shard_to_go_is_missing_and_its_figures_are_left_out(run):
    publish(run, 1, "propose", 0, b"", {"items": 5, "accepted": 5})
    found = gather(run)
    assert "propose (1 of 2 shards)" in found.missing[0]
    assert found.rounds[1].funnel == () and found.rounds[1].votes is None


def test_damage_is_told_with_its_remedy_and_hides_nothing_else(run):
    do_round(run, 0)
    do_round(run, 1)
    shard = run.shards(1, "respond")[1]
    manifest = run.manifest(shard)
    run.path(manifest, manifest.files[0]).write_bytes(b"rotten")
    (run.stage_dir(1, "curate") / "shard_00000.json").write_text("{")
    found = gather(run)
    assert any("do not match the manifest" in m for m in found.missing) and any(
        "damaged" in m for m in found.missing
    )
    assert found.rounds[1].votes is None and found.rounds[1].scores and found.rounds[1].trainings[0].steps


def test_the_filter_of_a_labelled_run_starts_from_the_questions_it_drew(tmp_path, small_tree):
    for name in ("propose", "curate"):
        del small_tree[name]
    small_tree["stages"] = ["respond", "train"]
    source = {"kind": "jsonl", "path": "x.jsonl", "gold": "answer"}
    small_tree["respond"] |= {"reward": {"kind": "verified"}, "problems": {"source": source, "per_round": 20}}
    run = make_run(tmp_path, small_tree)
    groups = [group(f"g{i}", [0] * 5 + [1] * 3, gold="0", winner_correct=True) for i in range(18)]
    do_respond(run, 1, groups)
    found = gather(run).rounds[1]
    assert [(p.name, p.count) for p in found.funnel] == [("asked", 20), ("answered", 18), ("trainable", 18)]
    assert found.funnel[1].lost == {"prompt_too_long": 2}
    assert found.votes.right["trained"].n == 18


def test_a_run_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError):
        gather(Run.open(tmp_path))
