"""Every run has a look of its own that stays apart in every vision, and runs stand in one order."""

from collections.abc import Sequence
from itertools import combinations, pairwise

import colorspacious
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from paper_lib.figures.styles import (
    NULL,
    OPD,
    ORANGE,
    PURPLE,
    RLVR,
    RUN_STYLE,
    SFT,
    blend,
    in_order,
    run_style,
)
from paper_lib.ledger.pictures import MARKS
from paper_lib.study.profiles import get_profile

pytestmark = pytest.mark.usefixtures("fresh_figures")
APART = 10.0
VISIONS = ("usual", "deuteranomaly", "protanomaly", "tritanomaly")  # all at severity 100
DRAWN_TOGETHER = {
    "runs": [SFT, OPD, RLVR, NULL, "black", "white"],
    "masks": ["white", PURPLE, ORANGE, "black"],
    "precisions": ["black", ORANGE, PURPLE, NULL],
    "objectives": [SFT, OPD, RLVR, ORANGE, NULL],
    "verdicts": sorted({mark["color"] for mark in MARKS.values()}),  # those of one colour differ in marker
}


def test_the_objectives_keep_their_colours():
    assert [run_style(run).color for run in ("sft", "opd", "rlvr")] == [SFT, OPD, RLVR]
    assert run_style("mix_1").color == OPD.lower()
    assert run_style("mix_0").color == RLVR.lower()
    assert run_style("mix_0.05").label == r"mix, $\alpha$ = 0.05"
    assert run_style("a_new_run").label == "a new run"
    looks = [(style.color, style.linestyle, style.marker) for style in RUN_STYLE.values()]
    assert len(set(looks)) == len(looks)
    assert len({style.label for style in RUN_STYLE.values()}) == len(RUN_STYLE)


def test_every_run_of_the_study_has_a_look_of_its_own():
    looks = {run.name: run_style(run.name) for run in get_profile("reference").everything}
    assert [name for name, look in looks.items() if look.color == "black"] == []
    assert len({(look.color, look.linestyle, look.marker) for look in looks.values()}) == len(looks)
    assert len({look.label for look in looks.values()}) == len(looks)


@pytest.mark.parametrize(
    ("run", "label"),
    [
        ("rlvr_lr_5e-06", "RLVR, rate 5e-6"),
        ("sft_matched_batch_64", "SFT, matched, batch 64"),
        ("opd_projected_early_k12", "OPD, own early V, K = 12"),
        ("opd_projected_early_at_40", "OPD, own early V, at 40 %"),
        ("mix_0.25_unit", r"mix, $\alpha$ = 0.25, unit scale"),
    ],
)
def test_a_probe_is_labelled_by_its_run_and_what_it_changes(run, label):
    assert run_style(run).label == label
    assert run_style(f"unheard_of_{run}").color == "black"


def test_runs_are_listed_in_one_order_everywhere():
    shuffled = ["zeta", "mix_0.25", "rlvr", "mix_0.75", "opd", "sft", "opd"]
    assert in_order(shuffled) == ["sft", "opd", "rlvr", "mix_0.75", "mix_0.25", "zeta"]
    probes = ["mix_0.5_unit", "opd_batch_64", "opd_lr_2e-05", "opd_lr_5e-06", "mix_0.75_unit", "opd"]
    assert in_order(["mix_0.5", "rlvr", *probes]) == [
        *("opd", "opd_lr_5e-06", "opd_lr_2e-05", "opd_batch_64", "rlvr"),
        *("mix_0.75_unit", "mix_0.5", "mix_0.5_unit"),
    ]


def seen(color: str, vision: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    if vision == "usual":
        return rgb
    space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
    return np.clip(colorspacious.cspace_convert(rgb, space, "sRGB1"), 0, 1)


def distance(one: str, other: str) -> float:
    """The least over all visions."""
    return min(
        float(colorspacious.deltaE(seen(one, v), seen(other, v), input_space="sRGB1")) for v in VISIONS
    )


def test_the_simulation_makes_red_and_green_alike_for_those_who_lack_either():
    red, green = "#C00000", "#607000"
    for vision in ("deuteranomaly", "protanomaly"):
        near = colorspacious.deltaE(seen(red, vision), seen(green, vision), input_space="sRGB1")
        assert near < 0.6 * colorspacious.deltaE(to_rgb(red), to_rgb(green), input_space="sRGB1")


@pytest.mark.parametrize("palette", DRAWN_TOGETHER.values(), ids=DRAWN_TOGETHER)
def test_colours_drawn_together_stay_apart_in_every_vision(palette: Sequence[str]):
    near = {pair: distance(*pair) for pair in combinations(palette, 2)}
    assert {pair: d for pair, d in near.items() if d < APART} == {}


def test_runs_whose_colours_come_near_each_other_differ_in_marker_or_dashes():
    styles = {run.name: run_style(run.name) for run in get_profile("reference").everything}
    alike = [
        (one, other)
        for one, other in combinations(styles, 2)
        if (styles[one].marker, styles[one].linestyle) == (styles[other].marker, styles[other].linestyle)
        and distance(styles[one].color, styles[other].color) < APART
    ]
    assert alike == []


def test_main_runs_need_no_colour_at_all():
    for one, other in combinations(("sft", "opd", "rlvr"), 2):
        assert run_style(one).marker != run_style(other).marker
    assert run_style("sft_matched").linestyle != run_style("sft").linestyle


def test_neighbouring_mixes_differ_in_colour_and_marker():
    styles = [run_style(f"mix_{alpha}") for alpha in (0.75, 0.5, 0.25, 0.05, 0.01)]
    assert len({style.marker for style in styles}) == len(styles)
    for one, other in pairwise(styles):
        assert distance(one.color, other.color) > APART


def test_a_lighter_shade_is_as_far_from_its_colour_as_another_colour():
    for color in (SFT, OPD, RLVR):
        shades = [blend(color, "black", 0.5), color, blend(color, "white", 0.5)]
        assert min(distance(*pair) for pair in pairwise(shades)) > APART
