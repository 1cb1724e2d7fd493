"""Whether a folder is a Hugging Face causal language model, or a scalar reward model on one, with its
tokenizer; decided from file names and JSON alone, no torch.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

HeadKind = Literal["tokens", "scalar"]  # what a model gives of a text: log-probabilities, or one number
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OTHER_HEAD = re.compile(
    r"For(?!CausalLM|ConditionalGeneration)[A-Z]\w*$"
)  # an architecture with another head than that for text
SCORE = re.compile(r"ForSequenceClassification$")
EXPERTS = re.compile(r"(moe_)?(num|n)_(local_|routed_)?experts$")
OTHER_INPUTS = ("vision_config", "audio_config", "vision_tower")
ADAPTER = "adapter_config.json"
POSITIONS = ("max_position_embeddings", "n_positions")
POINTER = b"version https://git-lfs"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def model_folder(path: str, data_root: Path) -> Path:
    """Where a configuration's model lies: an absolute folder, or one of <data root>/models."""
    return Path(path) if Path(path).is_absolute() else data_root / "models" / path


def validate_model_folder(folder: Path, head: HeadKind = "tokens") -> None:
    """Raise ValueError naming the first missing, empty or unreadable file of the model at `folder`.

    A model of tokens may be given a head for scores, but not the other way round.
    """
    if not folder.is_dir():
        near = difflib.get_close_matches(
            folder.name, os.listdir(folder.parent) if folder.parent.is_dir() else [], n=3
        )
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "give a folder with config.json, weights and a tokenizer"
        )
        if not folder.parent.is_dir():
            name = "/".join(folder.parts[-2:])
            hint = f"if that is a name on the Hub: `hf download {name} --local-dir {folder}`; else {hint}"
        raise ValueError(f"{folder}: no such model folder; {hint}")
    if (folder / ADAPTER).is_file() and not _filled(folder / "config.json"):
        base = _read_json(folder / ADAPTER).get("base_model_name_or_path")
        raise ValueError(
            f"{folder}: an adapter of {base}, and no model; merge it into that (peft's merge_and_unload), "
            "and give the merged folder"
        )
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        wrong = "no key model_type; this is not a Hugging Face model configuration"
        raise ValueError(f"{folder / 'config.json'}: {wrong}")  # noqa: TRY004 (the user's data is wrong)
    names = config.get("architectures") or []
    scored = head == "scalar" and is_scored(config)
    if names and not scored and all(OTHER_HEAD.search(str(name)) for name in names):
        raise ValueError(
            f"{folder / 'config.json'}: architectures {', '.join(map(str, names))}: not a causal language "
            "model; choose one that is"
        )
    if config.get("is_encoder_decoder"):
        raise ValueError(
            f"{folder / 'config.json'}: is_encoder_decoder: an encoder with a decoder "
            f"({config['model_type']}); choose a model that only decodes"
        )
    if config.get("auto_map") and not _native(config["model_type"]):
        raise ValueError(
            f"{folder / 'config.json'}: auto_map: {config['model_type']} is code that comes with the model, "
            "which is never run; choose an architecture that transformers has itself"
        )
    if not any(_filled(folder / name) for name in TOKENIZER_FILES):
        raise ValueError(
            f"{folder}: no tokenizer; add one of {', '.join(TOKENIZER_FILES)} (copy it from the original "
            "model)"
        )
    if (folder / "tokenizer.json").is_file():
        _read_json(folder / "tokenizer.json")
    _validate_weights(folder)


def block_layers(folder: Path) -> list[str]:
    """What the linear layers inside a model's numbered blocks are called, like q_proj; from the headers of
    its safetensors files, of which there may be none.
    """
    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            *place, last = name.split(".")
            if last == "weight" and len(entry["shape"]) == 2 and any(part.isdigit() for part in place):
                found.add(place[-1])
    return sorted(found)


def validate_targets(targets: Iterable[str], known: Sequence[str]) -> None:
    """Raise ValueError where adapters are asked for layers that are not among those `known`."""
    if strange := sorted(set(targets) - set(known)):
        raise ValueError(
            f"lora.targets {', '.join(strange)}: no linear layer of the model's blocks is called so; choose "
            f"among {', '.join(known)}"
        )


def validate_trainable(folder: Path) -> None:
    """Raise ValueError where the model can be asked and not trained."""
    path = folder / "config.json"
    config = _read_json(path)
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        raise ValueError(
            f"{path}: quantization_config: weights in {quantised.get('quant_method', 'few bits')} can be "
            "scored and not trained; give the model that they were made from"
        )
    if parts := sorted(key for key in OTHER_INPUTS if key in config):
        raise ValueError(
            f"{path}: {', '.join(parts)}: a model that also reads other than text can be scored and not "
            "trained; choose its text model"
        )
    several = (k for k, v in config.items() if EXPERTS.match(k) and isinstance(v, int) and v > 1)
    if (key := next(several, None)) is not None:
        raise ValueError(
            f"{path}: {key} = {config[key]}: a mixture of experts can be scored and not trained: its weights "
            "are stored in other pieces than they are trained in; choose a dense model"
        )


def validate_tokens(folder: Path) -> None:
    """Raise ValueError where the chat template writes a token that the model has no row for."""
    config, path = _read_json(folder / "config.json"), folder / "tokenizer.json"
    rows = config.get("vocab_size")
    added = _read_json(path).get("added_tokens") if path.is_file() else None
    template = _template(folder)
    for token in added if isinstance(added, list) else ():
        beyond = isinstance(token, dict) and isinstance(rows, int) and token.get("id", 0) >= rows
        if beyond and str(token.get("content")) in template:
            raise ValueError(
                f"{path}: the chat template uses {token['content']!r}, which is token {token['id']}, and the "
                f"model has {rows} (vocab_size); resize its embedding, or take the original tokenizer"
            )


def _template(folder: Path) -> str:
    """Every chat template of a model, as text."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    told = _read_json(config).get("chat_template", "") if _filled(config) else ""
    return (file.read_text(encoding="utf-8") if file.is_file() else "") + str(told)


def _native(model_type: str) -> bool:
    """Whether transformers itself has the architecture, by its folders; true where that cannot be told."""
    found = find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return True
    models = Path(next(iter(found.submodule_search_locations))) / "models"
    return not models.is_dir() or (models / model_type.replace("-", "_")).is_dir()


def has_score(folder: Path) -> bool:
    """Whether the model at `folder` gives one number a text."""
    return is_scored(_read_json(folder / "config.json"))


def is_scored(config: dict) -> bool:
    """Whether a model's configuration is that of one number a text."""
    names = config.get("architectures") or []
    labels = config.get("id2label") or {}
    return any(SCORE.search(str(name)) for name in names) and len(labels) == 1


def validate_scored(folder: Path) -> None:
    """Raise ValueError where the folder has no head that gives one number a text."""
    validate_model_folder(folder, "scalar")
    config = _read_json(folder / "config.json")
    if not is_scored(config):
        found = ", ".join(map(str, config.get("architectures") or ["none"]))
        raise ValueError(
            f"{folder / 'config.json'}: architectures {found}: no head that gives one number a text; train "
            "one (a role with objective bradley_terry), or choose a sequence classifier of one label"
        )


def validate_context(folder: Path, max_model_len: int) -> None:
    """Raise ValueError where the model has fewer positions than it is asked for. Scaled ones (YaRN and its
    like) are left to the engine to judge.
    """
    config = _read_json(folder / "config.json")
    scaled = any("factor" in (config.get(key) or {}) for key in ("rope_scaling", "rope_parameters"))
    positions = min(
        (config[key] for key in POSITIONS if isinstance(config.get(key), int)), default=max_model_len
    )
    if not scaled and positions < max_model_len:
        raise ValueError(
            f"engine.max_model_len {max_model_len}: {folder / 'config.json'} has {positions} positions; "
            "ask for at most that"
        )


def _validate_weights(folder: Path) -> None:
    for index in INDEX_FILES:
        if (folder / index).is_file():
            named = _read_json(folder / index).get("weight_map")
            if not isinstance(named, dict):
                raise ValueError(
                    f"{folder / index}: no weight_map from weights to files; copy it from the original model"
                )
            shards = sorted(set(map(str, named.values())))
            missing = [name for name in shards if not _filled(folder / name)]
            if missing or not shards:
                raise ValueError(
                    f"{folder / index}: lists weights that are missing or empty: "
                    f"{', '.join(missing) or 'none at all'}"
                )
            break
    else:
        shards = [name for name in WEIGHT_FILES if _filled(folder / name)][:1]
        if not shards:
            raise ValueError(
                f"{folder}: no weights; expected {WEIGHT_FILES[0]} or {INDEX_FILES[0]} with its shards"
            )
    for name in shards:
        _validate_file(folder / name)


def _validate_file(path: Path) -> None:
    """That the weights are there whole: a copy that was cut off would be found out only when a GPU loads
    it.
    """
    with path.open("rb") as file:
        start = file.read(len(POINTER))
        if start == POINTER:
            raise ValueError(f"{path}: a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
        if path.suffix != ".safetensors":
            return
        try:
            file.seek(8)
            header = json.loads(file.read(min(int.from_bytes(start[:8], "little"), path.stat().st_size)))
            end = file.tell() + max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as e:
            raise ValueError(
                f"{path}: damaged, or cut off: its header cannot be read ({e}); copy it again"
            ) from e
    if path.stat().st_size < end:
        raise ValueError(f"{path}: cut off, it has {path.stat().st_size:,} of {end:,} bytes; copy it again")


def _read_json(path: Path) -> dict:
    if not _filled(path):
        raise ValueError(f"{path}: missing or empty")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        remedy = (
            "a Git LFS pointer: fetch the file with `git lfs pull`"
            if path.read_bytes().startswith(POINTER)
            else "copy it from the original model"
        )
        raise ValueError(f"{path}: not valid JSON ({e}); {remedy}") from e
    match content:
        case dict():
            return content
        case _:
            raise ValueError(f"{path}: expected a JSON object")


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
