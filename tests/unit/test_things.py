"""The toy domain of multiple choice, and a round of it with an engine that is a pure function."""

import random
from collections import Counter

import pytest

from evaluation import choices
from evaluation.domain import ChoiceAnswers
from evaluation.judging import Judge
from evaluation.worker import Verdict
from serl.config.files import parse_yaml
from serl.engines import generator
from serl.records import Completion, to_jsonl
from serl.run.events import Events
from serl.run.rundir import Run
from serl.run.signals import Stop
from serl.stages import exams, read
from serl.stages.work import Work, execute
from serl.text.selfinstruct import rejection, tidied
from serl.world import things
from tests.conftest import ROOT, run_config
from tests.flow.deterministic import CharacterTokenizer

FOUR = ChoiceAnswers(options=4)


def verdicts(problems: list[things.Problem], answer) -> Counter[Verdict]:
    with Judge(FOUR) as judge:
        said = [judge.read(p.question, answer(p)) for p in problems]
        return Counter(judge.judge([(p.gold, s and s.text) for p, s in zip(problems, said, strict=True)]))


def test_worked_answers_are_right_and_guesses_a_quarter_of_the_time():
    problems, rng = things.train_problems(0, 800), random.Random(0)
    assert verdicts(problems, things.steps) == {"correct": 800}
    guessed = verdicts(problems, lambda p: things.guess(rng.choice("ABCD")))
    assert set(guessed) == {"correct", "wrong"} and 140 < guessed["correct"] < 260


def test_a_word_is_of_one_kind_and_a_question_has_one_right_option():
    words = [word for members in things.MEMBERS.values() for word in members]
    assert len(set(words)) == len(words)
    for problem in things.train_problems(1, 200):
        kinds = [things.KIND_OF[option] for option in problem.options]
        assert kinds.count(problem.kind) == 1 and len(set(kinds)) == 4
        assert choices.parted(problem.question) == (problem.stem, problem.options)


def test_every_letter_is_right_equally_often():
    counts = Counter(p.gold for p in things.unseen_problems("tests", 2000))
    assert all(400 < counts[letter] < 600 for letter in "ABCD")


def test_no_held_out_question_stands_in_a_document_a_seed_or_a_labelled_problem():
    shown = {
        " ".join(sorted(p.options)) for p in (*things.seed_problems(0, 100), *things.train_problems(0, 2000))
    }
    tests = things.unseen_problems("tests", 500)
    asked = {p.question for p in tests}
    validation = things.unseen_problems("validation", 100, apart=asked)
    assert not shown & {" ".join(sorted(p.options)) for p in (*tests, *validation)}
    assert not asked & {p.question for p in validation}
    texts = "".join(d.prompt + d.completion for d in things.corpus(0, 3000))
    assert not [p for p in tests if " ".join(p.question.split()) in " ".join(texts.split())]


def test_questions_of_the_corpus_are_well_formed_when_they_are_read_back():
    documents = [d for d in things.corpus(0, 2000) if d.kind == "list"]
    items = [line.partition(". ")[2] for d in documents for line in d.completion.splitlines()]
    quality = parse_yaml((ROOT / "configs/prompts/things.yaml").read_text(), "")["quality"]
    config = run_config(SELF_PLAY | {"quality": quality})
    assert {rejection(tidied(item, FOUR), config.quality, FOUR) for item in items} == {None}


# ------------------------------------------------------------------------------------------------ a round of it
OPENING = "More questions:"
SELF_PLAY = {
    "name": "choice",
    "seed": 3,
    "rounds": 2,
    "stages": ["propose", "curate", "respond", "train", "score"],
    "base": {"kind": "checkpoint", "path": "base"},
    "seeds": {"kind": "jsonl", "path": "seeds.jsonl", "choices": "options", "gold": "answer"},
    "answers": {"kind": "choice", "options": 4},
    "prompts": {
        "propose_system": "-",
        "propose_opening": OPENING,
        "respond_user": "{question}",
        "respond_plain": "Q: {question}\nA:",
    },
    "engine": {"max_model_len": 2000},
    "propose": {
        "shards": 1,
        "prompts": 8,
        "seed_shots": 3,
        "kept_shots": 1,
        "sampling": {"temperature": 1.0, "max_tokens": 400},
    },
    "curate": {"max_instructions": 12, "max_rouge_l": 0.95},
    "respond": {"shards": 1, "samples": 12, "anchors": 4, "sampling": {"temperature": 1.0, "max_tokens": 200}},
    "train": {"objective": {"kind": "reinforce_pp"}, "optimizer": {"lr": 1e-4}},
    "score": {"shards": 1, "benchmarks": ["things"], "max_tokens": 200, "samples": 2},
}


class Engine:
    """Writes questions like the shots it is shown; works six of ten answers out, and guesses the others."""

    def __init__(self, policy, engine, *, device: str):
        self.max_model_len, self.tokenizer, self.sampled = engine.max_model_len, CharacterTokenizer(), 0

    def generate(self, prompts, sampling, *, num_samples: int, seeds):
        return [
            tuple(
                self._said("".join(map(chr, p)), random.Random(f"{s}/{i}")) for i in range(num_samples)
            )
            for p, s in zip(prompts, seeds)
        ]

    def _said(self, prompt: str, rng: random.Random) -> Completion:
        text = self._list(prompt, rng) if prompt.startswith(OPENING) else self._answer(prompt, rng)
        ids = tuple(map(ord, text))
        return Completion(token_ids=ids, logprobs=(-0.5,) * len(ids), text=text, finish_reason="stop")

    def _list(self, prompt: str, rng: random.Random) -> str:
        *shots, last = prompt.splitlines()[1:]
        assert all(choices.parted(shot)[1] for shot in shots), "every shot shows its options"
        made = [things.make_problem(rng) for _ in range(3)]
        lines = [" ".join(p.question.split()) for p in made] + ["Which of these is a fruit?"]
        first = int(last.rstrip("."))
        return " " + lines[0] + "".join(f"\n{first + i}. {line}" for i, line in enumerate(lines[1:], 1))

    def _answer(self, prompt: str, rng: random.Random) -> str:
        stem, options = choices.parted(prompt.removeprefix("Q: ").removesuffix("\nA:"))
        kind = next(k for k in things.MEMBERS if k in stem)
        asked = things.Problem(stem=stem, kind=kind, options=options)
        return things.steps(asked) if rng.random() < 0.6 else things.guess(rng.choice("ABCD"))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr(generator, "Generator", Engine)
    for folder in ("models/base", "seeds", "benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    seeds = things.seed_problems(0, 20)
    rows = [{"question": p.stem, "options": list(p.options), "answer": p.gold} for p in seeds]
    (tmp_path / "seeds/seeds.jsonl").write_bytes(to_jsonl(rows))
    tests = things.unseen_problems("tests", 30)
    rows = [
        {"id": str(i), "question": p.stem, "choices": list(p.options), "answer": p.gold}
        for i, p in enumerate(tests)
    ]
    (tmp_path / "benchmarks/things.jsonl").write_bytes(to_jsonl(rows))
    return Run.create(tmp_path / "runs/choice", run_config(SELF_PLAY), "test")


def work(run: Run, round: int, stage: str) -> dict[str, float]:
    (shard,) = run.shards(round, stage)
    events = Events(run.root / "events", f"{stage}-{round}")
    told = Work(run=run, shard=shard, attempt_id="a", device="cpu", cores=1, events=events, stop=Stop())
    return dict(execute(told).counts)


def test_a_question_carries_its_options_from_the_list_that_it_was_written_in_to_the_vote(run):
    proposed = work(run, 1, "propose")
    assert proposed["accepted"] == 24 and proposed["no_options"] == 8
    work(run, 1, "curate")
    asked = read.problems(run, run.config.stage(1, "curate"))
    assert asked and all(len(choices.parted(p.question)[1]) == 4 for p in asked)
    work(run, 1, "respond")
    groups = read.groups(run, run.config.stage(1, "respond"), completions=True)
    assert {g.question for g in groups if g.own} == {p.question for p in asked}
    assert {a for g in groups for a in g.answers} <= set("ABCD")
    anchors = [g for g in groups if not g.own]
    assert len(anchors) == 4 and all(g.winner_correct for g in anchors if g.winner is not None)
    right = [g for g in groups if g.own and g.majority == _gold(g.question)]
    assert len(right) >= 10, "six of ten that agree outvote guesses"


def test_a_choice_is_examined_in_the_runs_own_words(run):
    work(run, 0, "score")
    grades = exams.round_grades(run, 0)
    assert {g.kind for g in grades} == {"letter"} and {g.verdict for g in grades} == {"correct", "wrong"}
    share = sum(g.verdict == "correct" for g in grades) / len(grades)
    assert 0.5 < share < 0.9, "0.6 worked out and a quarter of 0.4 guessed"


def _gold(question: str) -> str:
    stem, options = choices.parted(question)
    kind = next(k for k in things.MEMBERS if k in stem)
    return things.Problem(stem=stem, kind=kind, options=options).gold
