"""curate: keep what is new. Novelty is a property of the whole set, hence one task; it fixes ids and order."""

from collections import Counter
from collections.abc import Sequence

from serl.records import Candidate, Novelty, Problem, from_jsonl, to_jsonl
from serl.run.rundir import Manifest, Run
from serl.stages import Work, corpus_dir
from serl.stages.propose.run import candidates_of
from serl.text.problems import fingerprint, load_problems
from serl.text.prompts import one_line
from serl.text.selfinstruct import Twin, twins


def run(work: Work) -> Manifest:
    """Publish `instructions.jsonl`: novel against seeds, every instruction kept in earlier rounds, and each other; beside it, each candidate's fate."""
    config, round = work.run.config, work.shard.round
    section = config.curate
    assert section is not None and config.seeds is not None, (
        "a curate shard is planned only for runs that propose"
    )
    proposed = work.run.complete(round, "propose")
    earlier = {r: instructions(work.run, r) for r in range(1, round)}
    seeds = load_problems(config.seeds, data_root=work.run.data_root, corpus=corpus_dir(work.run))
    inputs = {"seeds": fingerprint(seeds)} | {f"propose/{m.shard.index:05d}": m.digest for m in proposed}
    inputs |= {f"curate/round_{r:03d}": work.run.complete(r, "curate")[0].digest for r in earlier}
    attempt = work.attempt(inputs)
    candidates = [c for m in proposed for c in candidates_of(work.run.read(m))]
    pool = [p.question for p in seeds] + [p.question for r in earlier.values() for p in r]
    found = twins([c.text for c in candidates], pool, section.max_rouge_l)
    fresh = [c for c, twin in zip(candidates, found) if twin is None]
    kept = [
        Problem(id=f"r{round:03d}-{i:06d}", question=one_line(c.text))
        for i, c in enumerate(fresh[: section.max_instructions])
    ]
    counts = Counter(twin.reason if twin else "novel" for twin in found)
    counts.update(candidates=len(candidates), kept=len(kept), surplus=len(fresh) - len(kept))
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


def instructions(run: Run, round: int) -> list[Problem]:
    """What a round's curate kept, in order."""
    (manifest,) = run.complete(round, "curate")
    return [Problem(**row) for row in from_jsonl(run.read(manifest))]
