"""A folder between two models: every weight, tied ones and files in several pieces included."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from serl.engines.mean import mean_folder

SHAPE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def model(folder, seed: int, dtype=torch.float32, **changes) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(vocab_size=40, tie_word_embeddings=True, **(SHAPE | changes))
    torch.manual_seed(seed)
    made = transformers.LlamaForCausalLM(config).to(dtype)
    made.save_pretrained(folder, max_shard_size="20KB")
    return made


def test_every_weight_is_the_mean(tmp_path):
    one, two = model(tmp_path / "one", 1), model(tmp_path / "two", 2)
    (tmp_path / "one/kept.jsonl").write_text("not a model's")
    sealed = mean_folder(
        tmp_path / "one", tmp_path / "two", 0.25, tmp_path / "mean", without=("kept.jsonl",)
    )
    files = sorted(p.name for p in (tmp_path / "mean").glob("*.safetensors"))
    assert len(files) > 1 and sorted(sealed) == files
    assert not (tmp_path / "mean/kept.jsonl").exists()
    mean = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "mean")
    for (name, a), b, m in zip(one.named_parameters(), two.parameters(), mean.parameters()):
        assert torch.allclose(m, 0.25 * a + 0.75 * b, atol=1e-7), name


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_models_themselves(tmp_path, share):
    model(tmp_path / "one", 1, torch.bfloat16), model(tmp_path / "two", 2, torch.bfloat16)
    mean_folder(tmp_path / "one", tmp_path / "two", share, tmp_path / "mean")
    for path in (tmp_path / "mean").glob("*.safetensors"):
        end = load_file(tmp_path / ("one" if share else "two") / path.name)
        for name, value in load_file(path).items():
            assert value.dtype == torch.bfloat16 and torch.equal(value, end[name])


def test_two_different_models_have_no_mean(tmp_path):
    model(tmp_path / "one", 1), model(tmp_path / "two", 2, intermediate_size=64)
    with pytest.raises(ValueError, match=r"two: .* has the shape .*: the two are of different models"):
        mean_folder(tmp_path / "one", tmp_path / "two", 0.5, tmp_path / "mean")
