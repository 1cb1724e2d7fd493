"""How a policy is held and asked: vLLM's engine, sampling parameters, and the prompts of a domain."""

from typing import Literal

from pydantic import Field, JsonValue, field_validator

from serl.config.schema import Count, Fraction, Natural, Nucleus, Section
from serl.engines.arguments import check_vllm


class Engine(Section):
    """How vLLM holds a policy."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: Count
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0.0,
        description="fixed KV cache; set it on CPUs, where tasks share the memory. null: a share of the "
        "memory",
    )
    gpu_memory_utilization: Fraction = 0.9
    tensor_parallel: Count = 1
    eager: bool = Field(default=False, description="no graph capture: faster start, slower tokens")
    batch_invariant: bool = Field(
        default=False,
        description="on GPUs vLLM's kernels whose samples depend on nothing else in the batch, as on CPUs in "
        "float32: repeatable, and slower",
    )
    extra: dict[str, JsonValue] = Field(
        default={},
        description="more arguments of vLLM's engine, as they are: {max_num_seqs: 512, kv_cache_dtype: fp8}",
    )

    @field_validator("extra")
    @classmethod
    def _known(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_vllm(extra)
        return extra


class Sampling(Section):
    """Sampling parameters of one request."""

    temperature: float = Field(ge=0.0)
    top_p: Nucleus = 1.0
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    max_tokens: Count
    stop: tuple[str, ...] = ()


class Prompts(Section):
    """What the model is asked, for tokenizers with a chat template and without (`plain`); `{question}` is
    replaced literally.
    """

    propose_system: str
    propose_opening: str = Field(description="stands before the numbered list of shots")
    respond_system: str | None = None
    respond_user: str
    respond_plain: str

    template: dict[str, JsonValue] = Field(
        default={}, description="more arguments of the chat template, as they are: {enable_thinking: false}"
    )

    @field_validator("respond_user", "respond_plain")
    @classmethod
    def _has_question(cls, text: str) -> str:
        if text.count("{question}") != 1:
            raise ValueError(f"{text!r}: write {{question}} exactly once, where the question goes")
        return text


ASKED = frozenset({"respond_system", "respond_user", "respond_plain", "template"})
"""What of `Prompts` a question is asked with."""


class Quality(Section):
    """Which generated instructions are well-formed; each rejection is counted under its rule's name. What a
    domain bans stands in its file of configs/prompts.
    """

    min_words: Natural = 4
    max_words: Count = 150
    banned_words: tuple[str, ...] = ()
    banned_starts: tuple[str, ...] = ()
    ascii_start: bool = Field(
        default=True, description="the first character must be an ASCII letter, digit, '$' or backslash"
    )
