"""How long novelty takes: 3,000 candidates against 3,000 pool texts (and each other), ours against `rouge_score` one pair at a time.

The official implementation scores every candidate against every pool text with `rouge_score`, spread over a process pool that it opens anew for
each candidate. Here its scorer is timed in one process on a sample of the same pairs and scaled to all of them; the pools are left out, which
favours it. Run: python tests/bench/curate.py
"""

import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from serl.text.selfinstruct import novel

NUM_CANDIDATES, NUM_POOL, NUM_SAMPLED = 3000, 3000, 4000
NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas"]
THINGS = [
    "apples",
    "pencils",
    "marbles",
    "tickets",
    "stamps",
    "cookies",
    "books",
    "coins",
    "shells",
    "flowers",
    "kilometres",
    "litres",
]
OPENINGS = ["{n} has {a} {t}.", "A shop sells {t} for {a} dollars each.", "There are {a} {t} in each of {b} boxes.", "Let $x = {a}$ and $y = {b}$.",
            "A train travels {a} {t} in {b} hours.", "{n} and {m} share {a} {t} in the ratio {b}:{c}."]  # fmt: skip
MIDDLES = ["{n} gives {b} of them to {m}.", "Every day {m} adds {c} more.", "Then {b} percent of them are lost.", "Half of the rest go to {m}, who already has {c}.",
           "The price rises by {c} percent.", "After that, {n} buys {b} times as many {t} as {m}."]  # fmt: skip
ENDINGS = [
    "How many {t} are left?",
    "What is the total?",
    "Find the value of $x + y^{c}$.",
    "How many {t} does {m} have now?",
    "What fraction of the {t} remains?",
]


def problems(number: int, rng: random.Random) -> list[str]:
    """Word problems of 20 to 90 words, some alike, as a model writes them."""
    made = []
    for _ in range(number):
        sentences = [rng.choice(OPENINGS), *rng.choices(MIDDLES, k=rng.randint(1, 7)), rng.choice(ENDINGS)]
        words = {"n": rng.choice(NAMES), "m": rng.choice(NAMES), "t": rng.choice(THINGS)} | {
            k: rng.randint(2, 99) for k in "abc"
        }
        made.append(" ".join(s.format(**words) for s in sentences))
    return made


def main() -> None:
    rng = random.Random(0)
    pool, candidates = problems(NUM_POOL, rng), problems(NUM_CANDIDATES, rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    reasons = novel(candidates, pool, 0.7)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = [(rng.choice(pool), rng.choice(candidates)) for _ in range(NUM_SAMPLED)]
    start = time.process_time()
    for target, prediction in pairs:
        scorer.score(target, prediction)
    official_s = (time.process_time() - start) / NUM_SAMPLED * num_pairs(reasons)
    counts = Counter(reason or "novel" for reason in reasons)
    words = sum(len(t.split()) for t in candidates) / len(candidates)
    print(
        f"{NUM_CANDIDATES} candidates of {words:.0f} words on average against {NUM_POOL} pool texts and each other: {dict(counts)}"
    )
    print(
        f"ours: {seconds:.2f} s ({cpu_s:.2f} s of one core), {(peak - before) / 1024:.0f} MiB above {before / 1024:.0f} MiB"
    )
    print(
        f"official: {official_s:.0f} s of one core, scaled from {NUM_SAMPLED} pairs to {num_pairs(reasons)} (its pool of processes per candidate left out)"
    )
    print(f"ratio: {official_s / cpu_s:.0f}x")


def num_pairs(reasons: list[str | None]) -> int:
    """Pairs that the official way scores: each candidate with the pool and all that were kept before it."""
    kept, pairs = NUM_POOL, 0
    for reason in reasons:
        pairs += kept
        kept += reason is None
    return pairs


if __name__ == "__main__":
    main()
