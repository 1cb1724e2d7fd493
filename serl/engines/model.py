"""The language model: loading it, making a small one, and the log-probabilities of given tokens.

The only import of transformers beside the tokenizer's. A model can be had with its weights or hollow, for
others to fill. Knows nothing of ranks, optimizers or rounds. Shapes: B rows of L tokens, T response tokens of
all rows end to end, C of them at a time, D hidden, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.utils.logging import disable_progress_bar

from serl.config.base import Architecture
from serl.engines.fused import Pieces, TargetLogProbs, compile_layers
from serl.engines.hf_folder import HeadKind, validate_model_folder
from serl.engines.logits import CAPPED_SCORES, Bend, bend_of
from serl.engines.packed import attention
from serl.learning.batch import Rows

MAX_LOGIT_BYTES = 2**30  # of logits that are not kept
KEPT_LOGIT_BYTES = 2**32  # what the backward pass of MAX_LOGIT_BYTES takes in float32, copies and all
CPU = torch.device("cpu")


def load_model(
    folder: Path,
    dtype: torch.dtype,
    compute_dtype: torch.dtype,
    device: torch.device = CPU,
    head: HeadKind = "tokens",
    packing: bool | None = None,
) -> PreTrainedModel:
    """The model of a local folder, its weights in `dtype` on the CPU, with the attention that suits
    `compute_dtype` on `device`.
    """
    validate_model_folder(folder, head)
    disable_progress_bar()
    config = _config(folder, head)
    suits = attention_of(config, compute_dtype, device, packing)
    how = {"dtype": dtype, "attn_implementation": suits, "local_files_only": True}
    if head == "scalar":
        return AutoModelForSequenceClassification.from_pretrained(folder, config=config, **how)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, **how)


def hollow_model(
    folder: Path,
    dtype: torch.dtype,
    compute_dtype: torch.dtype,
    device: torch.device,
    head: HeadKind = "tokens",
    packing: bool | None = None,
) -> PreTrainedModel | None:
    """The same model with weights of a shape and no memory; None where its files are not simply its weights
    under their names.
    """
    validate_model_folder(folder, head)
    config = _config(folder, head)
    if "quantization_config" in config.to_dict() or config.get_text_config() is not config:
        return None
    how = {"dtype": dtype, "attn_implementation": attention_of(config, compute_dtype, device, packing)}
    auto = AutoModelForCausalLM if head == "tokens" else AutoModelForSequenceClassification
    with _weightless():
        model = auto.from_config(config, **how)
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model if stored_plainly(model) else None


def attention_of(
    config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, packing: bool | None
) -> str:
    """The attention that suits, where its scores may be capped: torch's kernels forget the cap without a
    word.
    """
    suits = attention(dtype, device, packing)
    capped = getattr(config.get_text_config(), CAPPED_SCORES, None) is not None
    return "eager" if capped and suits != "flash_attention_2" else suits


def _config(folder: Path, head: HeadKind) -> PreTrainedConfig:
    """The model's configuration, without dropout: with it (GPT-2, OPT) a policy's log-probabilities would
    differ from the sampler's by more than the update that they are to measure.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for key, value in config.to_dict().items():
        if key.endswith(("dropout", "pdrop")) and isinstance(value, float):
            setattr(config, key, 0.0)
    if head == "scalar":
        config.num_labels = 1
    return config


def stored_plainly(model: PreTrainedModel) -> bool:
    """Whether transformers stores the model's weights as they are, each under its own name."""
    return not get_model_conversion_mapping(model, add_legacy=False)


@contextmanager
def _weightless() -> Iterator[None]:
    """Parameters that are made here have no memory. Buffers, which are computed, are real."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, p: nn.Parameter | None) -> None:
        if p is not None and p.device.type != "meta":  # one that is tied stays the one it is
            p = nn.Parameter(p.to("meta"), p.requires_grad)
        register(module, name, p)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def scratch_llama(shape: Architecture, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Llama of random weights, a function of its shape, vocabulary and seed; embeddings tied. The caller's
    random state is left alone.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        initializer_range=shape.init_std,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_model(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    folder: Path,
) -> None:
    """Write a Hugging Face folder of the model with these weights in `dtype`, its tokenizer beside it; names
    and shapes as transformers stores them.
    """
    disable_progress_bar()
    save_settings(lm, tokenizer, dtype, folder)
    lm.save_pretrained(folder, state_dict=weights | persistent_buffers(lm))
    for path in folder.glob(
        "*.safetensors"
    ):  # written for the owner alone, whatever the umask; others read published policies too
        path.chmod((folder / "config.json").stat().st_mode)


def save_settings(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, folder: Path
) -> None:
    """Write all of a Hugging Face folder but the weights, which are in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    lm.config.dtype = str(dtype).removeprefix("torch.")
    lm.config.architectures = [type(lm).__name__]
    if lm.can_generate():
        lm.generation_config = _storable(lm.generation_config)
        lm.generation_config.save_pretrained(folder)
    else:
        _tell_padding(lm, tokenizer)
    lm.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tell_padding(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """So that transformers finds the last token of each text of a batch: what it reads a score at.

    Where padding is the end of text, that is not told: it would take the end of an answer for padding.
    """
    pad = tokenizer.pad_token_id
    lm.config.pad_token_id = None if pad == tokenizer.eos_token_id else pad


def persistent_buffers(lm: PreTrainedModel) -> dict[str, Tensor]:
    """The buffers that are stored beside the weights."""
    buffers = dict(lm.named_buffers())
    return {name: buffers[name].cpu() for name in lm.state_dict() if name in buffers}


def _storable(defaults: GenerationConfig) -> GenerationConfig:
    """Generation defaults that transformers agrees to write: of published ones that it reads but would refuse
    to write, the token ids alone.
    """
    try:
        defaults.validate(strict=True)
    except ValueError:
        return GenerationConfig(
            bos_token_id=defaults.bos_token_id,
            eos_token_id=defaults.eos_token_id,
            pad_token_id=defaults.pad_token_id,
        )
    return defaults


class TokenLogProbs(nn.Module):
    """A causal language model as a function from rows to the log-probabilities of their response tokens, at
    one temperature.
    """

    def __init__(self, lm: PreTrainedModel, temperature: float = 1.0):
        super().__init__()
        self.lm = lm
        bend = bend_of(lm.config.get_text_config().to_dict())
        self.head = Head(lm.get_output_embeddings(), temperature, bend)

    def compile_pieces(self, backend: str = "inductor") -> None:
        """From the first pass on, every layer and what reads the logits are compiled."""
        compile_layers(self.lm, backend)
        self.head.pieces.compile(backend)

    def forward(self, rows: Rows) -> Tensor:
        """logp_T in float32."""
        hidden_BLD = self.lm.base_model(
            input_ids=rows.token_BL, position_ids=rows.position_BL, use_cache=False, **rows.packing
        ).last_hidden_state
        return self.head(hidden_BLD.flatten(0, 1).index_select(0, rows.where_T), rows.target_T)


class Head(nn.Module):
    """The model's output layer: from hidden states to the log-probabilities of their targets.

    Logits of up to KEPT_LOGIT_BYTES stay for the backward pass, which makes them their gradient in place; of
    more tokens, at most MAX_LOGIT_BYTES exist at once and are computed again. The layer's weights are
    registered here, so that ZeRO-3 gathers them once for all chunks: of those ranks have different numbers,
    and a collective for each would meet none of its peers.
    """

    def __init__(self, layer: nn.Linear, temperature: float, bend: Bend = Bend()):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.temperature, self.bend = temperature, bend
        self.pieces = Pieces()

    def forward(self, hidden_TD: Tensor, target_T: Tensor) -> Tensor:
        token_bytes = len(self.weight) * hidden_TD.element_size()
        if torch.is_grad_enabled() and len(hidden_TD) * token_bytes <= KEPT_LOGIT_BYTES:
            return self._logp(hidden_TD, target_T)
        chunk = max(1, MAX_LOGIT_BYTES // token_bytes)
        if len(hidden_TD) <= chunk:
            return self._logp(hidden_TD, target_T)
        pairs = zip(hidden_TD.split(chunk), target_T.split(chunk))
        return torch.cat(
            [
                checkpoint(self._logp, hidden_CD, target_C, use_reentrant=False)
                for hidden_CD, target_C in pairs
            ]
        )

    def _logp(self, hidden_CD: Tensor, target_C: Tensor) -> Tensor:
        temperature = self.bend.temperature(self.temperature)
        return TargetLogProbs.apply(
            hidden_CD, self.weight, self.bias, target_C, temperature, self.pieces, self.bend
        )
