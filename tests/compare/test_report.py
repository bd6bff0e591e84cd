"""The report: one file that loads nothing, made from the executed notebook, the same from the same tables."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch

from paper_lib.__main__ import main
from paper_lib.compare.placing import REFERENCE
from paper_lib.compare.report import NOTEBOOK, html_report
from paper_lib.compare.run import REPORT
from paper_lib.training.checkpoints import save_checkpoint

pytestmark = pytest.mark.slow
LOADING = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor]) -> str:
    save_checkpoint({n: w.bfloat16() for n, w in tensors.items()}, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A trajectory of two snapshots with nulls, compared on the command line; one matrix is broken."""
    folder = tmp_path_factory.mktemp("report")
    generator = torch.Generator().manual_seed(0)
    blocks = {"q": "self_attn", "k": "self_attn", "up": "mlp"}
    names = [f"model.layers.0.{block}.{module}_proj.weight" for module, block in blocks.items()]
    weights = {name: torch.randn(64, 64, generator=generator) / 8 for name in names}
    base = checkpoint(folder / "base", weights)
    for step in (10, 20):
        weights = {n: w + 1e-3 * torch.randn(64, 64, generator=generator) for n, w in weights.items()}
        broken = {names[2]: torch.full((64, 64), torch.nan)} if step == 20 else {}
        end = checkpoint(folder / "run" / f"checkpoint-{step}", weights | broken)
    command = ["compare", base, end, "--trajectory", str(folder / "run"), "--nulls"]
    assert main([*command, "--learning-rate", "1e-4", "--out", str(folder / "out")]) == 1
    return folder / "out"


@pytest.fixture(scope="module")
def page(out) -> str:
    return (out / "report.html").read_text()


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "`<img src=y onerror=alert(2)>`**b**",
    "[x](javascript:alert(3))",
    "<svg onload=alert(4)>",
)


def test_a_name_from_a_checkpoint_or_a_folder_is_text(tmp_path):
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.0.self_attn.{module}_proj.weight" for module in "qkv"]
    weights = {name: torch.randn(32, 32, generator=generator) for name in names}
    odd = {f"{name}.weight": torch.ones(4, 4) for name in HOSTILE}
    base = checkpoint(tmp_path / "base<svg onload=alert(5)>", weights | odd)
    broken = {names[2]: torch.full((32, 32), torch.nan)}
    tuned = checkpoint(
        tmp_path / "tuned`<img src=z onerror=alert(6)>`", {n: w + 1e-2 for n, w in weights.items()} | broken
    )
    assert main(["compare", base, tuned, "--out", str(tmp_path / "out")]) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "alert(1)" in page
    assert "alert(6)" in page
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "svg", "iframe")
        assert not any(name.startswith("on") for name in attributes)
        assert not (attributes.get("href") or "").startswith("javascript")
        assert tag != "img" or (attributes["src"] or "").startswith("data:")
    policy = [attributes["content"] for tag, attributes in Page(page).tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_loads_nothing(page):
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for attribute, value in attributes.items():
            if attribute in LOADING:
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"url\(|@import|https?://", page)


def test_its_figures_have_words_and_it_fits_a_phone(page):
    images = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(images) == 3
    assert all(len(image["alt"] or "") > 30 for image in images)
    assert 'name="viewport" content="width=device-width' in page


def test_it_answers_and_says_what_failed_without_code(page):
    assert "this run lies" in page
    assert "1 more could not be measured" in page
    assert "entries not finite" in page
    for code in ("import ", "save_figure", "results_dir", "Exercises"):
        assert code not in page


def test_a_later_comparison_knows_all_that_it_consists_of(out):
    known = {path for pattern in REPORT for path in out.glob(pattern)}
    tables = {
        path
        for path in out.rglob("*")
        if path.suffix == ".parquet" or path.name in ("pairing.json", "summary.json")
    }
    assert {path for path in out.rglob("*") if path.is_file()} - tables == known


def test_the_same_notebook_gives_the_same_bytes_without_a_date(out, page):
    notebook = nbformat.read(out / "07_your_checkpoints.ipynb", as_version=4)
    assert html_report(notebook, out / "figures", "checkpoint-20 against base") == page
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d", page)


def test_a_built_package_has_all_that_a_report_needs(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    for name in (f"{NOTEBOOK}.py", REFERENCE.name):
        assert (tmp_path / "paper_lib" / "compare" / name).is_file()
