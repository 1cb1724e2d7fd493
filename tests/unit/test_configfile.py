"""YAML to sections: inheritance, overrides, and messages that name file, key, value and remedy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from serl.config.files import ConfigError, load, parse_yaml
from serl.config.read import load_run
from serl.config.run import RunConfig
from serl.config.schema import Section
from tests.conftest import ROOT, phased


class Small(Section):
    rate: float = 1.0
    number: int = 0
    name: str = ""
    maybe: int | None = None


class Nested(Section):
    small: Small = Small()
    other: Small = Small()


def read(folder: Path, text: str, *overrides: str, model: type[BaseModel] = RunConfig, **others: str):
    for name, content in others.items():
        (folder / f"{name}.yaml").write_text(in_phases(content))
    (folder / "main.yaml").write_text(in_phases(text) if model is RunConfig else text)
    if model is RunConfig:
        return load_run(folder / "main.yaml", overrides)
    return load(model, folder / "main.yaml", overrides)


def in_phases(text: str) -> str:
    """Stages written at the top, which these tests like, moved into the phase; what is no YAML is left as it is."""
    try:
        tree = yaml.safe_load(text)
        return text if "phases" in tree else yaml.safe_dump(phased(tree), sort_keys=False)
    except (yaml.YAMLError, AttributeError, TypeError):
        return text


def short(error: BaseException) -> str:
    return str(error).replace("phases.self_play.", "")


@pytest.fixture
def base(tmp_path, small_tree) -> str:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(phased(small_tree), sort_keys=False))
    return "extends: base.yaml\n"


# ------------------------------------------------------------------------------------------------ values
@pytest.mark.parametrize("text", ["1e-6", "1E-6", "1.0e-6", "1.e-6", "+1e-6", ".000001"])
def test_every_spelling_of_a_small_number_is_a_number(tmp_path, text):
    assert read(tmp_path, f"rate: {text}", model=Small).rate == 1e-6


def test_numbers_of_an_override_are_numbers_too(tmp_path):
    assert read(tmp_path, "number: 1", "rate=1e-6", "number=3", model=Small) == Small(rate=1e-6, number=3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("1_000", 1000),
        ("-3", -3),
        ("1e3", 1000.0),
        ("abc", "abc"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_what_is_and_what_is_not_a_number(text, value):
    parsed = parse_yaml(text, "here")
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_date_is_a_text(tmp_path):
    """YAML 1.1 made a date of it, which no JSON holds."""
    assert read(tmp_path, "name: 2024-01-01", model=Small).name == "2024-01-01"


@pytest.mark.parametrize(
    "text",
    [
        "rate: .inf",
        "rate: .nan",
        "number: 1.5",
        "number: true",
        "number: '1'",
        "name: 3",
        "rate: '1.0'",
        "rate: yes",
    ],
)
def test_wrong_types_are_refused_and_never_converted(tmp_path, text):
    key, _, value = text.partition(": ")
    with pytest.raises(ConfigError, match=rf"main\.yaml: {key}: .*input should be"):
        read(tmp_path, text, model=Small)
    with pytest.raises(ConfigError, match=rf"override .{key}="):
        read(tmp_path, "number: 1", f"{key}={value}", model=Small)


# ------------------------------------------------------------------------------------------------ messages
@pytest.mark.parametrize(
    ("delta", "message"),
    [
        ("trian: {}", r"main.yaml: trian: unknown key; stages and rounds stand in a phase: did you mean train\?"),
        (
            "propose: {shard: 3}",
            r"main.yaml: propose.shard: unknown key \(value 3\); did you mean 'shards'\?",
        ),
        (
            "train: {objective: {kind: grpo, clipp: 0.1}}",
            r"main.yaml: train.objective.clipp: unknown key \(value 0.1\); did you mean 'clip'\?",
        ),
        (
            "train: {objective: {clipp: 0.1}}",
            r"main.yaml: train.objective.clipp: unknown key .* did you mean 'clip'\?",
        ),
        (
            "train: {optimizer: {zzz: 1}}",
            r"main.yaml: train.optimizer.zzz: unknown key \(value 1\); valid keys: betas, decay, grad_clip, lr",
        ),
        (
            "seeds: {kind: jsonl, paht: x}",
            r"main.yaml: seeds.paht: unknown key \(value 'x'\); did you mean 'path'\?",
        ),
        (
            "train: {objective: {kind: gpro}}",
            r"main.yaml: train.objective.kind: 'gpro' is unknown; choose one of 'reinforce_pp', 'rloo', 'grpo'",
        ),
        (
            "respond: {reward: {}}",
            r"main.yaml: respond.reward.kind: missing; choose one of 'majority', 'verified', 'random'",
        ),
        ("propose: {shards: two}", r"main.yaml: propose.shards: 'two': input should be a valid integer"),
        ("propose: {shards: 0}", r"main.yaml: propose.shards: 0: input should be greater than or equal to 1"),
        (
            "train: {agreement: [0.9, 0.1]}",
            r"main.yaml: train.agreement: \[0.9, 0.1\]: the low bound is above the high bound",
        ),
        (
            "prompts: {respond_user: hello}",
            r"main.yaml: prompts.respond_user: 'hello': write {question} exactly once",
        ),
        ("seeds: {kind: dataset}", r"main.yaml: seeds.name: missing; add this key"),
        ("train: {optimizer: {lr: null}}", r"main.yaml: train.optimizer.lr: missing"),
        ("name: a b", r"main.yaml: name: 'a b': string should match"),
        ("name: ../up", r"main.yaml: name: '../up': string should match"),
        ("stages: [propose, trane]", r"main.yaml: stages: trane is listed in stages but has no section"),
        (
            "respond: {problems: {per_round: 3, source: {kind: jsonl, path: x, qestion: y}}}",
            r"main.yaml: respond.problems.source.qestion: unknown .*'question'",
        ),
    ],
)
def test_an_error_names_file_key_value_and_remedy(tmp_path, base, delta, message):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, base + delta)
    assert re.search(message, short(error.value)), str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.objective.clipp=1",
            r"override 'train.objective.clipp=1': train.objective.clipp: unknown key",
        ),
        (
            "train.objective.kind=foo",
            r"override 'train.objective.kind=foo': train.objective.kind: 'foo' is unknown",
        ),
        (
            "seeds={path: x, kind: dataset}",
            r"override 'seeds={path: x, kind: dataset}': seeds.path: unknown key",
        ),
        ("base.kind=scratch", r"override 'base.kind=scratch': base.architecture: missing"),
        ("name.x=3", r"override 'name.x=3': name is 'small', not a section"),
        ("name", r"override 'name': write key=value"),
        ("=3", r"override '=3': write key=value"),
        ("a-b=3", r"override 'a-b=3': write key=value"),
        ("name=[a", r"override 'name=\[a': not valid YAML"),
        ("train=null", r"stages: train is listed in stages but has no section"),
    ],
)
def test_an_error_of_an_override_names_the_override(tmp_path, base, override, message):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, base, override)
    assert re.search(message, short(error.value)), str(error.value)


def test_the_parent_that_holds_the_wrong_value_is_the_file_that_is_named(tmp_path, base):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "extends: middle.yaml\nseed: 3\n", middle=base + "curate: {max_rouge_l: 7}\n")
    assert re.search(r"middle\.yaml: curate\.max_rouge_l: 7", short(error.value)), str(error.value)


def test_all_errors_are_told_at_once(tmp_path, base):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, base + "sead: 3\npropose: {shards: 0}\ntrain: {optimizer: {lr: -1}}\n")
    assert len(str(error.value).splitlines()) == 3


def test_merge_keys_and_endless_nesting_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(
        ConfigError, match=r"main\.yaml: not valid YAML: merge keys \(<<\) are not read; use `extends`"
    ):
        read(tmp_path, "small: &s {number: 1}\nother: {<<: *s}\n", model=Nested)
    with pytest.raises(ConfigError, match=r"main\.yaml: nested too deeply"):
        read(tmp_path, "name: " + "[" * 3000 + "]" * 3000, model=Small)


def test_duplicate_keys_are_refused_with_their_line(tmp_path, base):
    with pytest.raises(
        ConfigError, match=r"(?s)main\.yaml: not valid YAML: key 'clip' appears twice.*line 2"
    ):
        read(tmp_path, base + "phases: {self_play: {train: {objective: {clip: 1, clip: 2}}}}\n")


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "",
        "3",
        "a: [",
        "\x00",
        "1: 2",
        "[a]: 2",
        "{a: b}: 2",
        "a: &x {b: *x}",
        "a: !!python/object:os.system {}",
        "a: !!binary aGk=",
        "a: !!set {b}",
        'name: "\\ud800"',
    ],
)
def test_anything_that_is_not_a_plain_mapping_is_a_readable_error(tmp_path, text):
    with pytest.raises(ConfigError, match=r"main\.yaml"):
        read(tmp_path, text, model=Small)


def test_a_file_that_is_not_there_suggests_its_neighbours(tmp_path, base):
    with pytest.raises(
        ConfigError, match=r"bsae\.yaml: no such file \(extended by .*main\.yaml\); did you mean base\.yaml"
    ):
        read(tmp_path, "extends: bsae.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read"):
        load_run(tmp_path / "latin.yaml")


# ------------------------------------------------------------------------------------------------ inheritance
def test_a_chain_of_files_is_read_from_the_far_end_and_the_nearest_wins(tmp_path, base):
    c = read(
        tmp_path,
        "extends: b.yaml\nseed: 30\n",
        b="extends: a.yaml\nseed: 20\npropose: {prompts: 20}\n",
        a=base + "propose: {prompts: 10, seed_shots: 9}\n",
    )
    assert (c.seed, c.stage(1, "propose").section.prompts, c.stage(1, "propose").section.seed_shots, c.stage(1, "propose").section.shards) == (30, 20, 9, 2)


def test_of_several_parents_the_later_wins(tmp_path, base):
    c = read(tmp_path, "extends: [base.yaml, a.yaml, b.yaml]\n", a="seed: 10\nrounds: 7\n", b="seed: 20\n")
    assert (c.seed, c.rounds) == (20, 7)


def test_a_cycle_is_told_with_its_path(tmp_path):
    with pytest.raises(ConfigError, match="extends itself through main.yaml -> a.yaml -> main.yaml"):
        read(tmp_path, "extends: a.yaml", a="extends: main.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        read(tmp_path, "extends: main.yaml")


@pytest.mark.parametrize("value", ["3", "{a: b}", "[1]", "null"])
def test_extends_names_files(tmp_path, value):
    with pytest.raises(ConfigError, match="extends: .* is neither a file name nor a list of file names"):
        read(tmp_path, f"extends: {value}")


def test_null_takes_an_inherited_key_away(tmp_path, base):
    assert (
        read(tmp_path, base, "propose.prompts=9", "train.max_steps=3", "train.max_steps=null").stage(1, "train").section.max_steps
        is None
    )
    c = read(
        tmp_path,
        base
        + "stages: [respond, train]\npropose: null\ncurate: null\nrespond: {problems: {per_round: 2, source: {kind: jsonl, path: x}}}\n",
    )
    assert not c.has(1, "propose") and not c.has(1, "curate")


def test_a_section_that_changes_kind_is_replaced_whole_and_one_that_does_not_is_merged(tmp_path, base):
    c = read(
        tmp_path,
        "extends: a.yaml\ntrain: {objective: {kind: grpo}}\n",
        a=base + "train: {objective: {kind: rloo, clip: 0.5}}\n",
    )
    assert (c.stage(1, "train").section.objective.kind, c.stage(1, "train").section.objective.clip) == ("grpo", 0.2)
    c = read(
        tmp_path,
        "extends: a.yaml\ntrain: {objective: {kind: rloo, kl: 0.5}}\n",
        a=base + "train: {objective: {kind: rloo, clip: 0.5}}\n",
    )
    assert (c.stage(1, "train").section.objective.kl, c.stage(1, "train").section.objective.clip) == (0.5, 0.5)


def test_overrides_merge_by_the_same_rules_as_files(tmp_path, base):
    c = read(tmp_path, base, "train.objective.clip=0.5", "train.objective.kind=grpo", "seeds={gold: null}")
    assert (c.stage(1, "train").section.objective.kind, c.stage(1, "train").section.objective.clip) == ("grpo", 0.2)
    assert (c.seeds.path, c.seeds.gold) == ("seeds.jsonl", None)
    assert (
        read(tmp_path, base, "train.objective.kind=grpo", "train.objective.clip=0.5").stage(1, "train").section.objective.clip
        == 0.5
    )


def test_an_override_of_a_shared_anchor_changes_one_place(tmp_path):
    """The two sections are one object to the YAML reader."""
    c = read(tmp_path, "small: &s {number: 1}\nother: *s\n", "small.number=2", model=Nested)
    assert (c.small.number, c.other.number) == (2, 1)


def test_an_override_may_fill_a_section_that_was_null(tmp_path):
    assert read(tmp_path, "small: null\n", "small.number=2", model=Nested).small.number == 2


def test_the_later_of_two_overrides_wins(tmp_path):
    assert read(tmp_path, "number: 1", "number=2", "number=3", model=Small).number == 3


def test_a_configuration_is_utf8_whatever_the_locale(tmp_path):
    """Under an old `LANG=en_US` an accent became two other characters, and with it the prompt and the digest."""
    (tmp_path / "main.yaml").write_bytes("a: \u00e9tape \u2014\n".encode())
    code = "import sys; from pathlib import Path; from serl.config.files import read; print(ascii(read(Path(sys.argv[1])).tree))"
    env = os.environ | {"LC_ALL": "en_US", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    warned = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-c", code]
    said = subprocess.run([*warned, str(tmp_path / "main.yaml")], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == r"{'a': '\xe9tape \u2014'}"


def test_a_name_that_is_a_number_is_told_to_be_quoted(tmp_path):
    (tmp_path / "main.yaml").write_text("name: 2024\n")
    with pytest.raises(ConfigError, match="name: 2024: input should be a text, in quotes"):
        load(Small, tmp_path / "main.yaml")
    (tmp_path / "main.yaml").write_text('name: "2024"\n')
    assert load(Small, tmp_path / "main.yaml").name == "2024"
