"""From questions and shots to the exact text or chat turns that a model is asked with."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Protocol

from serl.config.engine import Prompts

TODAY = date(2024, 7, 26)  # for chat templates that state the date: Llama's own, where it knows no clock


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prompts need."""

    chat_template: str | None
    bos_token_id: int | None
    eos_token_id: int | None

    def __call__(self, text: str) -> dict: ...

    def apply_chat_template(
        self,
        conversation: list[dict],
        *,
        add_generation_prompt: bool,
        return_dict: bool,
        strftime_now: Callable[[str], str],
        **arguments: object,
    ) -> list[int]: ...


def encode(
    tokenizer: Tokenizer,
    *,
    system: str | None,
    user: str,
    plain: str,
    template: Mapping[str, object] = MappingProxyType({}),
) -> list[int]:
    """Token ids of the chat turns where the tokenizer has a chat template, else of the plain text.

    `template` goes to the chat template as it is. Llama's templates tell the model what day it is; here that
    is always the same day, or a prompt would depend on when it was asked. A template that refuses a system
    turn (Gemma's) gets its text before the user's.
    """
    if tokenizer.chat_template is None:
        return text_ids(tokenizer, plain)

    def ids(turns: list[dict]) -> list[int]:
        return list(
            tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, strftime_now=TODAY.strftime, **template
            )
        )

    if not system:
        return ids([{"role": "user", "content": user}])
    try:
        return ids([{"role": "system", "content": system}, {"role": "user", "content": user}])
    except Exception:  # noqa: BLE001 (what is no matter of roles comes again)
        return ids([{"role": "user", "content": f"{system}\n\n{user}"}])


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text that a model is to continue: with the tokenizer's own BOS, once, and without an EOS
    that it adds by itself, behind which a model has nothing to say.
    """
    ids = list(tokenizer(text)["input_ids"])
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids = ids[1:]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def question_prompt(tokenizer: Tokenizer, prompts: Prompts, question: str) -> list[int]:
    return encode(
        tokenizer,
        system=prompts.respond_system,
        user=prompts.respond_user.replace("{question}", question),
        plain=prompts.respond_plain.replace("{question}", question),
        template=prompts.template,
    )


def propose_prompt(
    tokenizer: Tokenizer, prompts: Prompts, shots: Sequence[str], max_tokens: int
) -> tuple[list[int], int]:
    """A numbered list of shots that stops where the next item begins; also how many shots fitted.

    Where the prompt would exceed `max_tokens`, shots are dropped from the end: cutting the text would lose
    the number that asks for more.
    """
    for used in range(len(shots), 0, -1):
        items = [f"{i}. {one_line(shot)}" for i, shot in enumerate(shots[:used], 1)]
        text = "\n".join([prompts.propose_opening, *items, f"{used + 1}."])
        ids = encode(
            tokenizer, system=prompts.propose_system, user=text, plain=text, template=prompts.template
        )
        if len(ids) <= max_tokens:
            return ids, used
    return [], 0


def one_line(text: str) -> str:
    """White space collapsed; the case is kept, since in mathematics it carries meaning."""
    return " ".join(text.split())
