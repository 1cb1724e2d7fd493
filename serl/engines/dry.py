"""A dry load: whether a model can be trained, found out from its configuration and the headers of its files,
on torch's meta device, where weights have shapes and no memory.

`python -m serl.engines.dry FOLDER` prints why not, or nothing; launches ask it in a process of its own, since
they load no torch.
"""

import inspect
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import set_verbosity_error

from serl.engines.logits import bend_of
from serl.engines.model import Head, stored_plainly
from serl.engines.slices import Slices

META = torch.device("meta")
TOKENS = 4


def fault(folder: Path) -> str:
    """Why the model at `folder` cannot be trained; empty where it can."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device(META):
            lm = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, ImportError, OSError, TypeError, AttributeError, RuntimeError) as e:
        return f"transformers makes no causal language model of it ({_short(e)})"
    return _shape_fault(lm) or _files_fault(lm, folder) or _pass_fault(lm)


def _shape_fault(lm: PreTrainedModel) -> str:
    if not isinstance(lm.get_output_embeddings(), nn.Linear):
        return "it has no linear output layer, from which log-probabilities are computed"
    known = inspect.signature(lm.base_model.forward).parameters
    if "input_ids" not in known:
        return "its layers take no token ids"
    if lm.config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    return ""


def _files_fault(lm: PreTrainedModel, folder: Path) -> str:
    """Weights that the files lack, or have in another shape; where transformers stores them as they are."""
    if not stored_plainly(lm) or not any(folder.glob("*.safetensors")):
        return ""
    slices = Slices(folder)
    wrong = [name for name, p in lm.named_parameters() if slices.shape(name) not in (None, tuple(p.shape))]
    missing = [name for name, _ in lm.named_parameters() if slices.shape(name) is None]
    prefix = f"{lm.base_model_prefix}."
    missing = [name for name in missing if slices.shape(name.removeprefix(prefix)) is None]
    if wrong:
        return f"{wrong[0]} has the shape {slices.shape(wrong[0])} in its files, not the configuration's"
    return f"its files lack {len(missing)} weights, {missing[0]} among them" if missing else ""


def _pass_fault(lm: PreTrainedModel) -> str:
    """What goes wrong in a pass of a few tokens without numbers."""
    ids_BL = torch.zeros(1, TOKENS, dtype=torch.long, device=META)
    head = Head(lm.get_output_embeddings(), 1.0, bend_of(lm.config.get_text_config().to_dict()))
    try:
        with torch.no_grad():
            hidden_BLD = lm.base_model(input_ids=ids_BL, use_cache=False).last_hidden_state
            head(hidden_BLD.flatten(0, 1), ids_BL[0])
    except RuntimeError as e:
        return "" if "meta" in str(e).lower() else f"a pass fails ({_short(e)})"  # some look at numbers
    except (TypeError, ValueError, AttributeError) as e:
        return f"a pass fails ({_short(e)})"
    return ""


def _short(e: Exception) -> str:
    return f"{type(e).__name__}: {e}".split("\n")[0][:200]


def main(folder: Path) -> None:
    """The fault is the last line that is printed."""
    set_verbosity_error()
    print(f"\n{fault(folder)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
