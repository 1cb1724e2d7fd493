"""The tokenizer built from a corpus: exact, digit by digit, and loadable as any other."""

import json

import pytest

from serl.engines.tokenizer import build_tokenizer
from serl.world import arithmetic as toy

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer((d.prompt + d.completion for d in toy.corpus(0, 2000)), 512, folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_domain_text_and_foreign_text_round_trip_exactly(tokenizer):
    texts = [d.prompt + d.completion for d in toy.corpus(1, 500)]
    texts += [
        " leading",
        "two  spaces\n\n\ttab",
        "naïve Ω 漢字 \U0001f600",
        "\\frac{1}{2} \\boxed{-3}",
        "don 't stop .",
        "",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_digit_is_one_token(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(
        tokenizer.encode("12 + 305 = 317. \\boxed{317}", add_special_tokens=False)
    )
    assert all(sum(c.isdigit() for c in piece) <= 1 for piece in pieces)


def test_prompt_and_completion_split_where_the_tokens_split(tokenizer):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    for document in toy.corpus(2, 500):
        assert encode(document.prompt) + encode(document.completion) == encode(
            document.prompt + document.completion
        )
    assert encode("4. What is 1 + 2?\n5.") + encode(" What is 2 + 2?\n") == encode(
        "4. What is 1 + 2?\n5. What is 2 + 2?\n"
    )


def test_special_tokens_exist_and_encoding_puts_one_in_front(tokenizer):
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id] == [0, 1, 2]
    first, *rest = tokenizer("What is 3 + 4?")["input_ids"]
    assert first == tokenizer.bos_token_id and not {0, 1, 2} & set(rest)
    assert tokenizer.chat_template is None
    assert len(tokenizer) <= 512


def test_a_saved_copy_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Question: What is 12 * 3?\nAnswer: \\boxed{36}"
    assert again.encode(text, add_special_tokens=False) == tokenizer.encode(text, add_special_tokens=False)


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="259"):
        build_tokenizer(["a"], 100, tmp_path)
