"""How published numbers were asked for: prompts and stop texts of other people's evaluations, kept to the
letter so that ours compare.

`native` is no protocol of ours to keep: there the run's own prompts and the model's chat template are used.

Qwen2.5-Math puts five worked examples before the questions of aqua, sat_math and mmlu_stem, joined by blank
lines inside the one user turn. They are somebody's text, of no stated licence, and are not repeated here: who
wants published figures of those three sets gives them as `score.preamble`; without it `qwen25_math` asks
without examples there, and its figures are not to be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Name = Literal["native", "serl", "qwen25_math"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A literal prompt with `{question}` in it, never put through a chat template; `max_tokens` and `source`
    are what it was run with.
    """

    template: str
    stop: tuple[str, ...]
    max_tokens: int
    source: str

    def prompt(self, question: str) -> str:
        return self.template.replace("{question}", question.strip(" ")).strip(" ")


_ENDS = ("</s>", "<|im_end|>", "<|endoftext|>")

PROTOCOLS: Mapping[str, Protocol] = {
    "serl": Protocol(
        template="{question}\n",
        stop=(*_ENDS, "\n\n\n"),
        max_tokens=1024,
        source="SeRL, Math-Benchmarks, prompt type pure; samples at T 1, top_p 0.95",
    ),
    "qwen25_math": Protocol(
        template=(
            "<|im_start|>system\nPlease reason step by step, and put your final answer within "
            "\\boxed{}.<|im_end|>\n"
            "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ),
        stop=_ENDS,
        max_tokens=2048,
        source="Qwen2.5-Math, prompt type qwen25-math-cot; the five examples for aqua, sat_math and "
        "mmlu_stem are for `score.preamble`",
    ),
}
