"""curate: keep what is new. Novelty is a property of the whole set, hence one task; it fixes ids and
order.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from serl.records import Candidate, Novelty, Problem, to_jsonl
from serl.run.rundir import Manifest
from serl.stages import read
from serl.stages.curate.spec import KIND
from serl.stages.fruitless import check_fruit, told_by
from serl.stages.work import Work, corpus_dir
from serl.text.problems import fingerprint, load_problems
from serl.text.selfinstruct import Twin, tidied, twins


def run(work: Work) -> Manifest:
    """Publish `instructions.jsonl`: novel against seeds, every instruction kept in earlier rounds, and each
    other; beside it, each candidate's fate.
    """
    config, round = work.run.config, work.shard.round
    section, source = work.stage.section, config.source(work.stage, KIND.reads_from)
    assert config.seeds is not None and source is not None, "checked with the configuration"
    proposed = read.left(work.run, source)
    before = [s for r in range(1, round) if (s := config.giving(r, KIND.gives))]
    earlier = {s.round: read.problems(work.run, s) for s in before}
    seeds = load_problems(config.seeds, data_root=work.run.data_root, corpus=corpus_dir(work.run))
    inputs = {"seeds": fingerprint(seeds)} | {
        f"{source.name}/{m.shard.index:05d}": m.digest for m in proposed
    }
    inputs |= {f"{s.name}/round_{s.round:03d}": work.run.complete(s.round, s.name)[0].digest for s in before}
    attempt = work.attempt(inputs)
    candidates = read.candidates(work.run, proposed)
    pool = [p.question for p in seeds] + [p.question for r in earlier.values() for p in r]
    found = twins([c.text for c in candidates], pool, section.max_rouge_l)
    fresh = [c for c, twin in zip(candidates, found) if twin is None]
    kept = [
        Problem(id=f"r{round:03d}-{i:06d}", question=tidied(c.text, config.answers))
        for i, c in enumerate(fresh[: section.max_instructions])
    ]
    counts = Counter(twin.reason if twin else "novel" for twin in found)
    counts.update(candidates=len(candidates), kept=len(kept), surplus=len(fresh) - len(kept))
    filters = chain(told_by(work, source), [(work.shard.stage, counts)])
    check_fruit(work, len(kept), "question", filters)
    return attempt.publish_bytes(
        ".jsonl",
        to_jsonl(kept),
        len(kept),
        counts,
        beside={".fates.jsonl": to_jsonl(_fates(candidates, found, kept))},
    )


def _fates(
    candidates: Sequence[Candidate], found: Sequence[Twin | None], kept: Sequence[Problem]
) -> list[Novelty]:
    """In the candidates' order; `kept` are the first of those without a twin."""
    ids = iter([p.id for p in kept])
    fates = []
    for _, twin in zip(candidates, found, strict=True):
        if twin:
            fates.append(Novelty(fate=twin.reason, like=twin.like, rouge_l=twin.rouge_l))
        else:
            id = next(ids, None)
            fates.append(Novelty(fate="kept" if id else "surplus", id=id))
    return fates
