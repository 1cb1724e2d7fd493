"""The exact text that a model is asked with, for plain tokenizers and chat templates."""

import pytest

from evaluation.benchmark import Problem
from serl.config.engine import Prompts
from serl.engines.tokenizer import build_tokenizer
from serl.stages.score.run import _question
from serl.stages.score.spec import Score
from serl.text.prompts import one_line, propose_prompt, question_prompt

PROMPTS = Prompts(
    propose_system="Write.",
    propose_opening="Questions:",
    respond_system="Think.",
    respond_user="{question}\nAnswer in {braces}.",
    respond_plain="Q: {question}\nA:",
)


class Plain:
    chat_template = None
    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text: str) -> dict:
        return {"input_ids": [1, *map(ord, text)]}


class Chat(Plain):
    chat_template = "template"

    def apply_chat_template(
        self, conversation: list[dict], *, add_generation_prompt: bool, return_dict: bool, strftime_now, **more
    ) -> list[int]:
        assert add_generation_prompt and not return_dict
        self.given = more
        return [ord(c) for turn in conversation for c in f"<{turn['role']}>{turn['content']}"]


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_a_question_is_put_in_literally():
    assert (
        text(question_prompt(Plain(), PROMPTS, "What is {question}{0}%s?"))
        == "\x01Q: What is {question}{0}%s?\nA:"
    )
    assert text(question_prompt(Chat(), PROMPTS, "1+1?")) == "<system>Think.<user>1+1?\nAnswer in {braces}."


def test_no_system_turn_without_a_system_prompt():
    assert (
        text(question_prompt(Chat(), PROMPTS.model_copy(update={"respond_system": None}), "1+1?"))
        == "<user>1+1?\nAnswer in {braces}."
    )


def test_a_benchmarks_preamble_stands_before_each_of_its_questions_in_the_user_turn():
    section = Score(
        shards=1,
        benchmarks=("aqua", "svamp"),
        preamble={"aqua": "1+1?\n2"},
        max_tokens=8,
        protocol="qwen25_math",
    )
    aqua, svamp = (Problem(benchmark=name, id="0", question="2+2?", gold="4") for name in section.benchmarks)
    assert "<|im_start|>user\n1+1?\n2\n\n2+2?<|im_end|>" in text(_question(PROMPTS, Plain(), section, aqua))
    assert "<|im_start|>user\n2+2?<|im_end|>" in text(_question(PROMPTS, Plain(), section, svamp))


def test_a_template_that_states_the_date_gives_the_same_prompt_on_every_day(tmp_path):
    """That of Llama 3.2 does; a shard resumed after midnight used to ask other prompts than its first half, and than its siblings."""
    transformers = pytest.importorskip("transformers")
    build_tokenizer(["Today Date: 26 Jul 2024"], 300, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}"
        "Today Date: {{ date_string }} {{ messages[-1]['content'] }}"
    )
    assert (
        tokenizer.decode(question_prompt(tokenizer, PROMPTS, "1+1?"))
        == "Today Date: 26 Jul 2024 1+1?\nAnswer in {braces}."
    )


def test_a_propose_prompt_is_a_list_that_stops_where_the_next_item_begins():
    ids, used = propose_prompt(Plain(), PROMPTS, ["One\n is  1?", "Is ABC = \\Delta?"], 1000)
    assert (text(ids), used) == ("\x01Questions:\n1. One is 1?\n2. Is ABC = \\Delta?\n3.", 2)
    ids, _ = propose_prompt(Chat(), PROMPTS, ["One?"], 1000)
    assert text(ids) == "<system>Write.<user>Questions:\n1. One?\n2."


def test_shots_are_dropped_from_the_end_until_the_prompt_fits():
    shots = ["a" * 10, "b" * 10, "c" * 10]
    whole, _ = propose_prompt(Plain(), PROMPTS, shots, 1000)
    assert propose_prompt(Plain(), PROMPTS, shots, len(whole)) == (whole, 3)
    ids, used = propose_prompt(Plain(), PROMPTS, shots, len(whole) - 1)
    assert used == 2 and text(ids).endswith("\n2. bbbbbbbbbb\n3.")
    assert propose_prompt(Plain(), PROMPTS, shots, 20) == ([], 0)
    assert propose_prompt(Plain(), PROMPTS, shots, -5) == ([], 0)


def test_white_space_collapses_and_case_stays():
    assert one_line("  ABC\n\t\\Delta \u00a0 x ") == "ABC \\Delta x"


class NoSystem(Chat):
    """As Gemma's template does."""

    def apply_chat_template(self, conversation: list[dict], **how) -> list[int]:
        if conversation[0]["role"] == "system":
            raise ValueError("System role not supported")
        return super().apply_chat_template(conversation, **how)


def test_a_template_without_a_system_role_gets_its_text_before_the_users():
    assert text(question_prompt(NoSystem(), PROMPTS, "1+1?")) == "<user>Think.\n\n1+1?\nAnswer in {braces}."
    ids, _ = propose_prompt(NoSystem(), PROMPTS, ["one"], 100)
    assert text(ids).startswith("<user>Write.\n\nQuestions:")


def test_a_template_that_fails_for_another_reason_says_so():
    class Broken(Chat):
        def apply_chat_template(self, conversation: list[dict], **how) -> list[int]:
            raise KeyError("tools")

    with pytest.raises(KeyError, match="tools"):
        question_prompt(Broken(), PROMPTS, "1+1?")


def test_arguments_of_the_chat_template_reach_it():
    chat = Chat()
    question_prompt(chat, PROMPTS.model_copy(update={"template": {"enable_thinking": False}}), "1+1?")
    assert chat.given == {"enable_thinking": False}


def test_a_prompt_of_text_has_one_begin_and_no_end():
    """Some tokenizers add an end of text to every text (`add_eos_token`); a prompt may bring its own begin."""

    class Eager(Plain):
        def __call__(self, text: str) -> dict:
            return {"input_ids": [1, *(1 if c == "<" else ord(c) for c in text), 2]}

    assert question_prompt(Eager(), PROMPTS, "x") == [1, *map(ord, "Q: x\nA:")]
    ours = PROMPTS.model_copy(update={"respond_plain": "<Q: {question}"})
    assert question_prompt(Eager(), ours, "x") == [1, *map(ord, "Q: x")]
