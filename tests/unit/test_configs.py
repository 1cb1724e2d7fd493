"""Every shipped YAML loads, is coherent, and plans."""

import pytest

from evaluation.domain import Answers, MathAnswers
from jobs.plan.chain import bounds_of, plan
from jobs.plan.cluster import load_cluster
from jobs.sweeps.lanes import count
from jobs.sweeps.launching import draft_sweep
from jobs.sweeps.preview import savings
from serl.config.engine import Prompts, Quality
from serl.config.files import load, parse_yaml
from serl.config.read import load_run, revive
from serl.config.schema import Section
from serl.stages.kind import World
from tests.conftest import ROOT

FILES = sorted((ROOT / "configs").rglob("*.yaml"))


class DomainFile(Section):
    prompts: Prompts
    answers: Answers = MathAnswers()
    quality: Quality


def is_run(path) -> bool:
    """Run files name their run; base files, prompts and clusters do not, and sweeps are not runs."""
    return "name" in parse_yaml(path.read_text(), str(path)) and path.parent.name != "sweeps"


RUNS = [p for p in FILES if is_run(p)]


def label(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def test_there_are_configurations():
    assert ROOT / "configs/quickstart.yaml" in RUNS


@pytest.mark.parametrize("path", RUNS, ids=label)
def test_a_run_file_loads_and_plans(path):
    config = load_run(path)
    jobs = plan(config, lambda shard: False)
    assert jobs
    assert all(job.missing for job in jobs)
    assert sum(bounds_of(config, job, World(num_parameters=1000)).tokens for job in jobs) > 0
    assert config == load_run(path)
    assert config.digest() == revive(config.model_dump(mode="json")).digest()


@pytest.mark.parametrize("path", RUNS, ids=label)
def test_a_run_file_says_first_what_it_is(path):
    assert path.read_text().startswith("# "), "open with a comment that says what the experiment is"


def test_run_names_are_unique():
    names = [load_run(path).name for path in RUNS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=label)
def test_a_sweep_file_resolves_says_what_it_is_and_fits_the_example_cluster(path, tmp_path):
    draft = draft_sweep(path, tmp_path)
    assert path.read_text().startswith("# ") and len(draft.configs) > 1
    assert count(draft.config.cap, draft.configs, load_cluster("example")) > 1
    assert sum(wanted - computed for wanted, computed in savings(draft.keys).values()) > 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs/clusters").glob("*.yaml")), ids=label)
def test_a_cluster_file_loads(path):
    load_cluster(str(path))


@pytest.mark.parametrize("path", sorted((ROOT / "configs/prompts").glob("*.yaml")), ids=label)
def test_a_domain_file_says_how_its_questions_are_asked_and_read_and_nothing_else(path):
    load(DomainFile, path)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_file_is_forgotten(path):
    extended = {(p.parent / parent).resolve() for p in FILES for parent in _parents(p)}
    assert is_run(path) or path.resolve() in extended or path.parent.name in ("clusters", "sweeps", "prompts"), (
        "neither a run, nor a cluster, nor a domain, nor extended by any file"
    )


def _parents(path) -> list[str]:
    parents = parse_yaml(path.read_text(), str(path)).get("extends", [])
    return [parents] if isinstance(parents, str) else parents


@pytest.mark.parametrize("path", [p for p in RUNS if p.parent.name == "serl"], ids=label)
def test_a_template_scores_what_was_published_as_it_was_asked(path):
    """They used to leave MMLU-Pro 1,024 tokens for a prompt, five examples for a quarter of its problems, and to miss four of the paper's five sets."""
    config = load_run(path)
    score = config.giving(0, "grades").section
    assert set(score.benchmarks) == {
        "math_500",
        "math_hard",
        "asdiv",
        "college_math",
        "tabmwp",
        "mmlu_pro",
    }
    assert config.engine.max_model_len - score.max_tokens >= 2048, (
        "the official script's limit of a prompt"
    )


@pytest.mark.parametrize("path", [p for p in RUNS if p.parent.name == "selfplay"], ids=label)
def test_a_method_is_a_short_delta_over_a_base(path):
    lines = path.read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 25
