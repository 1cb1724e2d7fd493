"""What the states of answers are worth: each valued once, continued from its own tokens, and graded as the answers were."""

import math
from dataclasses import replace

import pytest
from report_run import group

from evaluation.domain import MathAnswers
from evaluation.judging import Judge
from serl.config.engine import Prompts, Sampling
from serl.config.objectives import Lines
from serl.records import Completion, Group, Walk
from serl.rewards.kinds import Earnings
from serl.rewards.spec import Majority, ModelReward, PythonReward, RandomReward, Reward, Verified
from serl.stages.answering import Asking
from serl.stages.branching import rollouts, tree_of, values
from serl.text.steps import Pieces

LONGEST = 20
PROMPTS = Prompts(
    propose_system="", propose_opening="", respond_user="{question}", respond_plain="{question}"
)


class Characters:
    """One token a character."""

    def decode(self, token_ids, *, skip_special_tokens):
        return "".join(map(chr, token_ids))


class Script:
    """An engine that continues a state as it was told to, by the text so far, with one text after the other."""

    def __init__(self, texts: dict[str, list[str]]):
        self.texts, self.asked = texts, []

    def generate(self, prompts, sampling, *, num_samples, seeds, limits):
        outputs = []
        for prompt, seed, limit in zip(prompts, seeds, limits, strict=True):
            so_far = "".join(map(chr, prompt)).partition("?")[2]
            self.asked.append((so_far, seed, limit))
            texts = [self.texts[so_far][i % len(self.texts[so_far])] for i in range(num_samples)]
            outputs.append(
                tuple(completion(t[:limit], "stop" if len(t) <= limit else "length") for t in texts)
            )
        return outputs


def completion(text: str, reason: str = "stop") -> Completion:
    return Completion(
        token_ids=tuple(map(ord, text)), logprobs=(0.0,) * len(text), text=text, finish_reason=reason
    )


def answered(id: str, texts: list[str], gold: str | None = "7") -> Group:
    """A group of these answers, by a vote that "7" has won."""
    made = group(id, [0] * len(texts))
    return replace(
        made, question="q?", gold=gold, prompt_ids=tuple(map(ord, "q?")), winner=0,
        completions=tuple(completion(t) for t in texts), answers=("7",) * len(texts),
        rewards=(1.0,) * len(texts),
    )  # fmt: skip


def asking(reward: Reward, samples: int = 4) -> Asking:
    return Asking(
        seed=1, round=1, stage="train", prompts=PROMPTS, samples=samples, earnings=Earnings(reward),
        sampling=Sampling(temperature=1.0, max_tokens=LONGEST),
    )  # fmt: skip


GROUPS = [answered("a", ["x\ny\n\\boxed{7}", "x\nz\n\\boxed{8}"]), answered("b", ["x\nw"])]
TEXTS = {
    "": ["\\boxed{7}", "\\boxed{8}", "no", "\\boxed{7}"],
    "x\n": ["\\boxed{7}", "\\boxed{7}", "\\boxed{7}", "no"],
    "x\ny\n": ["\\boxed{7}"],
    "x\nz\n": ["\\boxed{8}"],
}


def valued(
    groups: list[Group], reward: Reward, engine: Script, labels: dict[str, str] | None = None
) -> list[Walk]:
    pieces, how = Pieces(Characters()), asking(reward)
    tree = tree_of(groups, pieces, Lines())
    continued = rollouts(engine, tree.states, how)
    with Judge(MathAnswers()) as reader, how.earnings:
        return tree.walks(values(tree.states, continued, pieces, reader, how, labels or {}))


def test_a_state_that_answers_share_is_continued_once_and_groups_share_none():
    engine = Script(TEXTS)
    walks = valued(GROUPS, Verified(), engine)
    assert [so_far for so_far, _, _ in engine.asked] == ["", "x\n", "x\ny\n", "x\nz\n", "", "x\n"]
    assert len({seed for _, seed, _ in engine.asked}) == 6, "no two states are continued alike"
    assert walks == [
        Walk(cuts=(0, 2, 4), values=(0.5, 0.75, 1.0)),
        Walk(cuts=(0, 2, 4), values=(0.5, 0.75, 0.0)),
        Walk(cuts=(0, 2), values=(0.5, 0.75)),
    ]


def test_a_rollout_may_be_as_long_as_its_answer_and_one_that_is_cut_off_earns_nothing():
    engine = Script({"": ["\\boxed{7}"], "x\n": ["long" * 4 + "\\boxed{7}"]})
    (walk,) = valued([answered("b", ["x\nw"])], Verified(), engine)
    assert [limit for _, _, limit in engine.asked] == [LONGEST, LONGEST - 2]
    assert walk.values == (1.0, 0.0)


def test_an_answer_may_stand_in_what_was_said_before_the_rollout():
    engine = Script({"": ["no"], "\\boxed{7}\n": ["done", "\\boxed{8}"]})
    (walk,) = valued([answered("b", ["\\boxed{7}\nw"])], Verified(), engine)
    assert walk.values == (0.0, 0.5), "the last box counts, as in any answer"


def test_a_vote_is_that_of_the_answers_and_not_of_the_rollouts():
    eights = {key: ["\\boxed{8}"] * 3 + ["\\boxed{7}"] for key in TEXTS}
    walks = valued(GROUPS[1:], Majority(), Script(eights))
    assert walks[0].values == (0.25, 0.25), "seven has won, though most rollouts say eight"
    tied = replace(GROUPS[1], winner=None)
    assert valued([tied], Majority(), Script(eights))[0].values == (0.0, 0.0)


def test_a_label_is_all_that_counts_where_there_is_one():
    walks = valued(GROUPS[1:], Majority(), Script(TEXTS), {"b": "8"})
    assert walks[0].values == (0.25, 0.0)


def test_any_reward_that_answers_may_earn_rollouts_may_earn(tmp_path):
    (tmp_path / "own.py").write_text(
        "def length(question, answers, texts, gold):\n    return [len(t) for t in texts]\n"
    )
    reward = PythonReward(path="own.py:length", text=(tmp_path / "own.py").read_text())
    (walk,) = valued(GROUPS[1:], reward, Script(TEXTS))
    assert walk.values == ((9 + 9 + 2 + 9) / 4, (11 + 11 + 11 + 4) / 4)
    (walk,) = valued(GROUPS[1:], RandomReward(), Script(TEXTS))
    assert all(v in (0.0, 0.25, 0.5, 0.75, 1.0) for v in walk.values)


def test_a_reward_model_reads_a_rollout_with_all_that_was_said_before_it():
    read: list[str] = []

    def ask(sequences):
        texts = ["".join(map(chr, ids)) for ids in sequences]
        read.extend(texts)
        return [math.log(3.0) if t.endswith("7}") else -math.log(3.0) for t in texts]

    pieces, how = Pieces(Characters()), replace(asking(ModelReward(of="answer")), scorers={"reward": ask})
    tree = tree_of(GROUPS[1:], pieces, Lines())
    continued = rollouts(Script(TEXTS), tree.states, how)
    with Judge(MathAnswers()) as judge, how.earnings:
        (walk,) = tree.walks(values(tree.states, continued, pieces, judge, how))
    assert read[4:6] == ["q?x\n\\boxed{7}"] * 2
    assert walk.values == (pytest.approx(0.5), pytest.approx((3 * 0.75 + 0.25) / 4))


def test_values_are_a_function_of_the_state_and_not_of_who_is_valued_beside_it():
    """Shares of ranks, and a resumed turn, must not change what is trained on."""
    alone = Script(TEXTS)
    walk = valued(GROUPS[1:], Verified(), alone)[0]
    together = Script(TEXTS)
    assert valued(GROUPS, Verified(), together)[2] == walk
    assert together.asked[4:] == alone.asked


@pytest.mark.parametrize("reward", [Verified(), Majority()])
def test_an_answer_without_steps_is_one(reward):
    (walk,) = valued([answered("c", ["\\boxed{7}"])], reward, Script(TEXTS))
    assert walk == Walk(cuts=(0,), values=(0.5,))
