"""corpus: the toy domain of round 0. Documents for the base model, its tokenizer, seeds, labelled problems
and held-out benchmarks.
"""

import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl.config.base import Corpus, Scratch
from serl.engines.tokenizer import build_tokenizer
from serl.records import to_jsonl
from serl.run.rundir import Manifest
from serl.stages.work import DOCUMENTS, TOKENIZER, Work
from serl.text.problems import CORPUS_FILES, GENERATED_BENCHMARKS
from serl.world import arithmetic


def run(work: Work) -> Manifest:
    base = work.run.config.base
    assert isinstance(base, Scratch), "a corpus shard is planned only for a base made from scratch"
    attempt = work.attempt({})
    built = attempt.folder / f"data.{work.attempt_id}"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    seed = work.run.config.seed if base.seed is None else base.seed
    counts = _write(built, base, seed)
    return attempt.publish_folder(built, "data", counts)


def _write(folder: Path, base: Scratch, seed: int) -> dict[str, float]:
    arithmetic_file, choice_file, validation_file = GENERATED_BENCHMARKS
    documents = arithmetic.corpus(seed, base.corpus.documents, _mix(base.corpus))
    build_tokenizer(
        (d.prompt + d.completion for d in documents), base.architecture.vocabulary, folder / TOKENIZER
    )
    tokens = _write_documents(folder, documents)
    _write_problems(folder / CORPUS_FILES["seeds"], arithmetic.seed_problems(seed, base.corpus.seeds))
    _write_problems(folder / CORPUS_FILES["problems"], arithmetic.train_problems(seed, base.corpus.problems))
    tests, choices = (
        arithmetic.test_problems(base.corpus.test_problems),
        arithmetic.choice_problems(base.corpus.choice_problems),
    )
    _write_problems(folder / arithmetic_file, tests)
    reported = {p.question for p in tests} | {c.problem.question for c in choices}
    _write_problems(
        folder / validation_file,
        arithmetic.validation_problems(base.corpus.validation_problems, apart=reported),
    )
    rows = [
        {
            "id": f"{i:05d}",
            "question": c.problem.question,
            "choices": list(c.options),
            "answer": c.gold,
            "subject": arithmetic.SUBJECT,
        }
        for i, c in enumerate(choices)
    ]
    (folder / choice_file).write_bytes(to_jsonl(rows))
    return {"documents": len(documents), "tokens": tokens} | {
        f"documents_{k}": n for k, n in Counter(d.kind for d in documents).items()
    }


def _mix(corpus: Corpus) -> arithmetic.Mix:
    return arithmetic.Mix(
        lists=corpus.list_share,
        choices=corpus.choice_share,
        direct_story=1 - corpus.steps_share,
        direct_expression=1 - corpus.steps_share_expressions,
    )


def _write_documents(folder: Path, documents: list[arithmetic.Document]) -> int:
    """Token ids of every document, and how many of them are its prompt; returns the number of tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
    prompts = tokenizer([d.prompt for d in documents])["input_ids"]
    completions = tokenizer([d.completion for d in documents], add_special_tokens=False)["input_ids"]
    rows = [p + c + [tokenizer.eos_token_id] for p, c in zip(prompts, completions)]
    table = pa.table(
        {
            "token_ids": pa.array(rows, pa.list_(pa.int32())),
            "num_prompt": pa.array(map(len, prompts), pa.int32()),
        }
    )
    pq.write_table(table, folder / DOCUMENTS, compression="zstd")
    return sum(map(len, rows))


def _write_problems(path: Path, problems: list[arithmetic.Problem]) -> None:
    rows = [
        {"id": f"{i:05d}", "question": p.question, "answer": str(p.gold), "kind": p.kind}
        for i, p in enumerate(problems)
    ]
    path.write_bytes(to_jsonl(rows))
