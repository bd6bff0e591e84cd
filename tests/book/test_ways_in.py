"""Binder, Colab, a container, JupyterLab: what can be checked of their configuration without them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from paper_lib.figures.execute import notebook_sources

ROOT = Path(__file__).parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_binder_takes_the_pinned_torch_and_python():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    versions = dict(each.split("=") for each in environment["dependencies"] if "=" in each)
    assert pinned()["torch"].startswith(versions["pytorch-cpu"] + ".")
    assert versions["python"] == yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0][7:]


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binder_can_run_its_scripts(name):
    script = ROOT / ".binder" / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_lab_and_binder_open_sources_as_notebooks():
    settings = json.loads((ROOT / ".binder" / "lab.json").read_text())
    viewers = settings["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]
    assert viewers == {"markdown": "Markdown Preview", "python": "Jupytext Notebook"}


def test_the_start_page_leads_to_every_notebook():
    page = (ROOT / "notebooks" / "start.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)]+)\)", page)
    assert linked == [path.name for path in notebook_sources(ROOT / "notebooks")]


def test_workflows_and_containers_call_what_make_has():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    book = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    steps = [step.get("run", "") for job in book["jobs"].values() for step in job["steps"]]
    script = (ROOT / ".ci" / "run").read_text()
    calls = re.findall(r"^ *make (.+)", "\n".join([*steps, script]), flags=re.MULTILINE)
    called = {word for call in calls for word in call.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert {"test", "figures", "check-book"} <= called
    assert called <= targets
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make .venv/.installed"
    assert "READY := $(VENV)/.installed" in (ROOT / "Makefile").read_text()
