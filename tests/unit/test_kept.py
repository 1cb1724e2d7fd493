"""What a round hands to later ones: the instructions that passed its difficulty filter."""

import pytest
from report_run import group, make_run

from serl.run.attempt import Attempt
from serl.run.files import write_atomic
from serl.run.rundir import Run, RunError
from serl.stages.read import KEPT, kept_questions, write_kept


def publish_policy(run: Run, round: int, *questions: str) -> None:
    (shard,) = run.shards(round, "train")
    attempt = Attempt(run, shard, id="a", inputs={})
    built = attempt.folder / "policy.a"
    built.mkdir()
    write_atomic(built / "config.json", b"{}")
    write_kept(built, [group(f"r{round}-{i}", [0, 0, 1], question=q) for i, q in enumerate(questions)])
    attempt.publish_folder(built, "policy", {"steps": 1})


def test_every_shard_of_propose_reads_one_small_file_of_each_earlier_round(tmp_path, small_tree):
    """It used to read every group of every earlier round, with all its tokens, in each of its shards."""
    run = make_run(tmp_path, small_tree)
    publish_policy(run, 1, "How many apples?", "How many pears?")
    publish_policy(run, 2, "How many plums?", "How many apples?")
    assert kept_questions(run, before=1) == ([], {})
    questions, inputs = kept_questions(run, before=3)
    assert questions == ["How many apples?", "How many pears?", "How many plums?"]
    assert set(inputs) == {"kept/round_001", "kept/round_002"}
    assert not run.stage_dir(1, "respond").exists()


def test_a_damaged_list_of_kept_instructions_is_refused(tmp_path, small_tree):
    run = make_run(tmp_path, small_tree)
    publish_policy(run, 1, "How many apples?")
    (run.stage_dir(1, "train") / "policy" / KEPT).write_bytes(b"")
    with pytest.raises(RunError, match=r"policy/kept\.jsonl: its 0 bytes do not match the manifest"):
        kept_questions(run, before=2)
