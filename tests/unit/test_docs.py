"""READMEs are true: short, links that lead somewhere, commands that exist, a line for every module."""

import re
from pathlib import Path

import pytest

from serl import stages
from tests.conftest import ROOT

PACKAGES = ("jobs", "serl", "evaluation")
TOLD = ("jobs", "serl", "evaluation", "configs", "slurm", "tests")
READMES = [ROOT / "README.md", *sorted(p for folder in TOLD for p in (ROOT / folder).rglob("README.md"))]
KINDS = {ROOT / "serl/stages" / name for name in stages.built_in()}  # explained by their spec.py
AWAITED: set[str] = set()  # folders whose README is still to be written
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
MODULE = re.compile(r"(?:slurm/python|python) -m ((?:jobs|evaluation|serl)[a-z_.]*)\b(?!\.)")
SCRIPT = re.compile(r"(?:slurm/python|pytest) ((?:configs|tests)/[\w./-]+)")


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*.py") if p.name != "__init__.py"]


FOLDERS = sorted(
    folder
    for package in PACKAGES
    for folder in (ROOT / package, *(ROOT / package).rglob("*/"))
    if len(modules(folder)) > 2 and folder not in KINDS
)


def test_the_front_door_is_at_most_130_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("folder", FOLDERS, ids=where)
def test_a_folder_of_modules_has_a_readme_of_a_page(folder):
    readme = folder / "README.md"
    if readme.exists() or where(folder) not in AWAITED:
        assert len(readme.read_text().splitlines()) <= 70


@pytest.mark.parametrize("readme", READMES, ids=where)
def test_a_link_leads_to_a_file(readme):
    targets = [t for t in LINK.findall(readme.read_text()) if "://" not in t]
    assert [t for t in targets if not (readme.parent / t).exists()] == []


@pytest.mark.parametrize("readme", READMES, ids=where)
def test_a_command_names_what_exists(readme):
    text = readme.read_text()
    named = [m.replace(".", "/") for m in MODULE.findall(text)]
    missing = [m for m in named if not ((ROOT / m).is_dir() or (ROOT / f"{m}.py").is_file())]
    assert missing + [p for p in SCRIPT.findall(text) if not (ROOT / p.rstrip(".")).exists()] == []


@pytest.mark.parametrize("readme", [p for p in READMES if p.parent in FOLDERS], ids=where)
def test_a_readme_has_a_word_for_every_module(readme):
    """So that whoever looks for a thing finds its file, and a new file is told where it is looked for."""
    words = set(re.findall(r"[\w.]+", readme.read_text()))
    if readme.parent != ROOT / "jobs":  # whose modules are the verbs, by their names
        names = {p.name for p in modules(readme.parent)}
        assert [n for n in sorted(names) if n not in words and n.removesuffix(".py") not in words] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_line_is_wider_than_110_characters(package):
    wide = [
        f"{where(path)}:{number}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > 110
    ]
    assert wide == []
