"""Answers read as columns are the answers, whatever files and row groups they came in."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from report_run import group

from serl import records
from serl.learning.batch import attach
from serl.learning.columns import Samples, read_answers
from serl.records import Group, groups_to_parquet


def make_groups(count: int) -> list[Group]:
    import dataclasses

    made = []
    for i in range(count):
        one = group(str(i), [0, 0, 1])
        completions = tuple(
            dataclasses.replace(
                c, token_ids=tuple(range(i, i + j + i % 3)), logprobs=(-0.5 * j,) * (j + i % 3)
            )
            for j, c in enumerate(one.completions)
        )
        made.append(dataclasses.replace(one, prompt_ids=tuple(range(1 + i % 4)), completions=completions))
    return made


def test_samples_are_those_of_the_groups_that_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "ROW_GROUP", 2)
    groups = make_groups(9)
    (tmp_path / "g.parquet").write_bytes(groups_to_parquet(groups[5:]))
    kept = [i % 3 != 1 for i in range(9)]
    answers = read_answers([groups_to_parquet(groups[:5]), tmp_path / "g.parquet"], kept)
    samples, chosen = Samples(answers), [g for g, k in zip(groups, kept) if k]
    assert len(samples) == 3 * len(chosen)
    for i, sample in enumerate(samples):
        g, c = chosen[i // 3], chosen[i // 3].completions[i % 3]
        assert (sample.token_L.tolist(), sample.num_prompt) == (
            [*g.prompt_ids, *c.token_ids],
            len(g.prompt_ids),
        )
    assert answers.behaviour_T.tolist() == [x for g in chosen for c in g.completions for x in c.logprobs]
    assert answers.length_S.tolist() == [s.num_response for s in samples]
    column = {"weight": torch.arange(len(answers.token_T))}
    for a, b in zip(samples.attach(column), attach(list(samples), column), strict=True):
        assert torch.equal(a.column["weight"], b.column["weight"]) and torch.equal(a.token_L, b.token_L)
    assert [s.num_prompt for s in samples[2:5]] == [samples[i].num_prompt for i in (2, 3, 4)]


def test_nothing_kept_is_no_sample():
    groups = make_groups(3)
    assert len(Samples(read_answers([groups_to_parquet(groups)], [False] * 3))) == 0
