"""What the README says we learned is what the committed tables say."""

from collections.abc import Callable
from math import degrees
from pathlib import Path

import pandas as pd
import pytest

from paper_lib.figures.results import Results, open_results
from paper_lib.ledger.rules.projection import retained
from paper_lib.ledger.rules.trajectory import ALONG
from paper_lib.ledger.rules.weights import mean_angle
from paper_lib.ledger.size import end_values, in_words
from paper_lib.ledger.verdicts import ORDER_ONLY, ledger
from paper_lib.summaries import paired, t_interval

ROOT = Path(__file__).parents[2]
ROWS = {
    **{"sft": "SFT", "sft_matched": "matched SFT", "opd_exact": "OPD, exact"},
    **{"opd": "OPD", "rlvr": "RLVR"},
}
TEXT = " ".join((ROOT / "README.md").read_text().split("### What we learned")[1].split("\n## ")[0].split())


@pytest.fixture(scope="module")
def evidence() -> Results:
    return open_results("reference", data_dir=ROOT / "data")


def pm(values: pd.Series, digits: int = 1) -> str:
    """|mean| ± half of a 95 % interval."""
    low, high = t_interval(values.to_numpy(), 0.95)
    return f"{abs(values.mean()):.{digits}f} ± {(high - low) / 2:.{digits}f}"


def gap(evidence: Results, run: str, other: str) -> pd.Series:
    """Sparsity of a run minus another's, seed by seed, in points."""
    a, b = paired(*(evidence.end(name, "update_sparsity") for name in (run, other)))
    return 100 * (a - b)


def by_prompts(evidence: Results) -> pd.Series:
    """The share of the gap of matched SFT to OPD that 32 prompts in place of 256 make, in percent."""
    part, whole = paired(*(gap(evidence, run, "sft_matched") for run in ("sft_matched_32x8", "opd")))
    return 100 * part / whole


def cosine(evidence: Results, *pair: str) -> str:
    return f"{evidence.pair(*pair, 'update_cosine').mean():.3f}"


def kept(evidence: Results, arm: str, free: str = "opd") -> str:
    return pm(retained(evidence, free, f"{free}_projected_{arm}"), 2)


def clipped(evidence: Results, run: str) -> str:
    rows = evidence.table("curves").query("run == @run and metric == 'gradient_norm'")
    return f"{100 * (rows['value'] > 1).mean():.0f} %"


SAID: dict[str, Callable[[Results], str]] = {
    "order": lambda e: f"OPD and RLVR are {pm(gap(e, 'rlvr', 'opd'))} points of sparsity apart",
    "clip": lambda e: "− {:.1f} to + {:.1f} with clipping at 100".format(
        *(
            sign * end
            for sign, end in zip(
                (-1, 1), t_interval(gap(e, "rlvr_clip_100", "opd_clip_100").to_numpy(), 0.95), strict=True
            )
        )
    ),
    "size": lambda e: in_words(end_values(e)),
    "exact": lambda e: f"is {pm(gap(e, 'opd_exact', 'opd'))} points less sparse than OPD",
    "shuffled": lambda e: f"shuffled credit {pm(gap(e, 'opd_shuffled_credit', 'opd'))} points sparser",
    "prompts": lambda e: f"Distinct prompts are {pm(by_prompts(e), 0)} % of the gap",
    "OPD–RLVR": lambda e: f"OPD–RLVR {cosine(e, 'opd', 'rlvr')}",
    "RLVR–RLVR": lambda e: f"RLVR on other rollouts {cosine(e, 'rlvr', 'rlvr_restream')}",
    "OPD–SFT": lambda e: f"OPD–matched SFT {cosine(e, 'opd', 'sft_matched')}",
    "OPD–OPD": lambda e: f"OPD on other rollouts {cosine(e, 'opd', 'opd_restream')}",
    "chance": lambda e: f"shuffled credit −{cosine(e, 'opd', 'opd_shuffled_credit')[1:]}",
    "own V": lambda e: f"OPD keeps {kept(e, 'early')} in its own, {kept(e, 'other_seed')} in that of other",
    "K = 1": lambda e: f"{kept(e, 'early_k1')} in one direction, {kept(e, 'random')} in a random V",
    "matched V": lambda e: f"matched SFT {kept(e, 'early', 'sft_matched')} in its own",
    "alone": lambda e: f"frozen too, OPD keeps {kept(e, 'early_alone')}",
    "rank": lambda e: "(stable rank {:.1f} against {:.1f})".format(
        *(e.end(run, "stable_rank", **ALONG).mean() for run in ("opd", "opd_shuffled_credit"))
    ),
    "new skills": lambda e: (
        "OPD keeps {} of what it gains after the branch, matched SFT {}, and {} where V".format(
            kept(e.beside("headroom"), "early"),
            *(kept(e.beside("headroom"), arm, "sft_matched") for arm in ("early", "early_e80")),
        )
    ),
    "greedy": lambda e: f"solves {100 * e.greedy('sft').mean():.1f} % before",
    "binds": lambda e: "{} of OPD's steps, {} of RLVR's and {} of matched SFT's".format(
        *(clipped(e, run) for run in ("opd", "rlvr", "sft_matched"))
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_a_number_of_the_readme_is_that_of_the_tables(evidence, what):
    assert SAID[what](evidence) in TEXT


@pytest.mark.parametrize("run", ROWS)
def test_a_row_of_the_readme_is_that_of_the_tables(evidence, run):
    values = (
        f"{100 * evidence.end(run, 'update_sparsity').mean():.1f}",
        f"{degrees(mean_angle(evidence, run).mean()):.2f}",
        f"{1e3 * evidence.end(run, 'spectral_shift').mean():.2f}",
        f"{evidence.end(run, 'stable_rank', **ALONG).mean():.1f}",
        f"{100 * evidence.score(run)[0].mean():.1f}",
        f"{evidence.end(run, 'drift_ratio').mean():.2f}",
        f"{evidence.end(run, 'coordinate_energy', k=0.1).mean():.2f}",
    )
    assert f"| {ROWS[run]} | {' | '.join(values)} |" in TEXT


def test_the_claims_that_are_order_only_are_named(evidence):
    rows = ledger(evidence, ("C1", "C2", "C3", "C4", "C5", "C6"))
    assert rows.loc[rows["verdict"] == ORDER_ONLY, "claim"].tolist() == ["C1", "C3", "C4", "C6"]


@pytest.mark.parametrize("run", ["sft", "opd"])
def test_weight_decay_adds_nothing(evidence, run):
    low, high = t_interval(gap(evidence, f"{run}_no_decay", run).to_numpy(), 0.95)
    assert low < 0 < high
