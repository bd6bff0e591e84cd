"""A figure is three files, the same bytes twice, and never empty."""

import hashlib
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tidy import results

from paper_lib.figures.panels import draw_chance, draw_trajectory
from paper_lib.figures.save import save_figure
from paper_lib.figures.seeds import draw_legend
from paper_lib.figures.words import tell
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import TABLES, write_table

pytestmark = pytest.mark.usefixtures("fresh_figures")


@pytest.fixture
def table_path(tmp_path):
    path = tmp_path / "results" / "smoke" / "matrices.parquet"
    write_table(results(), path, columns=TABLES["matrices"], fingerprint="ab" * 8)
    return path


def trajectory_figure():
    fig, ax = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
    draw_trajectory(ax, results(), "stable_rank")
    draw_chance(ax, 5.0)
    ax.set_ylabel("stable rank")
    draw_legend(fig)
    return fig


def test_a_figure_is_three_files_and_the_json_names_its_sources(tmp_path, table_path):
    svg = save_figure(
        trajectory_figure(),
        "fig4",
        tmp_path / "figures" / "smoke",
        inputs=[table_path],
        caption="A band.",
    )
    assert svg == tmp_path / "figures" / "smoke" / "fig4.svg"
    assert sorted(path.name for path in svg.parent.iterdir()) == ["fig4.json", "fig4.png", "fig4.svg"]
    about = json.loads(svg.with_suffix(".json").read_text())
    assert (about["figure"], about["profile"], about["caption"]) == ("fig4", "smoke", "A band.")
    (source,) = about["tables"]
    assert source["name"] == "smoke/matrices.parquet"
    assert source["rows"] == len(results())
    assert source["sha256"] == hashlib.sha256(table_path.read_bytes()).hexdigest()
    assert source["metadata"]["fingerprint"] == "ab" * 8
    assert {"paper_lib", "python", "torch", "matplotlib", "seaborn"} <= set(about["versions"])
    assert about["files"]["fig4.svg"] == hashlib.sha256(svg.read_bytes()).hexdigest()
    assert str(tmp_path) not in svg.with_suffix(".json").read_text()


def test_the_same_figure_twice_gives_the_same_bytes(tmp_path, table_path):
    for folder in ("a", "b"):
        save_figure(
            trajectory_figure(),
            "fig4",
            tmp_path / folder / "smoke",
            inputs=[table_path],
            caption="A band.",
        )
    for suffix in ("svg", "png", "json"):
        first, second = ((tmp_path / folder / "smoke" / f"fig4.{suffix}").read_bytes() for folder in "ab")
        assert first == second, suffix


def nothing():
    return plt.figure()


def drawn_and_not_told():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    return fig


def only_nan():
    fig, ax = plt.subplots()
    tell(ax, "OPD", [np.nan, np.inf])
    tell(ax, "path", [(np.nan, 1), (1, np.nan)])
    return fig


def only_chance():
    fig, ax = plt.subplots()
    draw_chance(ax, 0.3)
    return fig


def blank():
    fig, ax = plt.subplots()
    ax.set_axis_off()
    return fig


def one_panel_of_two():
    fig, (left, right) = plt.subplots(1, 2)
    tell(left, "OPD", 1)
    right.set_title("Hill")
    return fig


@pytest.mark.parametrize(
    "draw", [nothing, drawn_and_not_told, only_nan, only_chance, blank, one_panel_of_two]
)
def test_an_empty_figure_is_refused_and_nothing_is_written(tmp_path, table_path, draw):
    with pytest.raises(CompanionError, match=r"figure fig4 is empty") as caught:
        save_figure(draw(), "fig4", tmp_path / "figures", inputs=[table_path], caption="A band.")
    assert not (tmp_path / "figures").exists()
    assert draw is not one_panel_of_two or "panel 2 of 2 (Hill)" in str(caught.value)


def a_picture_with_its_colours(fig):
    ax = fig.subplots()
    fig.colorbar(ax.imshow(np.eye(2)), ax=ax)
    tell(ax, "density", [0, 1])


def a_line_and_a_blank(fig):
    left, right = fig.subplots(1, 2)
    tell(left, "OPD", [np.nan, 1])
    right.set_axis_off()


def a_sentence(fig):
    ax = fig.subplots()
    ax.set_axis_off()
    tell(ax, "no run with rotated heads")


@pytest.mark.parametrize("draw", [a_picture_with_its_colours, a_line_and_a_blank, a_sentence])
def test_whatever_tells_something_is_saved(tmp_path, table_path, draw):
    fig = plt.figure()
    draw(fig)
    assert save_figure(fig, "any", tmp_path, inputs=[table_path], caption="A band.").is_file()


def test_a_figure_from_a_missing_input_is_refused(tmp_path):
    for name in ("matrices.parquet", "claims.csv"):
        with pytest.raises(CompanionError, match=f"{name} does not exist"):
            save_figure(
                trajectory_figure(),
                "fig4",
                tmp_path,
                inputs=[tmp_path / name],
                caption="A band.",
            )
    assert list(tmp_path.iterdir()) == []
