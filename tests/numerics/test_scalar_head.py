"""A scalar head reads a whole text at its last token, as transformers' own sequence classifier does."""

import json

import pytest
import torch
from test_hollow import ALONE, FAMILIES, SMALL
from transformers import AutoModelForSequenceClassification

from serl.config.training import Optimizer, Training
from serl.engines import loading
from serl.engines.hf_folder import validate_model_folder, validate_scored
from serl.engines.passes import frozen_scores
from serl.engines.scores import HEAD, Scores, first_head
from serl.engines.zero import plan_of
from serl.learning.batch import Sample, collate, scored

SETTINGS = Training(optimizer=Optimizer(lr=1e-3), zero=0, dtype="float32", microbatch_tokens=30)
LENGTHS = (5, 12, 1, 9, 9)


def texts() -> list[Sample]:
    g = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 60, (n,), generator=g) for n in LENGTHS]
    return [Sample(token_L=row, num_prompt=1, column={}) for row in rows]


@pytest.fixture(params=FAMILIES)
def policy(request, tmp_path):
    """A language model's folder, untied, so that its output layer is in the files and in nobody's way."""
    model, config, more = FAMILIES[request.param]
    torch.manual_seed(3)
    model(config(**SMALL | more, tie_word_embeddings=False)).save_pretrained(tmp_path / "policy")
    (tmp_path / "policy/tokenizer.json").write_text(json.dumps({}))
    return tmp_path / "policy"


def filled(folder, seed=0):
    lm, fill = loading.prepare(folder, plan_of(SETTINGS, ALONE), "scalar", seed)
    with torch.no_grad():
        for name, p in lm.named_parameters():
            value_N = torch.empty(p.numel())
            fill(name, 0, value_N)
            p.copy_(value_N.view_as(p))
    return lm.eval()


def test_a_language_model_is_given_a_head_and_keeps_the_rest(policy, tmp_path):
    lm = filled(policy, seed=7)
    whole = loading.load_model(policy, torch.float32, torch.float32).state_dict()
    mine = lm.state_dict()
    assert torch.equal(mine.pop(HEAD)[0], first_head(32, 7))
    assert all(torch.equal(value, whole[name]) for name, value in mine.items())
    assert not torch.equal(first_head(32, 7), first_head(32, 8))


def test_a_text_has_the_score_that_transformers_gives_it(policy, tmp_path):
    lm = filled(policy)
    lm.save_pretrained(tmp_path / "reward")
    (tmp_path / "reward/tokenizer.json").write_text(json.dumps({}))
    validate_scored(tmp_path / "reward")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    with torch.no_grad():
        expected = [theirs(s.token_L[None]).logits.item() for s in texts()]
        rows = collate([scored(s, {}) for s in texts()])
        assert Scores(lm)(rows).tolist() == pytest.approx(expected, abs=1e-5)
    asked = frozen_scores(tmp_path / "reward", SETTINGS, ranks=ALONE)([scored(s, {}) for s in texts()])
    assert [x.item() for x in asked] == pytest.approx(expected, abs=1e-5)


def test_a_folder_without_a_head_is_no_reward_model_and_one_with_it_no_policy(policy, tmp_path):
    with pytest.raises(ValueError, match="no head that gives one number a text; train one"):
        frozen_scores(policy, SETTINGS, ranks=ALONE)
    filled(policy).save_pretrained(tmp_path / "reward")
    (tmp_path / "reward/tokenizer.json").write_text(json.dumps({}))
    validate_model_folder(tmp_path / "reward", "scalar")
    with pytest.raises(ValueError, match="not a causal language model"):
        validate_model_folder(tmp_path / "reward")
