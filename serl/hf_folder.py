"""Whether a folder is a Hugging Face causal language model with its tokenizer; decided from file names and JSON alone, no torch."""

import json
from pathlib import Path

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def model_folder(path: str, data_root: Path) -> Path:
    """Where a configuration's model lies: an absolute folder, or one of <data root>/models."""
    return Path(path) if Path(path).is_absolute() else data_root / "models" / path


def validate_model_folder(folder: Path) -> None:
    """Raise ValueError naming the first missing, empty or unreadable file of the model at `folder`."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such model folder; give a folder with config.json, weights and a tokenizer")
    config = _read_json(folder / "config.json")
    if "model_type" not in config:
        raise ValueError(f"{folder / 'config.json'}: no key model_type; this is not a Hugging Face model configuration")
    if not any(_filled(folder / name) for name in TOKENIZER_FILES):
        raise ValueError(f"{folder}: no tokenizer; add one of {', '.join(TOKENIZER_FILES)} (copy it from the original model)")
    _validate_weights(folder)


def _validate_weights(folder: Path) -> None:
    for index in INDEX_FILES:
        if (folder / index).is_file():
            shards = sorted(set(_read_json(folder / index).get("weight_map", {}).values()))
            missing = [name for name in shards if not _filled(folder / name)]
            if missing or not shards:
                raise ValueError(f"{folder / index}: lists weights that are missing or empty: {', '.join(missing) or 'none at all'}")
            return
    if not any(_filled(folder / name) for name in WEIGHT_FILES):
        raise ValueError(f"{folder}: no weights; expected {WEIGHT_FILES[0]} or {INDEX_FILES[0]} with its shards")


def _read_json(path: Path) -> dict:
    if not _filled(path):
        raise ValueError(f"{path}: missing or empty")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not valid JSON ({e})") from e
    match content:
        case dict():
            return content
        case _:
            raise ValueError(f"{path}: expected a JSON object")


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
