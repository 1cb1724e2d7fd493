"""The families of models that people train: log-probabilities and gradients are those of each model's own logits, which
some of them rescale or cap, and a dry load tells them from those that cannot be trained.
"""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from serl.engines.dry import fault
from serl.engines.logits import Bend, bend_of
from serl.engines.model import Head, TokenLogProbs, hollow_model, load_model
from serl.learning.batch import Sample, collate

SHAPE = {
    "vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GEMMA2 = {"sliding_window": 8, "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}
GRANITE = {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}
FAMILIES = {
    "Llama": {}, "Mistral": {}, "Qwen2": {}, "Qwen3": {}, "Gemma": {}, "Gemma2": GEMMA2,
    "Gemma3Text": {"sliding_window": 8, "query_pre_attn_scalar": 16}, "Granite": GRANITE, "Cohere": {"logit_scale": 0.25},
    "Cohere2": {"logit_scale": 0.25, "sliding_window": 8}, "Phi3": {}, "Olmo2": {}, "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "GPTNeoX": {}, "Mixtral": {"num_local_experts": 2}, "SmolLM3": {}, "Starcoder2": {},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}, "GraniteMoe": {**GRANITE, "num_local_experts": 2},
}  # fmt: skip
OTHERS = {
    "T5": "makes no causal language model of it", "ViT": "makes no causal language model of it", "Whisper": "take no token ids",
    "Qwen2_5_VL": "makes no causal language model of it", "Bart": "take no token ids",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny random model of each family, as it is published."""
    root = tmp_path_factory.mktemp("families")
    for family, own in FAMILIES.items():
        config = getattr(transformers, f"{family}Config")(**SHAPE | own)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            lm = transformers.AutoModelForCausalLM.from_config(config)
            with torch.no_grad():
                for p in lm.parameters():
                    p.add_(0.05 * torch.randn_like(p))
        lm.save_pretrained(root / family)
        (root / family / "tokenizer.json").write_text("{}")
    return root


def rows() -> list[Sample]:
    g = torch.Generator().manual_seed(1)
    return [Sample(token_L=torch.randint(3, 70, (n,), generator=g), num_prompt=3, column={}) for n in (17, 9, 4)]


def by_its_own_logits(lm, temperature: float) -> "torch.Tensor":
    """What the family's own forward pass says of the response tokens."""
    found = []
    for s in rows():
        logp_LV = (lm(input_ids=s.token_L[None]).logits[0].float() / temperature).log_softmax(-1)
        found.append(logp_LV[2:-1].gather(-1, s.token_L[3:, None])[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_the_models_own_logits(folders, family):
    lm = load_model(folders / family, torch.float32, torch.float32).eval()
    forward = TokenLogProbs(lm, 0.7)
    torch.testing.assert_close(forward(collate(rows(), False)), by_its_own_logits(lm, 0.7), rtol=1e-5, atol=2e-5)
    forward.head.temperature = 1.0  # as a trainer asks for what is compared with the engine's
    torch.testing.assert_close(forward(collate(rows(), False)), by_its_own_logits(lm, 1.0), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", ["Gemma2", "Granite", "Cohere"])
def test_gradients_are_those_of_the_models_own_logits(folders, family):
    lm = load_model(folders / family, torch.float32, torch.float32).eval()
    weight_T = torch.randn(len(by_its_own_logits(lm, 1.0)), generator=torch.Generator().manual_seed(5))
    found = []
    for logp_T in (TokenLogProbs(lm, 1.0)(collate(rows(), False)), by_its_own_logits(lm, 1.0)):
        lm.zero_grad()
        (logp_T * weight_T).sum().backward()
        found.append({name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None})
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("bend", [Bend(cap=2.0), Bend(scale=0.25), Bend(scale=0.5, cap=1.5)])
def test_a_bent_head_has_the_gradients_of_the_plain_formula(bend):
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 30)
    hidden_TD, target_T = torch.randn(40, 8, requires_grad=True), torch.randint(30, (40,))
    made_T = Head(layer, 0.8, bend)(hidden_TD, target_T)
    logit_TV = layer(hidden_TD) * bend.scale
    logit_TV = logit_TV if bend.cap is None else bend.cap * torch.tanh(logit_TV / bend.cap)
    plain_T = -torch.nn.functional.cross_entropy(logit_TV / 0.8, target_T, reduction="none")
    torch.testing.assert_close(made_T, plain_T, rtol=1e-5, atol=1e-5)
    weight_T, learned = torch.randn(40), [hidden_TD, layer.weight, layer.bias]
    made = torch.autograd.grad((made_T * weight_T).sum(), learned)
    plain = torch.autograd.grad((plain_T * weight_T).sum(), learned)
    torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)


def test_capped_scores_within_attention_get_an_attention_that_caps_them(folders):
    """torch's kernels take no cap, and transformers says nothing of it."""
    for packing in (None, True, False):
        lm = load_model(folders / "Gemma2", torch.float32, torch.float32, packing=packing)
        hollow = hollow_model(folders / "Gemma2", torch.float32, torch.float32, torch.device("cpu"), packing=packing)
        assert {lm.config._attn_implementation, hollow.config._attn_implementation} == {"eager"}


@pytest.mark.parametrize("family", ["GPT2", "OPT", "GPTNeoX"])
def test_dropout_is_off_where_a_policy_is_optimised(folders, tmp_path, family):
    """With it a first step's ratios were 0.98 and not 1: GPT-2's own configuration has 0.1."""
    config = json.loads((folders / family / "config.json").read_text())
    rates = {key: 0.5 for key in config if key.endswith(("dropout", "pdrop"))}
    assert rates
    for path in (folders / family).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | rates))
    lm = load_model(tmp_path, torch.float32, torch.float32)
    batch = collate(rows(), False)
    with torch.no_grad():
        asked, trained = (TokenLogProbs(lm.train(mode), 1.0)(batch) for mode in (False, True))
    torch.testing.assert_close(trained, asked, rtol=0, atol=0)


def test_what_a_configuration_says_of_logits():
    assert bend_of({}) == Bend() == bend_of({"final_logit_softcapping": None, "logits_scaling": 1})
    assert bend_of({"logits_scaling": 8.0}) == Bend(scale=0.125)
    assert bend_of({"logit_scale": 0.0625}) == Bend(scale=0.0625)
    assert bend_of({"final_logit_softcapping": 30.0}) == Bend(cap=30.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_load_lets_pass_what_can_be_trained(folders, family):
    assert fault(folders / family) == ""


@pytest.mark.parametrize(("family", "why"), OTHERS.items())
def test_a_dry_load_refuses_what_is_no_causal_language_model(tmp_path, family, why):
    getattr(transformers, f"{family}Config")().save_pretrained(tmp_path)
    assert why in fault(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_hidden_layers": 3}, "its files lack 9 weights, model.layers.2."),
        ({"vocab_size": 90}, "model.embed_tokens.weight has the shape (70, 32) in its files"),
        ({"model_type": "brandnew"}, "transformers makes no causal language model of it"),
    ],
)
def test_a_dry_load_compares_the_files_with_the_configuration(folders, tmp_path, change, why):
    for path in (folders / "Llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    assert why in fault(tmp_path)
