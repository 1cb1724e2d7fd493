"""score: a policy's answers to benchmark problems, graded. Greedy once, and sampled for pass@k and maj@k."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import balance, mmlu_pro
from evaluation.benchmark import Benchmark, Problem, load_problems, load_shots
from evaluation.grade import Rules, grade
from evaluation.protocols import PROTOCOLS
from evaluation.stored import Mode, Response
from evaluation.thinking import thought_counts
from evaluation.verifier import Verifier
from serl.config.engine import Prompts, Sampling
from serl.engines import generator
from serl.randomness import seed_of
from serl.records import Completion, from_jsonl, to_jsonl
from serl.run.rundir import Manifest, Run
from serl.stages.parts import in_parts, sampling_from
from serl.stages.score.spec import Score
from serl.stages.work import Work, corpus_dir
from serl.text.problems import fingerprint
from serl.text.prompts import Tokenizer, encode, question_prompt, text_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A problem, and the worked examples of its subject that may stand before it; `work` is its expected
    cost.
    """

    problem: Problem
    shots: tuple[Problem, ...]
    work: float


def run(work: Work) -> Manifest:
    """Publish graded responses: rows of `evaluation.grade.Grade`, which can be graded again without a
    model.
    """
    section = work.stage.section
    policy, digest = work.weights(section.role)
    asked = [item for name in section.asked for item in items(name, work.run, section)]
    texts = dict.fromkeys(p for item in asked for p in (item.problem, *item.shots))
    attempt = work.attempt({"policy": digest, "problems": fingerprint(texts)})
    mine = [
        asked[i] for i in balance.shards([item.work for item in asked], work.shard.count)[work.shard.index]
    ]
    rules = Rules(
        letters="official" if _as_published(section) else "native", thinking=work.run.config.answers.thinking
    )
    with Verifier(workers=work.cores, limit_s=section.limit_s) as verifier:

        def part(engine: generator.Generator, chosen: Sequence[Item]) -> bytes:
            return to_jsonl(
                grade([i.problem for i in chosen], _respond(work, engine, section, chosen), verifier, rules)
            )

        load = sampling_from(work, policy)
        data = b"".join(in_parts(work, attempt, load, mine, section.part_prompts, "problems", part))
    said = ((row["response"], row["tokens"]) for row in from_jsonl(data))
    counts = {"problems": len(mine)} | thought_counts(said, rules.thinking)
    return attempt.publish_bytes(".jsonl", data, data.count(b"\n"), counts)


def items(name: str, run: Run, section: Score) -> list[Item]:
    """The problems of a benchmark as this run asks them."""
    benchmark = section.described(name)
    folders: Sequence[Path] = (corpus_dir(run), run.data_root / "benchmarks")
    problems = load_problems(benchmark, folders)[: section.max_problems]
    shots = _shots_by_subject(benchmark, folders)
    return [
        _item(benchmark, section, p, tuple(shots.get(p.subject, [])[: section.choice_shots]))
        for p in problems
    ]


def _item(benchmark: Benchmark, section: Score, problem: Problem, shots: tuple[Problem, ...]) -> Item:
    num_chars = sum(len(p.question) + len(p.reasoning) + sum(map(len, p.choices)) for p in (problem, *shots))
    num_chars += len(section.preamble.get(benchmark.name, ""))
    length = min(section.max_tokens, benchmark.response_tokens)
    return Item(
        problem=problem, shots=shots, work=balance.expected_work(num_chars, length, 1 + section.samples)
    )


def _shots_by_subject(benchmark: Benchmark, folders: Sequence[Path]) -> dict[str, list[Problem]]:
    shots: dict[str, list[Problem]] = {}
    for shot in load_shots(benchmark, folders) if benchmark.kind == "choice" else ():
        shots.setdefault(shot.subject, []).append(shot)
    return shots


def _respond(
    work: Work, engine: generator.Generator, section: Score, chosen: Sequence[Item]
) -> list[Response]:
    """Every problem's greedy answer and samples. One that does not fit the context gets an empty answer: it
    counts, as unanswered.
    """
    prompts = [_prompt(work.run, engine, section, item) for item in chosen]
    responses: list[Response] = []
    greedy = Sampling(temperature=0.0, max_tokens=section.max_tokens)
    sampled = Sampling(temperature=section.temperature, top_p=section.top_p, max_tokens=section.max_tokens)
    modes: list[tuple[Mode, Sampling, int]] = [("greedy", greedy, 1), ("sample", sampled, section.samples)]
    for mode, sampling, num_samples in modes:
        for is_choice, stop in ((False, _stops(section)), (True, _choice_stops(section))):
            asked = [
                (i.problem, ids)
                for i, ids in zip(chosen, prompts)
                if (i.problem.kind == "choice") == is_choice
            ]
            if num_samples and asked:
                responses += _sampled(
                    work, engine, asked, sampling.model_copy(update={"stop": stop}), num_samples, mode
                )
    return responses


def _sampled(
    work: Work,
    engine: generator.Generator,
    asked: Sequence[tuple[Problem, list[int]]],
    sampling: Sampling,
    num_samples: int,
    mode: Mode,
) -> list[Response]:
    seed, round = work.run.config.seed, work.shard.round
    fitting = [(p, ids) for p, ids in asked if ids]
    seeds = [seed_of(seed, round, work.shard.stage, p.benchmark, p.id) for p, _ in fitting]
    outputs = engine.generate([ids for _, ids in fitting], sampling, num_samples=num_samples, seeds=seeds)
    nothing = Completion(token_ids=(), logprobs=(), text="", finish_reason="prompt_too_long")
    answered = [(p, out) for (p, _), out in zip(fitting, outputs)] + [
        (p, (nothing,) * num_samples) for p, ids in asked if not ids
    ]
    return [
        Response(
            benchmark=p.benchmark,
            id=p.id,
            sample=i,
            mode=mode,
            response=c.text,
            finish_reason=c.finish_reason,
            tokens=len(c.token_ids),
        )
        for p, out in answered
        for i, c in enumerate(out)
    ]


def _prompt(run: Run, engine: generator.Generator, section: Score, item: Item) -> list[int]:
    """Token ids that leave room for the answer; examples are dropped one by one to make it. Empty where even
    none fit.
    """
    room = engine.max_model_len - section.max_tokens
    if item.problem.kind != "choice":
        ids = _question(run.config.prompts, engine.tokenizer, section, item.problem)
        return ids if len(ids) <= room else []
    for used in range(len(item.shots), -1, -1):
        text = mmlu_pro.choice_prompt(item.problem, item.shots[:used], item.problem.subject)
        plain = _as_published(section)
        ids = (
            text_ids(engine.tokenizer, text)
            if plain
            else encode(
                engine.tokenizer, system=None, user=text, plain=text, template=run.config.prompts.template
            )
        )
        if len(ids) < room + (not plain):  # the official script leaves one token unused
            return ids
    return []


def _question(prompts: Prompts, tokenizer: Tokenizer, section: Score, problem: Problem) -> list[int]:
    preamble = section.preamble.get(problem.benchmark)
    question = f"{preamble}\n\n{problem.question}" if preamble else problem.question
    if section.protocol == "native":
        return question_prompt(tokenizer, prompts, question)
    return text_ids(tokenizer, PROTOCOLS[section.protocol].prompt(question))


def _as_published(section: Score) -> bool:
    """Whether lettered questions are asked and read literally as MMLU-Pro's own script does."""
    return section.choice_format == "plain" or section.protocol != "native"


def _choice_stops(section: Score) -> tuple[str, ...]:
    """The official text ends an answer where it begins a question of its own; a thought may quote the
    question.
    """
    return (mmlu_pro.STOP,) if _as_published(section) else ()


def _stops(section: Score) -> tuple[str, ...]:
    return () if section.protocol == "native" else PROTOCOLS[section.protocol].stop
