"""Parameters whole, one bucket after the other, from weights that ZeRO may have split."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from transformers import PreTrainedModel

WITHOUT_OUTPUT_LAYER = ("gemma2",)  # in vLLM 0.32, whose Gemma 2 reads its embeddings for that
MAX_BUCKET_BYTES = 2**28  # of parameters that ZeRO-3 makes whole at a time


def whole_parameters(
    lm: PreTrainedModel,
    max_bytes: int = MAX_BUCKET_BYTES,
    named: Iterable[tuple[str, nn.Parameter]] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, or those given, as the forward pass has it, under its name; all ranks walk to the end.

    ZeRO-3 gathers at most `max_bytes` at a time, or one parameter; a tensor lives as long as somebody holds
    it. Tied embeddings come twice, also as the output layer, where vLLM 0.32 would keep the old ones; but for
    families of which it has no output layer at all, and takes none.
    """
    embedding, output = lm.get_input_embeddings(), lm.get_output_embeddings()
    twice = lm.config.model_type not in WITHOUT_OUTPUT_LAYER
    also = next(f"{name}.weight" for name, module in lm.named_modules() if module is output)
    for bucket in _buckets(lm.named_parameters() if named is None else named, max_bytes):
        split = [p for _, p in bucket if p.numel() == 0]
        if split:
            split[0].all_gather(split)
        for name, p in bucket:
            yield name, p.detach()
            if twice and p is embedding.weight and p is output.weight:
                yield also, p.detach()
        if split:
            split[0].partition(split)


def _buckets(
    parameters: Iterable[tuple[str, nn.Parameter]], max_bytes: int
) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """Parameters in their order, as many at a time as fit; one that is larger is alone."""
    bucket: list[tuple[str, nn.Parameter]] = []
    size = 0
    for name, p in parameters:
        num_bytes = getattr(p, "ds_numel", p.numel()) * p.element_size()
        if bucket and size + num_bytes > max_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, p))
        size += num_bytes
    if bucket:
        yield bucket
