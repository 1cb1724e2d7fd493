"""A small tokenizer made from a corpus, saved as a Hugging Face folder that `AutoTokenizer.from_pretrained`
and vLLM load like any other.

Byte-level BPE, so every text round-trips exactly; every digit is a token of its own, so numbers are read and
written digit by digit; `\\boxed{` is one piece. There is no chat template. Like Llama's, encoding puts the
begin-of-text token first; whoever builds a training document appends `eos_token_id`.
"""

from collections.abc import Iterable
from pathlib import Path

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PIECES = r" ?\\boxed\{| ?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]|\s"
MIN_VOCAB = 256 + 3


def build_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Learn at most `vocab_size` tokens (3 special, 256 bytes, then merges) from the texts and write the
    tokenizer files to `folder`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < MIN_VOCAB:
        raise ValueError(f"vocab_size is {vocab_size}; a byte-level vocabulary needs at least {MIN_VOCAB}")
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
