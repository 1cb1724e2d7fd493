"""Pairs of a user's file: every fault is a sentence, and what is right becomes the tokens that a policy would see."""

import dataclasses
import gzip
import json

import pytest

from serl.engines.tokenizer import build_tokenizer
from serl.records import groups_from_parquet, groups_to_parquet
from serl.stages.select.given import longest, tokenized
from serl.stages.sources import JsonlPairs
from serl.text.pairs import Text, load_pairs
from serl.text.prompts import question_prompt
from tests.conftest import run_config

GOOD = {"question": "1 + 1?", "better": "2", "worse": "3"}


def load(tmp_path, *rows, **source):
    (tmp_path / "seeds").mkdir(exist_ok=True)
    (tmp_path / "seeds/p.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return load_pairs(JsonlPairs(path="p.jsonl", **source), tmp_path)


def test_rows_become_pairs_and_a_label_says_which_is_better(tmp_path):
    rows = [GOOD | {"l": 1}, GOOD | {"l": 0}]
    first, second = load(tmp_path, *rows, label="l")
    assert (first.better, first.worse) == (second.worse, second.better) == ("2", "3")
    assert (first.id, second.id) == ("000000", "000001")


def test_published_field_names_and_gzip_are_read(tmp_path):
    row = {"question": "q", "response_j": "yes", "response_k": "no"}
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    source = JsonlPairs(path=str(tmp_path / "x.jsonl.gz"), better="response_j", worse="response_k")
    (pair,) = load_pairs(source, tmp_path)
    assert (pair.question, pair.better, pair.worse) == ("q", "yes", "no")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD | {"worse": "2"}, "p.jsonl:2: fields 'better' and 'worse' are equal: neither is the better one"),
        (GOOD | {"worse": "  "}, "p.jsonl:2: field 'worse' is '  ', not a text"),
        ({"question": "q", "better": "2"}, "p.jsonl:2: no field 'worse'; it has 'l', 'question', 'better'"),
        (GOOD | {"l": 0.5}, "p.jsonl:2: field 'l' is 0.5: 1 says that 'better' is better"),
        (GOOD | {"l": -1}, "p.jsonl:2: field 'l' is -1: 1 says"),
        ([1], "p.jsonl:2: list, not a JSON object"),
    ],
)
def test_a_fault_names_file_line_field_and_remedy(tmp_path, row, message):
    row = {"l": 1} | row if isinstance(row, dict) else row
    with pytest.raises(ValueError, match=message):
        load(tmp_path, GOOD | {"l": 1}, row, label="l")
    with pytest.raises(ValueError, match=r"p.jsonl: empty"):
        load(tmp_path)


def test_a_pair_is_in_the_tokens_of_the_policy_and_ends_as_answers_do(tmp_path, small_tree):
    pytest.importorskip("transformers")
    from serl.engines.model import load_tokenizer

    build_tokenizer(["a tiny vocabulary 0 1 2"], 259, tmp_path / "tokenizer")
    tokenizer, prompts = load_tokenizer(tmp_path / "tokenizer"), run_config(small_tree).prompts
    (text,) = load(tmp_path, GOOD)
    pair = tokenized(text, tokenizer, prompts)
    assert list(pair.prompt_ids) == question_prompt(tokenizer, prompts, "1 + 1?")
    for completion, said in zip(pair.completions, ("2", "3")):
        assert completion.token_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(completion.token_ids[:-1]) == said, "no begin-of-text inside"
    assert (pair.right, pair.says) == (True, "given")
    longer = tokenized(dataclasses.replace(text, worse="three or more"), tokenizer, prompts)
    assert longest(longer) == len(pair.prompt_ids) + len("three or more") + 1 > longest(pair)


def test_a_written_answer_is_the_only_one_of_its_group(tmp_path, small_tree):
    pytest.importorskip("transformers")
    from serl.engines.model import load_tokenizer

    build_tokenizer(["a tiny vocabulary 0 1 2"], 259, tmp_path / "tokenizer")
    tokenizer, prompts = load_tokenizer(tmp_path / "tokenizer"), run_config(small_tree).prompts
    group = tokenized(Text(id="1", question="Why?", answer="Because."), tokenizer, prompts)
    (answer,) = group.completions
    assert tokenizer.decode(answer.token_ids) == "Because.<eos>" and answer.text == "Because."
    assert list(group.prompt_ids) == question_prompt(tokenizer, prompts, "Why?")
    (again,) = groups_from_parquet(groups_to_parquet([group]))
    assert again == group


def test_behaviour_cloning_learns_from_answers_that_were_written(small_tree):
    phase = {
        "stages": ["texts", "train"],
        "texts": {"kind": "select", "choose": {"kind": "written", "source": {"path": "a.jsonl", "kind": "jsonl"}}},
        "train": {"objective": {"kind": "imitation"}, "optimizer": {"lr": 1e-4}},
    }
    tree = {k: small_tree[k] for k in ("name", "base", "prompts", "engine")} | {"phases": {"clone": phase}}
    phase["texts"]["choose"] |= {"max_tokens": 9999}
    with pytest.raises(ValueError, match=r"choose.max_tokens 9999: engine.max_model_len is 512; lower it"):
        run_config(tree)
    phase["texts"]["choose"]["max_tokens"] = 512
    config = run_config(tree)
    assert config.stage(1, "texts").gives == "answers"
    assert config.stage(1, "train").kind.reads(config.stage(1, "train"), config) == (config.stage(1, "texts"),)
