"""propose: few-shot self-instruction. The policy continues numbered lists of known problems with problems of
its own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from serl.config.run import RunConfig
from serl.engines import generator
from serl.randomness import rng_of, seed_of
from serl.records import from_jsonl, share, to_jsonl
from serl.run.rundir import Manifest
from serl.stages.parts import in_parts, sampling_from
from serl.stages.read import kept_questions
from serl.stages.work import Work, corpus_dir
from serl.text.problems import fingerprint, load_problems
from serl.text.prompts import propose_prompt
from serl.text.selfinstruct import choose_shots, parse_list, rejection, tidied

MAX_REJECTED_CHARS = 1000  # of a rejected text, which is kept for people only


def run(work: Work) -> Manifest:
    """Publish `candidates.jsonl`: what was proposed, and which quality rule rejected what did not pass."""
    config, round = work.run.config, work.shard.round
    section = work.stage.section
    assert config.seeds is not None, "checked with the configuration"
    policy, digest = work.weights(section.role)
    kept, kept_inputs = kept_questions(work.run, before=round)
    problems = load_problems(config.seeds, data_root=work.run.data_root, corpus=corpus_dir(work.run))
    seeds = [p.question for p in problems]
    attempt = work.attempt({"policy": digest, "seeds": fingerprint(problems)} | kept_inputs)
    mine = share(range(section.prompts), work.shard.index, work.shard.count)

    def part(engine: generator.Generator, prompts: Sequence[int]) -> bytes:
        return to_jsonl(_part(work, engine, seeds, kept, prompts))

    load = sampling_from(work, policy)
    parts = in_parts(work, attempt, load, mine, section.part_prompts, "prompts", part)
    rows = from_jsonl(b"".join(parts))
    counts = sum((Counter(r["counts"]) for r in rows), Counter())
    candidates = [c for r in rows for c in r["candidates"]]
    return attempt.publish_bytes(".jsonl", to_jsonl(candidates), len(candidates), counts)


def _part(
    work: Work, engine: generator.Generator, seeds: list[str], kept: list[str], prompts: Sequence[int]
) -> Iterator[dict]:
    """One row per generation prompt: its candidates and the fates of its items."""
    config, round = work.run.config, work.shard.round
    section = work.stage.section
    encoded = []
    for p in prompts:
        shots = choose_shots(
            seeds,
            kept,
            section.seed_shots,
            section.kept_shots,
            rng_of(config.seed, round, work.shard.stage, p),
        )
        ids, used = propose_prompt(
            engine.tokenizer, config.prompts, shots, engine.max_model_len - section.sampling.max_tokens
        )
        encoded.append((p, ids, len(shots) - used))
    fitting = [(p, ids, dropped) for p, ids, dropped in encoded if ids]
    outputs = engine.generate(
        [ids for _, ids, _ in fitting],
        section.sampling,
        num_samples=1,
        seeds=[seed_of(config.seed, round, work.shard.stage, p) for p, _, _ in fitting],
    )
    continues = engine.tokenizer.chat_template is None
    for (p, _, dropped), (completion,) in zip(fitting, outputs):
        items = parse_list(
            completion.text, continues=continues, truncated=completion.finish_reason == "length"
        )
        yield _judged(p, items, dropped, config)
    if len(fitting) < len(encoded):
        yield {"candidates": [], "counts": {"prompts_too_long": len(encoded) - len(fitting)}}


def _judged(prompt: int, items: list[str], dropped_shots: int, config: RunConfig) -> dict:
    counts: Counter[str] = Counter(items=len(items), dropped_shots=dropped_shots)
    candidates = []
    for i, text in enumerate(tidied(item, config.answers) for item in items):
        reason = rejection(text, config.quality, config.answers)
        counts[reason or "accepted"] += 1
        shown = text if reason is None else text[:MAX_REJECTED_CHARS]
        candidates.append({"prompt": prompt, "item": i, "text": shown, "rejection": reason})
    return {"candidates": candidates, "counts": dict(counts)}
