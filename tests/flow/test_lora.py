"""Low-rank adapters with the real DeepSpeed at every ZeRO stage, on one rank and on two, against a few lines
of plain torch; merged into folders and into vLLM, and read by vLLM as adapters.
"""

import json
from pathlib import Path

import lora_ranks as job
import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_trainer import run_ranks

from serl.config.training import Lora, Training
from serl.engines.lora import FOLDER, adapt, first, is_adapter
from serl.engines.model import TokenLogProbs, load_model
from serl.engines.ranks import Ranks
from serl.engines.tokenizer import build_tokenizer
from serl.engines.zero import plan_of
from serl.learning.batch import collate

pytestmark = pytest.mark.timeout(900)
STAGES = [f"zero_{stage}" for stage in range(4)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_tokenizer(["a tiny vocabulary 0 1 2"], 259, folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=264, max_position_embeddings=96, tie_word_embeddings=True, initializer_range=0.1, **shape
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) / "out" for name in ("one", "two")}


@pytest.fixture(scope="module")
def one(base, out) -> dict:
    return run_ranks(1, base, out["one"], script="lora_ranks.py")[0]


@pytest.fixture(scope="module")
def two(base, out) -> list[dict]:
    return run_ranks(2, base, out["two"], script="lora_ranks.py")


def first_values(base: Path) -> dict[str, torch.Tensor]:
    """Of the adapters."""
    ranks = Ranks(rank=0, size=1, device=torch.device("cpu"))
    settings = Training(optimizer=job.OPTIMIZER, zero=0, dtype="float32", lora=job.LORA)
    lm = load_model(base, torch.float32, torch.float32)
    adapt(lm, job.LORA, plan_of(settings, ranks))
    fill, values = first(lm, job.SEED, lambda *_: None), {}
    for name, p in lm.named_parameters():
        if is_adapter(name):
            values[name] = torch.empty(p.shape)
            fill(name, 0, values[name].view(-1))
    return values


@pytest.fixture(scope="module")
def plain(base) -> dict:
    """What should happen: hooks beside frozen layers, torch's AdamW, and nothing else."""
    lm = load_model(base, torch.float32, torch.float32).requires_grad_(False)
    factors = {name: value.requires_grad_() for name, value in first_values(base).items()}

    def beside(name):
        a, b = factors[f"{name}.lora_A"], factors[f"{name}.lora_B"]
        return lambda _, inputs, y: y + job.LORA.alpha / job.LORA.rank * (inputs[0] @ a.T @ b.T)

    for name, module in lm.named_modules():
        if f"{name}.lora_A" in factors:
            module.register_forward_hook(beside(name))
    module, settings = TokenLogProbs(lm), job.OPTIMIZER
    adam = torch.optim.AdamW(
        factors.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    samples = job.make_samples()
    rows, tokens = collate(samples), sum(s.num_response for s in samples)
    seen = {"before": module(rows).tolist(), "steps": [], "names": sorted(factors)}
    for step in range(job.NUM_STEPS):
        for group in adam.param_groups:
            group["lr"] = job_rate(step)
        loss = -module(rows).sum() / tokens
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(factors.values(), settings.grad_clip)
        adam.step()
        seen["steps"].append([loss.item(), norm.item()])
    return seen | {"after": module(rows).tolist()}


def job_rate(step: int) -> float:
    from serl.learning.schedule import learning_rate

    return learning_rate(step, job.NUM_STEPS, job.OPTIMIZER)


@pytest.mark.parametrize("stage", STAGES)
def test_steps_are_those_of_plain_torch(one, two, plain, stage):
    assert len(plain["names"]) == 2 * 2 * 3, "two factors in each of two layers' three targets"
    for seen in (one, *two):
        assert seen[stage]["before"] == pytest.approx(plain["before"], abs=1e-5), "B is 0 at first"
        for mine, theirs in zip(seen[stage]["steps"], plain["steps"], strict=True):
            assert mine == pytest.approx(theirs, rel=2e-4)
        assert seen[stage]["after"] == pytest.approx(plain["after"], abs=2e-3)
    assert max(abs(a - b) for a, b in zip(plain["before"], plain["after"])) > 0.5, "they move the model"


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_has_the_adapters_alone_and_goes_on_bit_by_bit(one, two, stage):
    numbers = 2 * 4 * (2 * (64 + 64) + (128 + 64))  # layers, rank, (inputs + outputs) of the targets
    for seen in (one, *two):
        step, extra = seen[stage]["resumed"]
        assert (step, extra) == (job.SAVE_AT, {"turn": 1}) and seen[stage]["bitwise"]
        assert 12 * numbers <= seen[stage]["bytes"] < 12 * numbers + 40_000, "masters and two moments"


@pytest.mark.parametrize("stage", [*STAGES, "bfloat16_3"])
def test_the_published_policy_is_the_base_and_the_adapter_merged(one, base, out, stage):
    kind, zero = stage.split("_")
    folder = (out["one"] / "bfloat16" if kind == "bfloat16" else out["one"]) / f"export_{zero}"
    start, merged = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    adapter = load_file(folder / FOLDER / "adapter_model.safetensors")
    told = json.loads((folder / FOLDER / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["target_modules"]) == (4, 8.0, sorted(job.LORA.targets))
    moved = 0
    for name, weight in merged.items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        expected = start[name]
        if f"{place}.lora_A.weight" in adapter:
            moved += 1
            expected = expected + 2.0 * adapter[f"{place}.lora_B.weight"] @ adapter[f"{place}.lora_A.weight"]
            assert torch.allclose(weight, expected, atol=1e-6), name
            assert not torch.equal(weight, start[name])
        else:
            assert torch.equal(weight, expected), f"{name} is the base's own, to the last bit"
    assert moved == 2 * 3 and len(adapter) == 2 * moved
    if kind == "zero":
        assert one[stage]["merged_gap"] < 1e-4


def test_ranks_see_the_same_and_publish_the_same(two, out):
    assert [two[0][s]["after"] for s in STAGES] == [two[1][s]["after"] for s in STAGES]
    for zero in range(4):
        one_rank, two_ranks = (
            load_file(out[n] / f"export_{zero}" / "model.safetensors") for n in ("one", "two")
        )
        for name, value in one_rank.items():
            assert torch.allclose(value, two_ranks[name], atol=2e-3), name


def test_vllm_computes_what_a_trainer_with_adapters_does(one, two):
    assert all(gap < 1e-4 for seen in (one, *two) for gap in seen["engine"])


def test_vllm_reads_the_published_adapter(one):
    assert one["as_adapter"] == pytest.approx(one["zero_1"]["after"], abs=1e-4)


def test_dropout_changes_a_step_once_the_adapter_says_something(one, plain):
    first, second = one["dropout"]
    assert first == pytest.approx(plain["steps"][0][0], rel=1e-5), "B is 0: nothing to drop"
    assert second != pytest.approx(plain["steps"][1][0], rel=1e-5)


def test_a_base_that_changed_under_its_adapters_is_refused(one):
    assert "its adapters were trained over other weights than" in one["changed"]
    assert "put those back, or remove the checkpoints" in one["changed"]


def test_a_target_that_no_layer_has_is_a_sentence(base):
    ranks = Ranks(rank=0, size=1, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="lora.targets q_prj: no linear layer .* choose among down_proj, "):
        job.make_trainer(base, 0, ranks, Lora(rank=4, alpha=8.0, targets=("q_prj", "v_proj")))
