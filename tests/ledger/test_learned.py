"""What the README says we learned is what the committed tables say."""

from collections.abc import Callable
from math import degrees
from pathlib import Path

import pandas as pd
import pytest

from paper_lib.figures.results import Results, open_results
from paper_lib.ledger.claim import Cast
from paper_lib.ledger.rules.controls import to_opd
from paper_lib.ledger.rules.trajectory import ALONG
from paper_lib.ledger.rules.weights import mean_angle
from paper_lib.ledger.size import end_values, in_words
from paper_lib.summaries import paired, t_interval

ROOT = Path(__file__).parents[2]
MAIN = ("sft", "sft_matched", "opd", "rlvr")
TEXT = " ".join((ROOT / "README.md").read_text().split("### What we learned")[1].split("\n## ")[0].split())


@pytest.fixture(scope="module")
def evidence() -> Results:
    return open_results("reference", data_dir=ROOT / "data")


def gap(a: pd.Series, b: pd.Series) -> pd.Series:
    """a − b, seed by seed, in points."""
    a, b = paired(a, b)
    return 100 * (a - b)


def lost(evidence: Results, run: str, free: str = "opd") -> pd.Series:
    return gap(evidence.score(free)[0], evidence.score(run)[0])


def four(values: list[float], digits: int) -> str:
    """SFT [matched SFT] / OPD / RLVR, as the README gives them."""
    sft, matched, opd, rlvr = (f"{value:.{digits}f}" for value in values)
    return f"{sft} [{matched}] / {opd} / {rlvr}"


def ends(evidence: Results, metric: str, scale: float, digits: int, **which: float) -> str:
    return four([scale * evidence.end(run, metric, **which).mean() for run in MAIN], digits)


def pm(values: pd.Series) -> str:
    """Mean ± half a 95 % interval, both to a digit behind the point."""
    low, high = t_interval(values.to_numpy(), 0.95)
    return f"{abs(values.mean()):.1f} ± {(high - low) / 2:.1f}"


SAID: dict[str, Callable[[Results], str]] = {
    "sparsity": lambda e: f"sparsity {ends(e, 'update_sparsity', 100, 1)} %",
    "angle": lambda e: (
        "mean principal angle " + four([degrees(mean_angle(e, run).mean()) for run in MAIN], 2) + "°"
    ),
    "principal": lambda e: f"principal weights {ends(e, 'principal_overlap', 100, 1, k=0.3)} %",
    "small": lambda e: f"small ones {ends(e, 'low_magnitude_overlap', 100, 1, k=0.3)} %",
    "greedy": lambda e: f"solves {100 * e.greedy('sft').mean():.1f} % of the test problems",
    "confined": lambda e: f"OPD loses {pm(lost(e, 'opd_projected_early'))} of the",
    "update": lambda e: f"{pm(lost(e, 'opd_projected_early_update'))} with its update projected",
    "random": lambda e: f"{pm(lost(e, 'opd_projected_random'))} in random directions",
    "matched confined": lambda e: (
        "Matched SFT confined to its channel loses "
        + pm(lost(e, "sft_matched_projected_early", "sft_matched"))
    ),
    "matched random": lambda e: (
        f"{pm(lost(e, 'sft_matched_projected_random', 'sft_matched'))} in random directions"
    ),
    "as SFT": lambda e: (
        "*less* sparse than SFT (by "
        + pm(gap(e.end("opd_as_sft", "update_sparsity"), e.end("sft", "update_sparsity")))
    ),
    "batch": lambda e: (
        "sparser than RLVR (by "
        + pm(gap(e.end("opd_batch_64", "update_sparsity"), e.end("rlvr", "update_sparsity")))
    ),
    "channel": lambda e: "{:.2f} for matched SFT, {:.2f} for OPD, {:.2f} for RLVR, {:.2f} for SFT".format(
        *(
            e.first(run, "subspace_alignment", k=3.0, **ALONG).mean()
            for run in ("sft_matched", "opd", "rlvr", "sft")
        )
    ),
    "near": lambda e: f"(RMS log distance {to_opd(e, 'rlvr', Cast()).mean():.2f})",
    "energy": lambda e: "(SFT {:.0f}, matched SFT {:.0f}, OPD {:.0f}, RLVR {:.0f})".format(
        *((e.end(r, "principal_energy") / e.end(r, "principal_energy_chance")).mean() for r in MAIN)
    ),
    "masks": lambda e: "{1:.3f} and {0:.3f}".format(
        *(e.pair("opd", other, "jaccard").mean() for other in ("opd_restream", "rlvr"))
    ),
    "teacher rollouts": lambda e: "({:.1f} → {:.1f} against {:.1f} %)".format(
        *(
            100 * each.mean()
            for each in paired(*(e.score(run)[0] for run in ("sft", "opd_teacher_rollouts", "opd")))
        )
    ),
    "random mask": lambda e: (
        f"own costs {pm(lost(e, 'opd_subnetwork_random'))} points, "
        f"its own {pm(lost(e, 'opd_subnetwork_found'))}"
    ),
    "SGD": lambda e: f"AdamW at the study's rate (by {pm(lost(e, 'opd_sgd'))} points)",
    "AdamW": lambda e: f"twice that (by {pm(lost(e, 'opd_sgd', 'opd_lr_2e-05'))})",
}


@pytest.mark.parametrize("what", SAID)
def test_a_number_of_the_readme_is_that_of_the_tables(evidence, what):
    assert SAID[what](evidence) in TEXT


def test_the_readme_says_how_well_size_predicts_sparsity(evidence):
    assert in_words(end_values(evidence)) in TEXT
