"""Adapters that cannot be: a sentence before anything is created."""

import copy
import json
from pathlib import Path

import pytest

from serl.config.files import ConfigError
from serl.config.read import load_run
from serl.engines.hf_folder import block_layers
from tests.conftest import ROOT, SMALL, run_config


def tree(lora: dict, **changes) -> dict:
    made = copy.deepcopy(SMALL) | changes
    made["train"] |= {"lora": lora, "optimizer": {"lr": 1e-4, "schedule": "constant"}}
    return made


@pytest.mark.parametrize(
    ("lora", "changes", "sentence"),
    [
        ({"rank": 0, "alpha": 8.0}, {}, r"train.lora.rank: 0: input should be greater than or equal to 1"),
        ({"rank": 8, "alpha": 0.0}, {}, r"train.lora.alpha: 0.0: input should be greater than 0"),
        ({"rank": 8, "alpha": 8.0, "targets": []}, {}, r"train.lora.targets"),
        ({"rank": 8, "alpha": 8.0, "dropout": 1.0}, {}, r"train.lora.dropout: 1.0: .* less than 1"),
        ({"rank": 8, "alpha": 8.0}, {"carry": "phase"}, r"train.lora: each round begins with new adapters"),
    ],
)
def test_a_wrong_adapter_is_a_sentence(lora, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run_config(tree(lora, **changes))


def header(path: Path, shapes: dict[str, list[int]]) -> None:
    entries = {k: {"dtype": "F32", "shape": v, "data_offsets": [0, 0]} for k, v in shapes.items()}
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_targets_are_looked_for_in_the_base(tmp_path):
    folder = tmp_path / "models/base"
    folder.mkdir(parents=True)
    block = "model.layers.0"
    header(folder / "a.safetensors", {"lm_head.weight": [8, 4], "model.embed_tokens.weight": [8, 4]})
    shapes = {f"{block}.self_attn.q_proj.weight": [4, 4], f"{block}.input_layernorm.weight": [4]}
    header(folder / "b.safetensors", shapes)
    assert block_layers(folder) == ["q_proj"]
    for target in ("q_prj", "lm_head", "input_layernorm"):
        config = run_config(tree({"rank": 8, "alpha": 8.0, "targets": [target]}))
        stage = config.stage(1, "train")
        with pytest.raises(ValueError, match=f"lora.targets {target}: no linear layer .* among q_proj$"):
            stage.kind.check(stage, config, tmp_path)


def test_a_base_that_is_made_here_has_the_layers_of_a_llama():
    quick = ROOT / "configs/quickstart.yaml"
    load_run(quick, ["train.lora={rank: 8, alpha: 16.0, targets: [q_proj, down_proj]}"])
    with pytest.raises(ConfigError, match="lora.targets c_attn: no linear layer .* choose among down_proj"):
        load_run(quick, ["train.lora={rank: 8, alpha: 16.0, targets: [c_attn]}"])
    with pytest.raises(ConfigError, match="base.train: lora: a base of random weights is trained whole"):
        load_run(quick, ["base.train.lora={rank: 8, alpha: 16.0}"])
