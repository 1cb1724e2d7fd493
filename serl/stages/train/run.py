"""train: from the groups of a round to its policy; in round 0, from the corpus to the base model. One shard, as many ranks as the job has."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from serl.config.base import Scratch
from serl.config.training import Pretrain
from serl.engines.model import load_model, load_tokenizer, scratch_llama
from serl.engines.ranks import Ranks, join_ranks
from serl.engines.trainer import StepStats, Trainer, compute_dtype, frozen_logprobs
from serl.learning import algorithms, batch
from serl.learning.objective import ImitationLoss, Loss, mismatch
from serl.records import Group
from serl.run.attempt import Attempt
from serl.run.rundir import Manifest
from serl.run.signals import Preempted
from serl.safety.checkup import refusal
from serl.stages import read
from serl.stages.train.guard import check
from serl.stages.train.spec import KIND, Train
from serl.stages.work import DOCUMENTS, TOKENIZER, Work, corpus_dir, policy_dir

PART_SAMPLES = 4096  # whose log-probabilities are committed together
Forward = Callable[[Sequence[batch.Sample]], list[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is learned: samples in optimizer batches, the loss on them, and the counts for the manifest; `kept` are the groups of the difficulty band."""

    samples: Sequence[batch.Sample]
    batches: Sequence[Sequence[int]]
    loss: Loss
    counts: dict[str, float]
    kept: Sequence[Group] = ()


def run(work: Work) -> Manifest:
    """Publish `policy/`, a Hugging Face folder; every rank returns the manifest."""
    work.phase("join")
    ranks = join_ranks()
    work.phase("prepare")
    try:
        if not ranks.from_first(work.run.done(work.shard)):
            train = _imitate if isinstance(work.stage.section, Pretrain) else _reinforce
            train(work, ranks)
            ranks.barrier()
    finally:
        ranks.leave()
    manifest = work.run.manifest(work.shard)
    assert manifest is not None, f"{work.shard}: rank 0 returned without publishing"
    return manifest


def _imitate(work: Work, ranks: Ranks) -> None:
    """The base model: random weights, then next-token loss on the corpus."""
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
    trainer = Trainer(
        scratch_llama(base.architecture, tokenizer, seed),
        settings,
        ranks=ranks,
        horizon=len(batches),
        seed=seed,
    )
    lesson = Lesson(
        samples=samples, batches=batches, loss=ImitationLoss(), counts={"documents": len(samples)}
    )
    _teach(work, ranks, attempt, trainer, lesson, checkpoint_every=settings.checkpoint_every)
    _publish(work, ranks, attempt, trainer, tokenizer, lesson)


def _documents(path: Path, prompt_weight: float) -> list[batch.Sample]:
    table = pq.read_table(path)
    samples = []
    for ids, num_prompt in zip(table["token_ids"].to_pylist(), table["num_prompt"].to_pylist()):
        weight = torch.ones(len(ids) - 1)
        weight[: num_prompt - 1] = prompt_weight
        samples.append(batch.Sample(token_L=torch.tensor(ids), num_prompt=1, column={"weight": weight}))
    return samples


def _reinforce(work: Work, ranks: Ranks) -> None:
    """One round of policy optimisation on its kept groups."""
    config, round = work.run.config, work.shard.round
    settings, source = work.stage.section, KIND.data(work.stage, config)
    assert isinstance(settings, Train) and source is not None, "checked with the configuration"
    previous, digest = _start(work, settings)
    inputs = {f"{source.name}/{m.shard.index:05d}": m.digest for m in work.run.complete(round, source.name)}
    attempt = work.attempt({"policy": digest} | inputs)
    groups = read.groups(work.run, source, completions=True)
    if config.judged(round) == source:
        _look_first(work, ranks, groups)
    kept, fates = read.trainable(work.stage, source, groups)
    taught = kept[: settings.max_groups(source.section.samples)]
    samples = [_sample(g, i) for g in taught for i in range(len(g.completions))]
    batches = [
        b
        for epoch in range(settings.epochs)
        for b in batch.split_evenly(
            batch.sample_order(len(samples), config.seed, round, work.shard.stage, epoch),
            settings.batch_samples,
        )
    ][: settings.max_steps]
    tokenizer = load_tokenizer(previous)
    temperature = source.section.sampling.temperature
    work.phase("load")
    lm = load_model(previous, torch.float32, compute_dtype(settings))
    trainer = Trainer(
        lm,
        settings,
        ranks=ranks,
        horizon=max(1, len(batches)),
        seed=config.seed * 1000 + round,
        temperature=temperature,
    )
    counts: dict[str, float] = {f"groups_{name}": n for name, n in fates.items()} | {"samples": len(samples)}
    counts |= {} if samples else {"idle": 1.0}
    if samples:
        logp = _log_probabilities(work, ranks, attempt, trainer, samples, taught, temperature)
        gap = mismatch(logp.old_T, logp.behaviour_T)
        reward_GN = torch.tensor([g.rewards for g in taught])
        columns = algorithms.columns(
            settings.objective, reward_GN, logp, settings.loss_mean, settings.importance_cap
        )
        lesson = Lesson(
            samples=batch.attach(samples, columns),
            batches=batches,
            loss=algorithms.policy_loss(settings.objective),
            counts=counts | gap,
            kept=kept,
        )
        _teach(work, ranks, attempt, trainer, lesson, checkpoint_every=settings.checkpoint_every)
    else:
        lesson = Lesson(
            samples=[], batches=[], loss=algorithms.policy_loss(settings.objective), counts=counts, kept=kept
        )
    _publish(work, ranks, attempt, trainer, tokenizer, lesson)


def _start(work: Work, settings: Train) -> tuple[Path, str]:
    """The weights that are trained on, and their digest."""
    match settings.init:
        case "previous":
            return work.weights(settings.role)
        case "base":
            return policy_dir(work.run, 0)
        case role:
            return work.weights(role)


def _look_first(work: Work, ranks: Ranks, groups: Sequence[Group]) -> None:
    """Raise Unsafe, on every rank alike, where the round's data says that the policy to train on has collapsed."""
    unsafe = None
    if ranks.first:
        checkup = check(work.run, work.shard.round, groups)
        for alarm in checkup.alarms:
            work.events.add("alarm", rule=alarm.rule, action=alarm.action, sentence=alarm.sentence)
        unsafe = refusal(work.run, checkup)
    if unsafe := ranks.from_first(unsafe):
        raise unsafe


def _sample(group: Group, i: int) -> batch.Sample:
    return batch.Sample(
        token_L=torch.tensor(group.prompt_ids + group.completions[i].token_ids),
        num_prompt=len(group.prompt_ids),
        column={},
    )


def _log_probabilities(
    work: Work,
    ranks: Ranks,
    attempt: Attempt,
    trainer: Trainer,
    samples: Sequence[batch.Sample],
    taught: Sequence[Group],
    temperature: float,
) -> algorithms.LogProbs:
    """Of every response token under the round's first weights and the reference; computed once and kept in parts, so a resume is exact."""
    parts: list[np.ndarray] = []
    reference: Forward | None = None
    spent_s = longest_s = 0.0
    for number, begin in enumerate(range(0, len(samples), PART_SAMPLES)):
        saved = ranks.from_first(attempt.part(number) if ranks.first else None)
        if saved is None:
            _safe_point(work, ranks, longest_s)
            work.phase(f"log-probabilities {number + 1}")
            begun, mine = time.monotonic(), samples[begin : begin + PART_SAMPLES]
            reference = reference or _reference(work, ranks, temperature)
            old_T = torch.cat(trainer.logprobs(mine))
            both = np.stack(
                [old_T.numpy(), torch.cat(reference(mine)).numpy() if reference else old_T.numpy()]
            )
            saved = ranks.from_first(attempt.commit(number, _npy(both)) if ranks.first else None)
            longest_s = max(longest_s, time.monotonic() - begun)
            spent_s += time.monotonic() - begun
        parts.append(np.load(io.BytesIO(saved), allow_pickle=False))
    if spent_s:
        work.events.add("phase", name="log-probabilities", seconds=round(spent_s, 3))
    old_T, ref_T = torch.from_numpy(np.concatenate(parts, axis=1))
    behaviour_T = torch.tensor(
        [x for g in taught for c in g.completions for x in c.logprobs], dtype=torch.float32
    )
    return algorithms.LogProbs(
        old_T=old_T,
        ref_T=ref_T,
        behaviour_T=behaviour_T,
        length_S=torch.tensor([s.num_response for s in samples]),
    )


def _reference(work: Work, ranks: Ranks, temperature: float) -> Forward | None:
    """The KL's reference; None where that is the policy that training starts from."""
    settings = work.stage.section
    before = work.run.config.trained(work.stage, settings.role)
    from_base = settings.init == "base" or (settings.init == "previous" and not (before and before.round))
    if settings.reference == "previous" or from_base:
        return None
    base, _ = policy_dir(work.run, 0)
    return frozen_logprobs(base, settings, ranks=ranks, temperature=temperature)


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def _teach(
    work: Work, ranks: Ranks, attempt: Attempt, trainer: Trainer, lesson: Lesson, *, checkpoint_every: int
) -> None:
    """Every optimizer step that no checkpoint holds yet; leaves at a step boundary, all ranks together, when any was asked to."""
    checkpoints = attempt.folder / f"checkpoints.{attempt.key}"
    _safe_point(work, ranks)
    work.phase("resume")
    resumed = trainer.load(checkpoints)
    if resumed:
        work.events.add("resumed", step=resumed.step, rejected="; ".join(resumed.rejected))
    record = _recorder(work, ranks, trainer.step_index)
    start = time.monotonic()
    longest_s = save_s = 0.0
    for number in range(trainer.step_index, len(lesson.batches)):
        begun = time.monotonic()
        work.phase(f"step {number + 1}")
        stats = trainer.step([lesson.samples[i] for i in lesson.batches[number]], lesson.loss)
        record(stats)
        unfinished = stats.step < len(lesson.batches)
        longest_s = max(longest_s, time.monotonic() - begun)
        leave = unfinished and ranks.any(work.stop.due(longest_s + 2 * save_s))
        if leave or (unfinished and stats.step % checkpoint_every == 0):
            begun = time.monotonic()
            work.phase(f"save {stats.step}")
            trainer.save(checkpoints, {})
            save_s = max(save_s, time.monotonic() - begun)
        if leave:
            raise Preempted
        if ranks.first:
            work.progress(stats.step, len(lesson.batches), "steps")
    work.events.add("phase", name="steps", seconds=round(time.monotonic() - start, 3))


def _safe_point(work: Work, ranks: Ranks, next_s: float = 0.0) -> None:
    """Between two long phases nothing is in flight: all ranks leave here together, if any was asked to or has not `next_s` seconds left."""
    if ranks.any(work.stop.due(next_s)):
        raise Preempted


def _recorder(work: Work, ranks: Ranks, step: int) -> Callable[[StepStats], None]:
    """Rank 0 writes each step to the events and TensorBoard; `purge_step` hides what earlier attempts drew beyond the checkpoint, if any."""
    if not ranks.first:
        return lambda stats: None
    before = _steps_before(work)
    folder = work.run.root / "tensorboard" / ("base" if work.shard.round == 0 else work.shard.stage)
    board = SummaryWriter(str(folder), purge_step=before + step + 1)
    clock = time.monotonic()

    def record(stats: StepStats) -> None:
        nonlocal clock
        now = time.monotonic()
        numbers = {
            "loss": stats.loss,
            "lr": stats.lr,
            "grad_norm": stats.grad_norm,
            "tokens_per_s": stats.tokens / (now - clock),
        } | stats.means
        clock = now
        work.events.add("step", step=stats.step, **{k: float(f"{v:.6g}") for k, v in numbers.items()})
        for name, value in numbers.items():
            board.add_scalar(name, value, before + stats.step)
        board.flush()

    return record


def _steps_before(work: Work) -> int:
    """Optimizer steps of the stage in earlier rounds."""
    config, name = work.run.config, work.shard.stage
    earlier = [config.stage(r, name) for r in range(1, work.shard.round) if config.has(r, name)]
    return int(sum(m.counts["steps"] for stage in earlier for m in read.left(work.run, stage)))


def _publish(work: Work, ranks: Ranks, attempt: Attempt, trainer: Trainer, tokenizer, lesson: Lesson) -> None:
    folder = attempt.folder / f"policy.{work.attempt_id}"
    work.phase("export")
    trainer.export(folder, tokenizer)
    if ranks.first:
        if work.shard.round:
            read.write_kept(folder, lesson.kept)
        attempt.publish_folder(
            folder, "policy", lesson.counts | {"steps": trainer.step_index, "ranks": ranks.size}
        )
