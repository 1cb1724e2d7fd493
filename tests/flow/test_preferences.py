"""Offline learning on the real engines: a reward model, its word on stored answers, DPO-positive, RestEM, SER's loop; and with kills."""

import json
import shutil

import pytest
from chain import SLOW, event_seen, kill, manifests, open_run, run_verb, tasks_of, verb, wait_for

from serl.config.objectives import Sentences
from serl.run.events import read_file
from serl.stages import read
from serl.stages.work import policy_dir
from serl.text.steps import Pieces, cuts
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(1200)
FILE = str(ROOT / "tests/flow/preferences.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def calm(data):
    launcher = verb("launch", FILE, "name=calm", data=data)
    assert launcher.process.wait(timeout=1000) == 0, launcher.said()
    return open_run(data, "calm")


def stage(run, name):
    return run.config.stage(1, name)


def steps(run, name):
    files = (run.root / "events").glob(f"{name}-r001-*.jsonl")
    return [e for path in files for e in read_file(path) if e["kind"] == "step"]


def test_pairs_and_right_answers_are_what_rewards_say_and_gold_audits(calm):
    groups = {g.id: g for g in read.groups(calm, stage(calm, "respond"), completions=True)}
    pairs = read.pairs(calm, stage(calm, "pairs"))
    assert len(pairs) > 60
    for p in pairs:
        group, i, j = groups[p.id.rsplit("-", 2)[0]], *map(int, p.id.rsplit("-", 2)[1:])
        assert p.completions == (group.completions[i], group.completions[j])
        assert (group.rewards[i], group.rewards[j], p.prompt_ids) == (1.0, 0.0, group.prompt_ids)
        a, b = (group.answers[k] == group.gold for k in (i, j))
        assert p.right == (None if a == b else a)
    right = read.groups(calm, stage(calm, "right"), completions=False)
    assert right and all(set(g.rewards) == {1.0} and len(g.rewards) <= 2 for g in right)


def test_scores_are_those_of_the_published_reward_model(calm):
    """Read by transformers alone, one text at a time."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    folder, _ = policy_dir(calm, 1, "reward")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    told = read.scores(calm, stage(calm, "judge"))
    groups = read.groups(calm, stage(calm, "respond"), completions=True)
    assert set(told) == {g.id for g in groups}
    for group in groups[::11]:
        with torch.no_grad():
            texts = [torch.tensor([group.prompt_ids + c.token_ids]) for c in group.completions]
            assert told[group.id] == pytest.approx([model(t).logits.item() for t in texts], abs=1e-4)


def test_process_rewards_are_log_ratios_of_the_published_model_to_the_base(calm):
    """By transformers alone; an answer's number is its least step's."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = policy_dir(calm, 1, "verifier")[0], policy_dir(calm, 0)[0]
    models = [AutoModelForCausalLM.from_pretrained(f).eval() for f in folders]
    pieces = Pieces(AutoTokenizer.from_pretrained(folders[0]))
    told, groups = (
        read.scores(calm, stage(calm, "steps")),
        read.groups(calm, stage(calm, "respond"), completions=True),
    )
    assert len(told) == len(groups) == 60
    for group in groups[::15]:
        for completion, found in zip(group.completions, told[group.id], strict=True):
            ids = torch.tensor([group.prompt_ids + completion.token_ids])
            with torch.no_grad():
                logps = [
                    m(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0] for m in models
                ]
            reward_T = 0.05 * (logps[0] - logps[1])[len(group.prompt_ids) - 1 :]
            starts = cuts(pieces.of(completion.token_ids), Sentences())
            least = min(part.sum().item() for part in reward_T.tensor_split(starts[1:]))
            assert found == pytest.approx(least, abs=1e-4)
    assert any(abs(x) > 1e-3 for found in told.values() for x in found), "it has learned something"
    (trained,) = calm.complete(1, "implied")
    assert trained.counts["samples"] == 240 and trained.counts["steps"] == 6
    first = steps(calm, "implied")[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3), "the reference is where it starts"


def test_the_judge_counts_what_its_scores_are_worth(calm):
    counts = [m.counts for m in calm.complete(1, "judge")]
    assert sum(c["questions"] for c in counts) == 60
    pairs = len(read.pairs(calm, stage(calm, "pairs")))
    (exam,) = calm.complete(1, "exam")
    assert exam.counts["pairs"] == pairs
    assert exam.counts["agreed"] > pairs / 2, "it was trained on these very pairs"


def test_every_training_took_its_steps_and_said_how_they_went(calm):
    pairs = len(read.pairs(calm, stage(calm, "pairs")))
    for name in ("reward", "prefer"):
        (manifest,) = calm.complete(1, name)
        assert manifest.counts["samples"] == 2 * pairs
        assert manifest.counts["steps"] == -(-pairs // 8) > 8
        assert all(0 <= e["pair_accuracy"] <= 1 for e in steps(calm, name))
    answers = sum(len(g.answers) for g in read.groups(calm, stage(calm, "right"), completions=False))
    assert calm.complete(1, "imitate")[0].counts["samples"] == answers
    first = steps(calm, "prefer")[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3), "the reference is where it starts"
    said = (calm.root / "report.md").read_text()
    assert "pairs\\_right" in said and "best\\_of\\_4" in said


def test_a_reward_model_labels_the_pool_until_it_is_sure_of_too_few(calm):
    """Of the first loop's gate every pair is sure (its bounds are 0.5), so that nothing is left for the second."""
    pool, labelled = read.pairs(calm, stage(calm, "pairs")), read.pairs(calm, stage(calm, "labelled"))
    scores = read.scores(calm, calm.config.stage(2, "judge"))
    taken = read.pairs(calm, calm.config.stage(2, "gate"))
    assert taken[: len(labelled)] == labelled
    new = taken[len(labelled) :]
    assert {p.id for p in new} == {p.id for p in pool} - {p.id for p in labelled}
    first = {p.id: p for p in pool}
    for p in new:
        a, b = scores[p.id]
        assert (p.says, p.completions == first[p.id].completions) == ("reward", a >= b)
    (again,), (model,) = calm.complete(3, "gate"), calm.complete(3, "reward")
    assert again.counts["settled"] == 1 and not again.counts.get("new")
    (before,) = calm.complete(2, "reward")
    assert model.inputs == before.inputs, "the same pairs, from the base; their order is the round's own"
    assert all(m.over for name in ("judge", "gate", "reward") for m in calm.complete(4, name))


@SLOW
def test_kills_of_a_judge_and_of_trainings_change_nothing(calm, data, tmp_path):
    """From its answers on, the run is done again, under kills."""
    shutil.copytree(calm.root, tmp_path / "runs/calm")
    for name in ("pairs", "reward", "judge", "exam", "prefer"):
        shutil.rmtree(tmp_path / "runs/calm/round_001" / name)
    shutil.rmtree(tmp_path / "runs/calm/events")
    launcher = verb("resume", "calm", data=tmp_path)
    for name, kind in (("reward", "step"), ("judge", "progress"), ("prefer", "step")):
        wait_for(lambda n=name, k=kind: event_seen(tmp_path / "runs/calm", n, 1, k), f"{kind} of {name}")
        if leaves := tasks_of(launcher.process.pid, name):
            kill(leaves[-1])
    kill(launcher.process.pid)
    launcher.process.wait()
    code, said = run_verb("resume", "calm", data=tmp_path)
    assert code == 0, said
    ours = {k: m.digest for k, m in manifests(open_run(tmp_path, "calm")).items()}
    assert ours == {k: m.digest for k, m in manifests(calm).items()}


def test_status_and_browser_read_such_a_run(calm, data):
    code, said = run_verb("status", "calm", "--json", data=data)
    assert code == 0 and json.loads(said)["state"] == "done"
