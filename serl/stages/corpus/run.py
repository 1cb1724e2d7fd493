"""corpus: the toy world of round 0. Documents for the base model, its tokenizer, seeds, labelled problems
and held-out benchmarks.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl.config.base import Corpus, Scratch
from serl.engines.tokenizer import build_tokenizer
from serl.records import to_jsonl
from serl.run.rundir import Manifest
from serl.stages.work import DOCUMENTS, TOKENIZER, Work
from serl.text.problems import CORPUS_FILES
from serl.world import arithmetic, things

Document = arithmetic.Document | things.Document


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
    documents, files = (_things if base.corpus.world == "things" else _arithmetic)(base.corpus, seed)
    build_tokenizer(
        (d.prompt + d.completion for d in documents), base.architecture.vocabulary, folder / TOKENIZER
    )
    tokens = _write_documents(folder, documents)
    for name, rows in files.items():
        (folder / name).write_bytes(to_jsonl(row | {"id": f"{i:05d}"} for i, row in enumerate(rows)))
    return {"documents": len(documents), "tokens": tokens} | {
        f"documents_{k}": n for k, n in Counter(d.kind for d in documents).items()
    }


def _arithmetic(corpus: Corpus, seed: int) -> tuple[Sequence[Document], dict[str, list[dict]]]:
    """The documents, and the rows of each file of problems."""
    tests = arithmetic.test_problems(corpus.test_problems)
    choices = arithmetic.choice_problems(corpus.choice_problems)
    reported = {p.question for p in tests} | {c.problem.question for c in choices}
    validation = arithmetic.validation_problems(corpus.validation_problems, apart=reported)
    problems = {
        CORPUS_FILES["seeds"]: arithmetic.seed_problems(seed, corpus.seeds),
        CORPUS_FILES["problems"]: arithmetic.train_problems(seed, corpus.problems),
        "arithmetic.jsonl": tests,
        "arithmetic_validation.jsonl": validation,
    }
    rows = {
        name: [{"question": p.question, "answer": str(p.gold), "kind": p.kind} for p in found]
        for name, found in problems.items()
    }
    rows["arithmetic_choice.jsonl"] = [
        {
            "question": c.problem.question,
            "choices": list(c.options),
            "answer": c.gold,
            "subject": arithmetic.SUBJECT,
        }
        for c in choices
    ]
    mix = arithmetic.Mix(
        lists=corpus.list_share,
        choices=corpus.choice_share,
        direct_story=1 - corpus.steps_share,
        direct_expression=1 - corpus.steps_share_expressions,
    )
    return arithmetic.corpus(seed, corpus.documents, mix), rows


def _things(corpus: Corpus, seed: int) -> tuple[Sequence[Document], dict[str, list[dict]]]:
    """The same of the world of multiple choice."""
    tests = things.unseen_problems("tests", corpus.test_problems)
    reported = {p.question for p in tests}
    asked = {
        CORPUS_FILES["seeds"]: things.seed_problems(seed, corpus.seeds),
        CORPUS_FILES["problems"]: things.train_problems(seed, corpus.problems),
    }
    rows = {
        name: [{"question": p.question, "answer": p.gold} for p in found] for name, found in asked.items()
    }
    examined = {
        "things.jsonl": tests,
        "things_validation.jsonl": things.unseen_problems(
            "validation", corpus.validation_problems, apart=reported
        ),
    }
    rows |= {
        name: [{"question": p.stem, "choices": list(p.options), "answer": p.gold} for p in found]
        for name, found in examined.items()
    }
    mix = things.Mix(lists=corpus.list_share, guesses=1 - corpus.steps_share)
    return things.corpus(seed, corpus.documents, mix), rows


def _write_documents(folder: Path, documents: Sequence[Document]) -> int:
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
