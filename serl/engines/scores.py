"""A scalar head on a language model: one number at each position that is read.

A reward model's number stands after the last token of a text, a critic's before each token of an answer.
Saved, it is a sequence classifier of one label, as transformers and vLLM know it. Shapes as in `model`.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from serl.engines.fused import compile_layers
from serl.learning.batch import Rows

HEAD = "score.weight"  # its name in every causal family of transformers


class Scores(nn.Module):
    """A model with a scalar head as a function from rows to the numbers at the positions that are read."""

    def __init__(self, lm: PreTrainedModel):
        super().__init__()
        self.lm = lm
        self.head = ScoreHead(lm.score)

    def compile_pieces(self, backend: str = "inductor") -> None:
        """From the first pass on, every layer is compiled."""
        compile_layers(self.lm, backend)

    def forward(self, rows: Rows) -> Tensor:
        """score_T in float32."""
        hidden_BLD = self.lm.base_model(
            input_ids=rows.token_BL, position_ids=rows.position_BL, use_cache=False, **rows.packing
        ).last_hidden_state
        return self.head(hidden_BLD.flatten(0, 1).index_select(0, rows.where_T))


class ScoreHead(nn.Module):
    """The layer's weights are registered here, so that ZeRO-3 gathers them when this is called."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight = layer.weight

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return nn.functional.linear(hidden_TD.float(), self.weight.float())[:, 0]


def first_head(num_hidden: int, seed: int) -> Tensor:
    """What a new head starts from, the same on every rank: N(0, 1 / (D + 1)) (arXiv 2009.01325)."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(num_hidden, generator=g) / (num_hidden + 1) ** 0.5
