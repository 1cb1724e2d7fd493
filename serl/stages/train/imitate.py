"""The base model: random weights, then next-token loss on the corpus."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from serl.config.base import Scratch
from serl.config.training import Pretrain
from serl.engines.model import load_tokenizer, scratch_llama
from serl.engines.ranks import Ranks
from serl.engines.trainer import Trainer
from serl.learning import batch
from serl.learning.objective import ImitationLoss
from serl.stages.train.course import Course
from serl.stages.train.spec import KIND
from serl.stages.work import DOCUMENTS, TOKENIZER, Work, corpus_dir


def imitate(work: Work, ranks: Ranks) -> None:
    base = work.run.config.base
    assert isinstance(base, Scratch), "round 0 trains only where the base is made from scratch"
    settings: Pretrain = base.train
    seed = work.run.config.seed if base.seed is None else base.seed
    source = KIND.data(work.stage, work.run.config)
    assert source is not None, "a base that is made has a corpus"
    (corpus,) = work.run.complete(source.round, source.name)
    attempt = work.attempt({"corpus": corpus.digest})
    tokenizer = load_tokenizer(corpus_dir(work.run) / TOKENIZER)
    samples = _documents(corpus_dir(work.run) / DOCUMENTS, settings.objective.prompt_weight)
    lengths = [s.num_response for s in samples]
    batches = [
        b
        for epoch in range(settings.epochs)
        for b in batch.split_by_tokens(
            batch.sample_order(len(samples), seed, 0, work.shard.stage, epoch), lengths, settings.batch_tokens
        )
    ]
    work.phase("load")
    lm = scratch_llama(base.architecture, tokenizer, seed)
    trainer = Trainer(lm, settings, ranks=ranks, horizon=len(batches), seed=seed)
    course = Course(work, ranks, attempt, trainer, total=len(batches))
    course.resume()
    loss, every = ImitationLoss(), settings.checkpoint_every
    for number in range(course.done, len(batches)):
        course.step([samples[i] for i in batches[number]], loss)
        course.rest({}, last=course.done == len(batches), due=course.done % every == 0)
    course.publish(tokenizer, {"documents": len(samples)})


def _documents(path: Path, prompt_weight: float) -> list[batch.Sample]:
    table = pq.read_table(path)
    samples = []
    for ids, num_prompt in zip(table["token_ids"].to_pylist(), table["num_prompt"].to_pylist()):
        weight = torch.ones(len(ids) - 1)
        weight[: num_prompt - 1] = prompt_weight
        samples.append(batch.Sample(token_L=torch.tensor(ids), num_prompt=1, column={"weight": weight}))
    return samples
