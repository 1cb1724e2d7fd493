"""A reward model on the real DeepSpeed, as one process and as two, against plain torch; and its folder, read by transformers."""

from pathlib import Path

import pytest
import score_ranks as job
import torch
import train_ranks
from test_trainer import base, run_ranks  # noqa: F401 (a fixture)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from serl.engines.scores import Scores
from serl.learning.batch import collate
from serl.learning.schedule import learning_rate

STAGES = ("zero_0", "zero_1", "zero_3")


@pytest.fixture(scope="module", params=[1, 2], ids=["one_rank", "two_ranks"])
def seen(request, base, tmp_path_factory) -> tuple[list[dict], Path]:  # noqa: F811
    out = tmp_path_factory.mktemp("scores") / "out"
    return run_ranks(request.param, base, out, script="score_ranks.py"), out


def oracle(folder: Path, before: list[float]) -> tuple[list[list[float]], list[float]]:
    """The same steps in plain torch, a pair at a time, from the language model and the head that ranks began with."""
    lm = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    from serl.engines.scores import first_head

    lm.score.weight.data.copy_(first_head(lm.config.hidden_size, train_ranks.SEED)[None])
    forward, samples, steps = Scores(lm), job.pairs(), []
    with torch.no_grad():
        assert torch.cat([forward(collate([s])) for s in samples]).tolist() == pytest.approx(before, abs=1e-5)
    matrices, others = [p for p in lm.parameters() if p.ndim > 1], [p for p in lm.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, betas=train_ranks.OPTIMIZER.betas)
    for number, start in enumerate((0, 8) * 3):
        total = right = 0.0
        for p in range(start, start + 8, 2):
            rows = collate(samples[p : p + 2])
            loss_sum, sums = job.LOSS(forward(rows), rows.column)
            (loss_sum / 8).backward()
            total, right = total + loss_sum.item() / 8, right + sums["pair_accuracy"].item() / 8
        norm = torch.nn.utils.clip_grad_norm_(lm.parameters(), train_ranks.OPTIMIZER.grad_clip).item()
        for group in adam.param_groups:
            group["lr"] = learning_rate(number, 6, train_ranks.OPTIMIZER)
        adam.step()
        adam.zero_grad()
        steps.append([total, norm, right])
    with torch.no_grad():
        return steps, torch.cat([forward(collate([s])) for s in samples]).tolist()


@pytest.mark.parametrize("stage", STAGES)
def test_pairs_stay_together_and_steps_follow_plain_torch(seen, stage):
    ranks, out = seen
    mine = ranks[0][stage]
    steps, after = oracle(out / f"policy_{stage[-1]}", mine["before"])
    for step, expected in zip(mine["steps"], steps, strict=True):
        assert step == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert mine["after"] == pytest.approx(after, abs=1e-3)
    assert all(r[stage] == mine for r in ranks)


@pytest.mark.parametrize("stage", STAGES)
def test_transformers_loads_the_folder_by_itself_a_batch_at_a_time(seen, stage):
    ranks, out = seen
    folder = out / f"reward_{stage[-1]}"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [s.token_L[:-1].tolist() for s in job.pairs()]
    padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    with torch.no_grad():
        scores = theirs(**padded).logits[:, 0].tolist()
    assert scores == pytest.approx(ranks[0][stage]["after"], abs=1e-4)
    assert ranks[0][stage]["asked"] == pytest.approx(ranks[0][stage]["after"], abs=1e-4)
