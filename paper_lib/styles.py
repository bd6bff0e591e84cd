"""One look for every figure: sizes, colours, and how each run is drawn."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import seaborn as sns
from matplotlib.colors import to_hex, to_rgb

COLUMN = (3.5, 2.6)  # inches: a column of a paper
PAGE = (7.2, 2.8)  # its full width

# Okabe and Ito's palette, told apart under the common colour vision deficiencies.
SFT, OPD, RLVR, NULL = "#D55E00", "#0072B2", "#009E73", "#7F7F7F"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
_MIX_MARKERS = "dP*pX<>h"  # from α = 1 to 0.01, one a halving
BACKDROP = "backdrop"  # gid of what is drawn for comparison (chance, nulls): alone it makes no figure


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one run looks wherever it is drawn."""

    label: str
    color: str
    linestyle: str = "-"
    marker: str = "o"


def blend(start: str, end: str, share: float) -> str:
    """The colour at `share` in [0, 1] of the way from `start` to `end`."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(start), to_rgb(end), strict=True))
    return to_hex((red, green, blue))


RUN_STYLE = {
    "sft": Style(label="SFT", color=SFT, marker="s"),
    "sft_matched": Style(label="SFT, matched", color=blend(SFT, "white", 0.4), linestyle="--", marker="s"),
    "opd": Style(label="OPD", color=OPD),
    "rlvr": Style(label="RLVR", color=RLVR, marker="^"),
    "opd_exact": Style(label="OPD, exact reverse KL", color=SKY, linestyle="--"),
    "opd_small_teacher": Style(label="OPD, smaller teacher", color=PURPLE, linestyle="--"),
    "opd_second_domain": Style(label="OPD, second domain", color=ORANGE, linestyle="--"),
    "opd_tokens_top_gap_50": Style(label="top gap, 50 % of tokens", color=PURPLE, linestyle="--", marker="v"),
    "opd_tokens_top_gap_25": Style(label="top gap, 25 %", color=PURPLE, linestyle=":", marker="v"),
    "opd_tokens_random_50": Style(label="random, 50 % of tokens", color=SKY, linestyle="--", marker="D"),
    "opd_tokens_random_25": Style(label="random, 25 %", color=SKY, linestyle=":", marker="D"),
    "opd_teacher_rollouts": Style(label="teacher rollouts", color=ORANGE, linestyle="--", marker="P"),
    "opd_sibling": Style(label="OPD, other rollouts", color=SKY, linestyle=":"),
    "opd_projected_early": Style(label="OPD, own early V", color=OPD, linestyle="--", marker="v"),
    "opd_projected_early_update": Style(
        label="OPD, update in early V", color=SKY, linestyle="--", marker="v"
    ),
    "opd_projected_early_both": Style(label="OPD, both in early V", color=SKY, linestyle=":", marker="v"),
    "opd_projected_other_seed": Style(
        label="OPD, V of other rollouts", color=PURPLE, linestyle="--", marker="D"
    ),
    "opd_projected_principal": Style(label=r"OPD, top of $W_0$", color=ORANGE, linestyle="--", marker="X"),
    "opd_projected_random": Style(label="OPD, random V", color=NULL, linestyle="--", marker="h"),
    "sft_projected_early": Style(label="SFT, own early V", color=SFT, linestyle="--", marker="v"),
    "sft_projected_random": Style(label="SFT, random V", color=NULL, linestyle=":", marker="p"),
}


def run_style(run: str) -> Style:
    """The style of a run by name; `mix_0.25` lies between OPD and RLVR, an unknown run is black with its
    name."""
    if run.startswith("mix_"):
        alpha = float(run.removeprefix("mix_"))
        return Style(
            label=rf"mix, $\alpha$ = {alpha:g}",
            color=blend(RLVR, OPD, alpha ** (1 / 3)),  # the small α are the ones to tell apart
            linestyle="--" if alpha >= 0.5 else ":",
            marker=_MIX_MARKERS[min(round(-math.log2(max(alpha, 0.01))), 7)],
        )
    return RUN_STYLE.get(run, Style(label=run.replace("_", " "), color="black", linestyle="-."))


def in_order(runs: Iterable[str]) -> list[str]:
    """Runs in legend order: as in RUN_STYLE, then mixes from OPD to RLVR, then others by name."""
    known = list(RUN_STYLE)

    def place(run: str) -> tuple[int, float, str]:
        if run in RUN_STYLE:
            return known.index(run), 0.0, run
        is_mix = run.startswith("mix_")
        return len(known) + (not is_mix), -float(run.removeprefix("mix_")) if is_mix else 0.0, run

    return sorted(set(runs), key=place)


def use_style() -> None:
    """The look of every figure; call it once, in a notebook's setup cell."""
    settings = {
        "axes.labelsize": 9,
        "axes.linewidth": 0.8,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "figure.dpi": 110,
        "font.family": "DejaVu Sans",
        "grid.linewidth": 0.5,
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
    }
    sns.set_theme(context="paper", style="whitegrid", palette=[SFT, OPD, RLVR], rc=settings)
