"""judge: what a model says of stored answers: one number each."""

from collections import Counter
from collections.abc import Callable, Sequence

from evaluation.judging import Judge
from serl.engines.hf_folder import validate_model_folder, validate_scored
from serl.engines.scorer import LogRatio, Scorer
from serl.randomness import part_of
from serl.records import Group, Pair, Scored, from_jsonl, share, to_jsonl
from serl.run.rundir import Manifest
from serl.stages import read
from serl.stages.answering import graded
from serl.stages.judge.figures import of_group, of_pair
from serl.stages.judge.spec import KIND, Head
from serl.stages.kind import Stage
from serl.stages.parts import in_parts
from serl.stages.work import Work, policy_dir


def run(work: Work) -> Manifest:
    """Publish `scores.jsonl`: the scores of each record's answers, in its order."""
    section, config = work.stage.section, work.run.config
    source = KIND.data(work.stage, config)
    assert source is not None, "checked with the configuration"
    load, models = _engine(work)
    inputs = {
        f"{source.name}/r{source.round:03d}/{m.shard.index:05d}": m.digest
        for m in work.run.complete(source.round, source.name)
    }
    attempt = work.attempt(models | inputs)
    mine = share(_records(work, source), work.shard.index, work.shard.count)

    def part(engine: Scorer | LogRatio, chosen: Sequence[Group | Pair]) -> bytes:
        return to_jsonl(judged(engine, chosen))

    data = b"".join(in_parts(work, attempt, load, mine, section.part_prompts, "questions", part))
    found = [row["scores"] for row in from_jsonl(data)]
    return attempt.publish_bytes(".jsonl", data, len(mine), _counts(work, mine, found))


def _engine(work: Work) -> tuple[Callable[[], Scorer | LogRatio], dict[str, str]]:
    """What loads who judges, and the digests of its weights."""
    section = work.stage.section
    how, (folder, digest) = section.reads, work.weights(section.role)
    place = {"device": work.device, "microbatch_tokens": section.microbatch_tokens}
    if isinstance(how, Head):
        validate_scored(folder)
        return lambda: Scorer(folder, **place), {section.role: digest}
    validate_model_folder(folder)
    of_base = how.reference == "base"
    reference, before = policy_dir(work.run, 0) if of_base else work.weights(how.reference)
    read = {"beta": how.beta, "steps": how.steps, "least": how.of == "least"}
    return lambda: LogRatio(folder, reference, **read, **place), {section.role: digest, "reference": before}


def judged(engine: Scorer | LogRatio, records: Sequence[Group | Pair]) -> list[Scored]:
    """The scores of all answers of some groups or pairs."""
    texts = [(r.prompt_ids, c.token_ids) for r in records for c in r.completions]
    found = iter(engine.judge(texts))
    return [Scored(id=r.id, scores=tuple(next(found) for _ in r.completions)) for r in records]


def _records(work: Work, source: Stage) -> list[Group] | list[Pair]:
    if source.gives == "pairs":
        found = read.pairs(work.run, source)
    else:
        found = [g for g in read.groups(work.run, source, completions=True) if g.own]
    return part_of(found, work.stage.section.questions, work.run.config.seed)


def _counts(work: Work, mine: Sequence[Group | Pair], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    counts: Counter[str] = Counter(records=len(mine), texts=sum(map(len, scores)))
    counts["tokens"] = sum(len(r.prompt_ids) + len(c.token_ids) for r in mine for c in r.completions)
    for record, found in zip(mine, scores):
        if isinstance(record, Pair):
            counts.update(of_pair(record, found))
    known = [i for i, r in enumerate(mine) if isinstance(r, Group) and r.gold is not None]
    how = work.run.config.answers
    with Judge(how, workers=work.cores, limit_s=work.stage.section.limit_s) as reader:
        correct = graded(reader, [mine[i] for i in known])
    for at, i in enumerate(known):
        counts.update(of_group(mine[i], correct[at], scores[i]))
    return dict(counts)
