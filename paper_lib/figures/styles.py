"""One look for every figure: colours, sizes of letters, and how each run is drawn."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import seaborn as sns
from matplotlib.colors import to_hex, to_rgb

# Okabe and Ito's palette, told apart under the common colour vision deficiencies. The grey is dark enough for
# those who see green as grey, which is RLVR's.
SFT, OPD, RLVR, NULL = "#D55E00", "#0072B2", "#009E73", "#6E6E6E"
ORANGE, SKY, PURPLE, RED = "#E69F00", "#56B4E9", "#CC79A7", "#882255"
_MIX_COLORS = ("#A3B82A", "#7FA8E0", "#1A0F52")  # from α = 0.01 to 0.75
_MIX_MARKERS = "dP*pX<>h"  # from α = 1 to 0.01, one a halving


@dataclass(frozen=True)
class Style:
    """How one run looks wherever it is drawn."""

    label: str
    color: str
    linestyle: str = "-"
    marker: str = "o"

    @property
    def line(self) -> dict[str, Any]:
        """What matplotlib draws its line with."""
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker}

    @property
    def mark(self) -> dict[str, Any]:
        """What matplotlib draws its marks with, where no line joins them."""
        return self.line | {"linestyle": "none"}

    @property
    def spot(self) -> dict[str, Any]:
        """What matplotlib draws a single mark with."""
        return {"color": self.color, "marker": self.marker}


def blend(start: str, end: str, share: float) -> str:
    """The colour at `share` in [0, 1] of the way from `start` to `end`."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(start), to_rgb(end), strict=True))
    return to_hex((red, green, blue))


_LIGHT_SFT, _LIGHT_OPD = blend(SFT, "white", 0.4), blend(OPD, "white", 0.4)
RUN_STYLE = {  # in the order of legends
    "sft": Style("SFT", SFT, "-", "s"),
    "sft_matched": Style("SFT, matched", _LIGHT_SFT, "--", "s"),
    "opd": Style("OPD", OPD, "-", "o"),
    "rlvr": Style("RLVR", RLVR, "-", "^"),
    "opd_exact": Style("OPD, exact reverse KL", SKY, "--", "o"),
    "opd_small_teacher": Style("OPD, smaller teacher", PURPLE, "--", "o"),
    "opd_second_domain": Style("OPD, second domain", ORANGE, "--", "o"),
    "opd_tokens_top_gap_50": Style("top gap, 50 % of tokens", PURPLE, "--", "v"),
    "opd_tokens_top_gap_25": Style("top gap, 25 %", PURPLE, ":", "v"),
    "opd_tokens_random_50": Style("random, 50 % of tokens", SKY, "--", "D"),
    "opd_tokens_random_25": Style("random, 25 %", SKY, ":", "D"),
    "opd_teacher_rollouts": Style("teacher rollouts", ORANGE, "--", "P"),
    "opd_sibling": Style("OPD, other rollouts", SKY, ":", "o"),
    "opd_projected_early": Style("OPD, own early V", OPD, "--", "v"),
    "opd_projected_early_update": Style("OPD, update in early V", SKY, "--", "v"),
    "opd_projected_early_both": Style("OPD, both in early V", SKY, ":", "v"),
    "opd_projected_other_seed": Style("OPD, V of other rollouts", PURPLE, "--", "D"),
    "opd_projected_principal": Style(r"OPD, top of $W_0$", ORANGE, "--", "X"),
    "opd_projected_random": Style("OPD, random V", NULL, "--", "h"),
    "opd_projected_rlvr": Style("OPD, V of RLVR", RLVR, "--", "D"),
    "opd_projected_sft": Style("OPD, V of SFT", SFT, "--", "D"),
    "sft_projected_early": Style("SFT, own early V", SFT, "--", "v"),
    "sft_projected_early_update": Style("SFT, update in early V", ORANGE, "--", "v"),
    "sft_projected_random": Style("SFT, random V", NULL, ":", "p"),
    "sft_matched_projected_early": Style("SFT, matched, own early V", _LIGHT_SFT, "--", "^"),
    "sft_matched_projected_opd": Style("SFT, matched, V of OPD", OPD, "--", "^"),
    "sft_matched_projected_random": Style("SFT, matched, random V", NULL, "--", "^"),
    "rlvr_projected_early": Style("RLVR, own early V", RLVR, "--", "v"),
    "rlvr_projected_random": Style("RLVR, random V", NULL, "--", "v"),
    "opd_as_sft": Style("OPD, at SFT's settings", _LIGHT_OPD, "--", "s"),
    "opd_restream": Style("OPD, other rollouts throughout", SKY, "--", "H"),
    "opd_rotated": Style("OPD, heads rotated", PURPLE, "--", "8"),
    "opd_sgd": Style("OPD, SGD", RED, "--", "*"),
    "opd_subnetwork_found": Style("OPD, found subnetwork", ORANGE, "--", "*"),
    "opd_subnetwork_random": Style("OPD, random subnetwork", NULL, "--", "*"),
    "sft_small": Style("SFT, smaller student", _LIGHT_SFT, ":", "P"),
    "opd_small_student": Style("OPD, smaller student", SKY, "--", "P"),
    "opd_moe_teacher": Style("OPD, MoE teacher", PURPLE, "--", "X"),
}


@dataclass(frozen=True)
class _Probe:
    """A kind of run that is another with one setting changed, which its name ends in. say: what its label
    adds to that of the other, whose colour it has, lighter or darker by `shade`."""

    ending: str
    say: Callable[[str], str]
    marker: str
    span: tuple[float, float] = (1.0, 1.0)

    def shade(self, value: str) -> float:
        """From 0.5 (halfway to white) at the low end of the span, on a log scale, to −0.5 (to black)."""
        low, high = map(math.log, self.span)
        if low == high:
            return 0.25
        return 0.5 - min(1.0, max(0.0, (math.log(float(value)) - low) / (high - low)))


# Of their probes, whose lighter colours come near OPD's, or near another random V's.
_DASHES = {"rlvr": "-.", "sft_matched": "--", "sft_matched_projected_random": "--"}
_PROBES = (
    _Probe(r"_lr_(.+)", lambda rate: f"rate {float(rate):.0e}".replace("e-0", "e-"), "<", (1e-6, 1e-4)),
    _Probe(r"_batch_(\d+)", lambda size: f"batch {size}", ">", (16, 1024)),
    _Probe(r"_k(\d+)", lambda k: f"K = {k}", "d", (1, 16)),
    _Probe(r"_e(\d+)", lambda percent: f"{percent} % of energy", "8", (50, 100)),
    _Probe(r"_at_(\d+)", lambda percent: f"at {percent} %", "p", (5, 100)),
    _Probe(r"_projected_(none)", lambda none: "K = 0", "x"),
    _Probe(r"_projected_(none)_gradient", lambda none: "gradient at K = 0", "+"),
    _Probe(r"_projected_(free)_alone", lambda free: "matrices alone", "1"),
    _Probe(r"_(alone)", lambda alone: "alone", "2"),
    _Probe(r"_(shuffled_credit|random_reward)", lambda chance: chance.replace("_", " "), "3"),
    _Probe(r"_(restream)", lambda other: "other problems", "H"),
    _Probe(r"_(\d+)x\d+", lambda prompts: f"{prompts} prompts", "4"),
    _Probe(r"_clip_(\d+)", lambda norm: f"clipped at {norm}", "|"),
    _Probe(r"_(short|long)", lambda length: f"{length} budget", "2"),
    _Probe(r"_(no_decay)", lambda none: "no decay", "_"),
    _Probe(r"_(unit)", lambda unit: f"{unit} scale", ""),  # the mix's own marker: their colours are close
)


def _split(run: str) -> tuple[str, int, str]:
    """The run that a probe varies, its kind (a place in _PROBES) and value; no probe is itself, −1 and ""."""
    for kind, probe in enumerate(_PROBES):
        found = re.fullmatch(f"(.+?){probe.ending}", run)
        if found and (found[1] in RUN_STYLE or is_mix(found[1])):
            return found[1], kind, found[2]
    return run, -1, ""


def run_style(run: str) -> Style:
    """The style of a run by name; `mix_0.25` lies between OPD and RLVR, `opd_lr_2e-05` is a probe of `opd`,
    an unknown run is black with its name."""
    parent, kind, value = _split(run)
    if kind >= 0:
        style, probe = run_style(parent), _PROBES[kind]
        shade = probe.shade(value)
        return Style(
            label=f"{style.label}, {probe.say(value)}",
            color=blend(style.color, "white" if shade > 0 else "black", abs(shade)),
            linestyle=_DASHES.get(parent, ":") if probe.marker else "-.",
            marker=probe.marker or style.marker,
        )
    if is_mix(run):
        alpha = float(run.removeprefix("mix_"))
        return Style(
            label=rf"mix, $\alpha$ = {alpha:g}",
            color=_mix_color(alpha),
            linestyle="--" if alpha >= 0.5 else ":",
            marker=_MIX_MARKERS[min(round(-math.log2(max(alpha, 0.01))), 7)],
        )
    return RUN_STYLE.get(run, Style(label=run.replace("_", " "), color="black", linestyle="-."))


def _mix_color(alpha: float) -> str:
    """OPD's colour at α = 1 and RLVR's at 0, which are too alike for five shades between them: the paper's
    mixes go from deep blue at 0.75 to light green at 0.01, with most of the way for the small α."""
    if alpha in (0, 1):
        return (OPD if alpha else RLVR).lower()
    far, near = (math.sqrt(-math.log10(end)) for end in (0.01, 0.75))
    share = (far - math.sqrt(-math.log10(min(1.0, max(alpha, 0.01))))) / (far - near)
    light, middle, deep = _MIX_COLORS
    return blend(light, middle, 2 * share) if share < 0.5 else blend(middle, deep, min(1.0, 2 * share - 1))


def is_mix(run: str) -> bool:
    """Whether a run is one of the paper's mixes, `mix_<alpha>`."""
    return re.fullmatch(r"mix_[\d.]+", run) is not None


def in_order(runs: Iterable[str]) -> list[str]:
    """Runs in legend order: as in RUN_STYLE, then mixes from OPD to RLVR, then others by name; the probes of
    a run follow it, by kind and value."""
    known = list(RUN_STYLE)

    def place(run: str) -> tuple[int, float, int, float, str]:
        parent, kind, value = _split(run)
        size = float(value) if value[:1].isdigit() else 0.0
        if parent in RUN_STYLE:
            return known.index(parent), 0.0, kind, size, run
        if is_mix(parent):
            return len(known), -float(parent.removeprefix("mix_")), kind, size, run
        return len(known) + 1, 0.0, 0, 0.0, run

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
