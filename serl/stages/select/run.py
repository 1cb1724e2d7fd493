"""select: a new set from stored answers: pairs to compare, or the right ones to imitate."""

from collections import Counter
from collections.abc import Iterator, Sequence

from evaluation.judging import Judge
from serl.engines.model import load_tokenizer
from serl.randomness import part_of, rng_of
from serl.records import Group, groups_to_parquet, pairs_to_parquet
from serl.run.attempt import Attempt
from serl.run.rundir import Manifest, RunError
from serl.stages import read
from serl.stages.answering import graded
from serl.stages.kind import Stage
from serl.stages.select.choose import Worth, chosen
from serl.stages.select.gate import gated
from serl.stages.select.given import longest, tokenized
from serl.stages.select.spec import KIND, By, FromPeople, Gate, Given, Select, Written
from serl.stages.work import Work, policy_dir
from serl.text.pairs import load_pairs, load_texts
from serl.text.problems import fingerprint

AT_ONCE = 1024  # groups whose tokens are in memory


def run(work: Work) -> Manifest:
    """Publish `pairs.parquet`, or groups of right answers."""
    config, section = work.run.config, work.stage.section
    source, scored = KIND.data(work.stage, config), KIND.scored(work.stage, config)
    if isinstance(section.choose, FromPeople):
        return _from_people(work, section.choose)
    assert source is not None, "checked with the configuration"
    attempt = work.attempt(
        {
            f"{s.name}/r{s.round:03d}/{m.shard.index:05d}": m.digest
            for s in KIND.reads(work.stage, config)
            for m in work.run.complete(s.round, s.name)
        }
    )
    scores = read.scores(work.run, scored) if scored else {}
    if isinstance(section.choose, Gate):
        return _gated(work, attempt, source, scores)
    groups = _looked_at(read.groups(work.run, source, completions=True), section, config.seed)
    says = scored.kind.uses(scored.section)[0] if scored else section.choose.by
    found, counts = [], Counter(questions=len(groups))
    with Judge(config.answers, workers=work.cores, limit_s=section.limit_s) as reader:
        for group, correct in zip(groups, _correct(reader, groups), strict=True):
            worth = _worth(group, section.choose.by, correct, scores, scored)
            rng = rng_of(config.seed, work.shard.round, work.shard.stage, group.id)
            mine, lost = chosen(group, worth, correct, section.choose, says, rng)
            found += mine
            counts.update(lost)
    return _publish(attempt, work.stage, found, counts)


def _from_people(work: Work, choice: Given | Written) -> Manifest:
    """What people wrote, in the tokens of the base model."""
    config, section, run = work.run.config, work.stage.section, work.run
    load = load_pairs if isinstance(choice, Given) else load_texts
    texts = load(choice.source, run.data_root)
    folder, digest = policy_dir(run, 0)
    attempt = work.attempt({"base": digest, "texts": fingerprint(texts)})
    mine = part_of(texts, section.questions, config.seed)
    tokenizer = load_tokenizer(folder)
    found = [tokenized(text, tokenizer, config.prompts) for text in mine]
    kept = [record for record in found if longest(record) <= choice.max_tokens]
    counts = Counter(questions=len(mine), too_long=len(found) - len(kept))
    return _publish(attempt, work.stage, kept, counts)


def _gated(work: Work, attempt: Attempt, source: Stage, scores: dict[str, Sequence[float]]) -> Manifest:
    """What earlier rounds took, or what is labelled, and what the gate takes now."""
    choice, config = work.stage.section.choose, work.run.config
    before = KIND.first(work.stage, config)
    taken = read.pairs(work.run, before) if before else []
    ids = {p.id for p in taken}
    pool = [p for p in read.pairs(work.run, source) if p.id not in ids]
    if missing := [p.id for p in pool if p.id not in scores]:
        raise RunError(f"pair {missing[0]} of {source.name} was not scored; have {source.name} judged")
    says = KIND.scored(work.stage, config).section.role
    rng = rng_of(config.seed, work.shard.round, work.shard.stage)
    new, counts = gated(pool, [scores[p.id] for p in pool], choice, says, rng)
    return _publish(attempt, work.stage, [*taken, *new], counts)


def _publish(attempt: Attempt, stage: Stage, found: Sequence, counts: Counter[str]) -> Manifest:
    if stage.gives == "answers":
        counts.update(answers=sum(len(g.rewards) for g in found))
        return attempt.publish_bytes(".parquet", groups_to_parquet(found), len(found), dict(counts))
    told = [p.right for p in found if p.right is not None]
    counts |= {"pairs": len(found), "audited": len(told), "right": sum(told)}
    return attempt.publish_bytes(".parquet", pairs_to_parquet(found), len(found), dict(counts))


def _looked_at(groups: Sequence[Group], section: Select, seed: int) -> list[Group]:
    """The share of the questions that the section asks for, the same for every stage of a run."""
    return part_of([g for g in groups if g.own], section.questions, seed)


def _correct(reader: Judge, groups: Sequence[Group]) -> Iterator[Worth]:
    """Of each group what the gold answer says of each answer: 1, 0, or None where it could not be decided."""
    for start in range(0, len(groups), AT_ONCE):
        mine = groups[start : start + AT_ONCE]
        truth = graded(reader, mine)
        for i, group in enumerate(mine):
            found = truth.get(i)
            if found is None:
                yield [None] * len(group.answers)
            else:
                yield [_truth(answer, verdict) for answer, verdict in zip(group.answers, found)]


def _truth(answer: str | None, verdict: bool | None) -> float | None:
    """What gave no answer is wrong; what could not be compared in time is neither."""
    if answer is None:
        return 0.0
    return None if verdict is None else float(verdict)


def _worth(
    group: Group, by: By, correct: Worth, scores: dict[str, Sequence[float]], scored: Stage | None
) -> Worth:
    match by:
        case "gold":
            if group.gold is None:
                raise RunError(f"question {group.id} has no gold answer; choose by reward or scores")
            return correct
        case "reward":
            return group.rewards
        case "scores":
            if group.id not in scores:
                raise RunError(
                    f"question {group.id} was not scored by {scored.name}; have it score what is chosen from"
                )
            return scores[group.id]
