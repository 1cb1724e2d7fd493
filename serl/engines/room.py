"""How much memory an engine takes where there is no GPU, so that several can share a machine: its weights,
what any process of vLLM takes, and keys and values. From file headers and JSON alone, no torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serl.config.engine import Engine

PROCESS_BYTES = int(1.5 * 2**30)
"""What vLLM takes on a CPU beside weights and cache: code, activations, a copy while it loads."""
USUAL_BYTES = 4 * 2**30
"""Of keys and values, where there is more room than that: enough for many answers at once."""
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model: how many weights it has, and how many numbers it keeps for each token; 0 where that is not
    known.
    """

    weights: int
    kept_numbers: int

    def fixed_bytes(self, engine: Engine) -> int:
        return self.weights * _width(engine) + PROCESS_BYTES

    def longest_bytes(self, engine: Engine) -> int:
        """Keys and values of one text of `max_model_len`, without which vLLM does not start."""
        return self.kept_numbers * _width(engine) * engine.max_model_len

    def least_bytes(self, engine: Engine) -> int:
        """What one engine needs at least, or with the cache that its configuration asks for."""
        asked = engine.kv_cache_gib
        cache = self.longest_bytes(engine) if asked is None else int(asked * GIB)
        return self.fixed_bytes(engine) + cache

    def cache_gib(self, engine: Engine, room_bytes: int) -> float:
        """The cache of an engine that has so much memory for all of itself."""
        longest = self.longest_bytes(engine)
        room = int(engine.gpu_memory_utilization * room_bytes) - self.fixed_bytes(engine)
        return max(longest, min(room, max(longest, USUAL_BYTES)), 2**26) / GIB


def size_of(folder: Path) -> Size:
    """Of the model at `folder`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    return Size(weights=sum(map(elements, folder.glob("*.safetensors"))), kept_numbers=kept_numbers(config))


def kept_numbers(config: Mapping[str, object]) -> int:
    """Keys and values that a model keeps for each token, by its configuration; 0 where that does not say."""
    layers, heads = (
        _number(config, "num_hidden_layers", "n_layer"),
        _number(config, "num_attention_heads", "n_head"),
    )
    hidden = _number(config, "hidden_size", "n_embd")
    kv_heads = _number(config, "num_key_value_heads") or heads
    width = _number(config, "head_dim") or (hidden // heads if heads else 0)
    return 2 * layers * kv_heads * width


def elements(path: Path) -> int:
    """Numbers in a safetensors file by its header, else by its size: other checks say so."""
    try:
        with open(path, "rb") as f:
            header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        return path.stat().st_size // 2


def _width(engine: Engine) -> int:
    """Bytes of a number; `auto` is float32 on CPUs."""
    return 4 if engine.dtype in ("auto", "float32") else 2


def _number(config: Mapping[str, object], *names: str) -> int:
    return next((v for name in names if isinstance(v := config.get(name), int)), 0)
