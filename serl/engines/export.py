"""A trained model as a Hugging Face folder, written by all ranks: which weights are in which file depends on
their sizes alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from serl.engines.lora import is_adapter
from serl.engines.model import persistent_buffers, save_model, save_settings, stored_plainly
from serl.engines.slices import Sealed, write_slices
from serl.engines.zero import Plan, whole

Read = Callable[[str], Tensor]
MAX_FILE_BYTES = 2**31
ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def export_model(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    dtype: torch.dtype,
    folder: Path,
    read: Read | None = None,
) -> dict[str, Sealed]:
    """Write the folder; all ranks call it, for each weight is put together from all. The sizes and hashes of
    the weights' files.

    `read` says what each weight is, where that is not the parameter alone: of a model with adapters.
    A model that is stored otherwise than it is in memory is transformers' to write, by rank 0; it has no
    hashes yet.
    """
    if plan.ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        save_settings(lm, tokenizer, dtype, folder)
    plan.ranks.barrier()
    if not stored_plainly(lm):
        _export_whole(lm, tokenizer, plan, dtype, folder)
        return {}
    extra = persistent_buffers(lm)
    own = {name: p for name, p in lm.named_parameters() if not is_adapter(name)}
    sizes = {name: p.ds_numel if plan.stage == 3 else p.numel() for name, p in own.items()}
    files = layout({name: n * dtype.itemsize for name, n in sizes.items()}, MAX_FILE_BYTES)
    with ThreadPoolExecutor(1) as pool:  # a file is written while the next one's weights are gathered
        mine = {
            file: pool.submit(write_slices, folder / file, weights | (extra if number == 0 else {}))
            for number, (file, weights) in enumerate(_gathered(lm, plan, dtype, files, read))
            if number % plan.ranks.size == plan.ranks.rank
        }
    written = {file: future.result() for file, future in mine.items()}
    sealed = {name: seal for part in plan.ranks.gather(written) for name, seal in part.items()}
    if plan.ranks.first and len(files) > 1:
        _write_index(folder / INDEX, files, extra, sum(size for size, _ in sealed.values()))
    plan.ranks.barrier()
    return sealed


def layout(sizes: Mapping[str, int], max_bytes: int) -> dict[str, list[str]]:
    """Which weights each file has, in order: as many as go into `max_bytes`."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {ONE_FILE: groups[0]}
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups)}


def _gathered(
    lm: PreTrainedModel, plan: Plan, dtype: torch.dtype, files: Mapping[str, Sequence[str]], read: Read | None
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each file with its weights, put together from all ranks; only the rank whose turn the file is keeps
    them.
    """
    parameters = dict(lm.named_parameters())
    for number, (file, names) in enumerate(files.items()):
        mine = number % plan.ranks.size == plan.ranks.rank
        weights = {}
        for name in names:
            full = None if read else whole(parameters[name], plan.stage)
            if mine:
                weights[name] = (read(name) if read else full).to("cpu", dtype)
        yield file, weights


def _write_index(
    path: Path, files: Mapping[str, Sequence[str]], extra: Mapping[str, Tensor], size: int
) -> None:
    where = dict.fromkeys(extra, next(iter(files))) | {
        name: f for f, names in files.items() for name in names
    }
    path.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=1))


def _export_whole(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, plan: Plan, dtype: torch.dtype, folder: Path
) -> None:
    weights = {}
    for name, p in lm.named_parameters():
        full = whole(p, plan.stage)
        if plan.ranks.first:
            weights[name] = full.to("cpu", dtype)
    if plan.ranks.first:
        save_model(lm, tokenizer, weights, dtype, folder)
    plan.ranks.barrier()
