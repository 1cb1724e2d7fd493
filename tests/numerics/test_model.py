"""Log-probabilities and gradients do not depend on how samples are gathered into passes, chunks or ranks."""

import copy
import itertools
import json

import pytest
import torch
import transformers

from serl.engines import fused, model
from serl.engines.model import TokenLogProbs
from serl.engines.tokenizer import build_tokenizer
from serl.learning.batch import collate, plan_micro_batches
from serl.learning.objective import PolicyLoss

LOSS = PolicyLoss(clip=0.2, kl=0.1)


def plain_logprobs(llama, samples, temperature=1.0):
    """One unpadded sample at a time through the model's own head."""
    found = []
    for s in samples:
        logits_LV = llama(input_ids=s.token_L[None]).logits[0].float() / temperature
        logp_LV = logits_LV.log_softmax(dim=-1)
        found.append(torch.stack([logp_LV[t - 1, s.token_L[t]] for t in range(s.num_prompt, len(s.token_L))]))
    return torch.cat(found)


def gradients(llama, samples, passes, packed=False, backend=None):
    """Loss and gradients of one optimizer batch cut into these passes."""
    llama.zero_grad()
    forward = TokenLogProbs(llama)
    if backend:
        forward.compile_pieces(backend)
    weight = sum(s.column["weight"].sum() for s in samples)
    total = 0.0
    for micro in passes:
        rows = collate([samples[i] for i in micro], packed)
        nothing = {name: value[:0] for name, value in samples[0].column.items()}
        loss = LOSS(forward(rows), rows.column or nothing)[0] / weight
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in llama.parameters()]


def assert_same_step(one, other, tolerance=1e-6):
    assert one[0] == pytest.approx(other[0], rel=tolerance)
    scale = max(g.abs().max() for g in one[1])
    for a, b in zip(one[1], other[1]):
        assert (a - b).abs().max() <= tolerance * scale


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("packed", [False, True])
def test_token_logprobs_equal_the_models_own(llama, samples, temperature, packed):
    made_T = TokenLogProbs(llama, temperature)(collate(samples, packed))
    torch.testing.assert_close(made_T, plain_logprobs(llama, samples, temperature), rtol=1e-5, atol=1e-5)


def test_chunks_of_logits_change_neither_values_nor_gradients(llama, samples, monkeypatch):
    whole = gradients(llama, samples, [range(8)])
    monkeypatch.setattr(fused, "BLOCK_BYTES", 3 * 4 * llama.config.vocab_size)
    assert_same_step(whole, gradients(llama, samples, [range(8)]))
    monkeypatch.setattr(model, "KEPT_LOGIT_BYTES", 0)
    monkeypatch.setattr(model, "MAX_LOGIT_BYTES", 5 * 4 * llama.config.vocab_size)
    assert_same_step(whole, gradients(llama, samples, [range(8)]))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_head_has_the_gradients_of_the_plain_formula_those_of_near_certain_tokens_too(temperature):
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 30)
    layer.weight.data *= 8  # some targets are all but certain
    hidden_TD = torch.randn(40, 8, requires_grad=True)
    target_T = torch.cat([layer(hidden_TD).argmax(-1)[:30], torch.randint(30, (10,))])
    weight_T = torch.randn(40)
    learned = [hidden_TD, layer.weight, layer.bias]
    made_T = model.Head(layer, temperature)(hidden_TD, target_T)
    plain_T = -torch.nn.functional.cross_entropy(layer(hidden_TD) / temperature, target_T, reduction="none")
    torch.testing.assert_close(made_T, plain_T, rtol=1e-5, atol=1e-5)
    made = torch.autograd.grad((made_T * weight_T).sum(), learned)
    plain = torch.autograd.grad((plain_T * weight_T).sum(), learned)
    torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)


def test_logits_are_kept_for_the_backward_pass_alone(llama, samples):
    rows = collate(samples, False)
    forward = TokenLogProbs(llama)
    with torch.no_grad():
        assert forward(rows).grad_fn is None
    logp_T = forward(rows)
    logp_T.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logp_T.sum().backward()  # they have become their gradient


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_and_head_take_the_same_step(llama, samples, checkpointing):
    """Without a C compiler: what is traced and differentiated is what a GPU would have fused."""
    passes = [range(8), range(3), [0]]
    whole = gradients(llama, samples, passes)
    compiled = copy.deepcopy(llama).train()
    if checkpointing:
        compiled.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_step(whole, gradients(compiled, samples, passes, backend="aot_eager"))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


def test_one_pass_of_eight_equals_eight_passes_of_one(llama, samples):
    assert_same_step(
        gradients(llama, samples, [range(8)]), gradients(llama, samples, [[i] for i in range(8)])
    )


def test_packed_equals_padded(llama, samples):
    assert_same_step(
        gradients(llama, samples, [range(8)]), gradients(llama, samples, [range(8)], packed=True)
    )


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("max_tokens", [20, 1000])
def test_gradients_of_the_ranks_add_up_to_those_of_one(llama, samples, num_ranks, max_tokens):
    plan = plan_micro_batches([len(s.token_L) for s in samples], num_ranks, max_tokens)
    assert_same_step(gradients(llama, samples, [range(8)]), gradients(llama, samples, itertools.chain(*plan)))


def test_a_pass_without_samples_has_zero_gradients_everywhere(llama, samples):
    loss, grads = gradients(llama, samples, [()])
    assert loss == 0 and all(g.abs().max() == 0 for g in grads)


def test_scratch_model_is_a_function_of_its_seed_and_leaves_the_random_state_alone():
    from serl.config.base import Architecture

    class Vocabulary:
        bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

        def __len__(self):
            return 50

    shape = Architecture(hidden=32, layers=1, heads=1, intermediate=64)
    before = torch.get_rng_state()
    made = [
        model.scratch_llama(shape, Vocabulary(), seed).get_input_embeddings().weight for seed in (3, 3, 4)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert made[0].shape == (50, 32)


def test_a_model_with_generation_defaults_that_transformers_reads_but_will_not_write_is_written(
    llama, tmp_path
):
    """Some published ones are such; the round's whole training used to be lost on every attempt, at its last line."""

    class Tokenizer:
        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{}")

    def saved() -> dict:
        model.save_model(llama, Tokenizer(), dict(llama.named_parameters()), torch.float32, tmp_path)
        return json.loads((tmp_path / "generation_config.json").read_text())

    llama.generation_config.update(do_sample=True, temperature=0.6, eos_token_id=[2, 3])
    assert saved()["temperature"] == 0.6
    llama.generation_config.do_sample = False
    assert saved()["eos_token_id"] == [2, 3] and "temperature" not in saved()


def test_a_model_with_dropout_is_trained_without(tmp_path):
    """GPT-2's tenth moved the ratio of an unchanged policy to 0.98 and clipped a third of its tokens."""
    build_tokenizer(["a few words"], 259, tmp_path)
    made = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=2, n_positions=32)
    )
    assert made.config.resid_pdrop == made.config.attn_pdrop == 0.1
    made.save_pretrained(tmp_path)
    loaded = model.load_model(tmp_path, torch.float32, torch.float32).train()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        once, twice = loaded(ids).logits, loaded(ids).logits
    assert torch.equal(once, twice) and torch.allclose(once, made.eval()(ids).logits, atol=1e-5)
