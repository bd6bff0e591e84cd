"""What the README and the page of findings say is what the committed tables say."""

import re
from collections.abc import Callable
from math import degrees
from pathlib import Path

import pandas as pd
import pytest

from paper_lib.figures.results import Results, open_results
from paper_lib.ledger.pictures import OVERVIEW, position, regime_ends
from paper_lib.ledger.rules.projection import retained
from paper_lib.ledger.rules.trajectory import ALONG
from paper_lib.ledger.rules.weights import mean_angle
from paper_lib.ledger.size import end_values, in_words
from paper_lib.ledger.verdicts import CLAIMS, NOT_REPRODUCED, ORDER_ONLY, PARTLY, UNTESTED, ledger
from paper_lib.summaries import paired, say, t_interval

ROOT = Path(__file__).parents[2]
ROWS = {
    **{"sft": "SFT", "sft_matched": "matched SFT", "opd_exact": "OPD, exact"},
    **{"opd": "OPD", "rlvr": "RLVR"},
}


def text(page: str, first: str, last: str) -> str:
    """A page of the repository from one heading to another, in one line."""
    after = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {first}\n")[1]
    return " ".join(after.split(f"\n## {last}\n")[0].split())


README = text("README.md", "What we found", "Two commands")
TEXTS = (README, text("book/pages/findings.md", "Six findings", "How a verdict is made"))
# Numbers that no table has: names of claims and figures, points of lists, models, settings of a run.
UNTABLED = re.compile(
    r"[CM]\d+|figures/\S+|\(\d\d?\)|\b\d\. \*\*|0\.8 M|paper has 25\.6|10³|from RLVR \(0\) to SFT \(1\)"
    r"|at norm 1,|bf16|clipping at 100|32 prompts × 8|256 × 1|80 % of its update"
    r"|60 steps of 32|SmolLM2-135M|`smollm2`|64 × 300|512 × 1,024|256 × 5,375|\| paper, .*?\| – \|"
)


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


def at_budgets(evidence: Results, run: str) -> str:
    """Sparsity of a run at the paper's budgets, in percent."""
    return pm(100 * evidence.beside("budgets").end(run, "update_sparsity"))


def longer(evidence: Results) -> str:
    """RLVR's norm over OPD's at the paper's budgets."""
    budgets = evidence.beside("budgets")
    rlvr, opd = paired(*(budgets.end(run, "frobenius_norm", **ALONG) for run in ("rlvr", "opd")))
    return pm(rlvr / opd)


def answers(evidence: Results, run: str) -> int:
    """How many answers a run of the paper's budgets is trained on."""
    config = evidence.beside("budgets").study.run(run)
    return config.steps * config.prompts_per_step * config.samples_per_prompt


def sparser(evidence: Results, run: str, other: str) -> str:
    return pm(gap(evidence.beside("budgets"), run, other))


def on_smollm2(evidence: Results, run: str) -> str:
    """Sparsity of a run of SmolLM2, in percent."""
    return pm(100 * evidence.beside("smollm2").end(run, "update_sparsity"))


def lost_on_smollm2(evidence: Results, run: str, arm: str) -> str:
    """Points of test accuracy by which a confined run of SmolLM2 ends below the free one."""
    scores = (evidence.beside("smollm2").score(name)[0] for name in (run, f"{run}_projected_{arm}"))
    free, confined = paired(*scores)
    return say(free - confined, 100).replace("-", "−")


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
    "shuffled": lambda e: f"shuffled credit it is {pm(gap(e, 'opd_shuffled_credit', 'opd'))} points sparser",
    "prompts": lambda e: f"Distinct prompts are {pm(by_prompts(e), 0)} % of the gap",
    "OPD–RLVR": lambda e: f"OPD–RLVR {cosine(e, 'opd', 'rlvr')}",
    "RLVR–RLVR": lambda e: f"RLVR on other rollouts {cosine(e, 'rlvr', 'rlvr_restream')}",
    "OPD–SFT": lambda e: f"OPD–matched SFT {cosine(e, 'opd', 'sft_matched')}",
    "OPD–OPD": lambda e: f"OPD on other rollouts {cosine(e, 'opd', 'opd_restream')}",
    "chance": lambda e: f"shuffled credit −{cosine(e, 'opd', 'opd_shuffled_credit')[1:]}",
    "own V": lambda e: f"OPD keeps {kept(e, 'early')} in its own, {kept(e, 'other_seed')} in that of",
    "K = 1": lambda e: f"{kept(e, 'early_k1')} in one direction, {kept(e, 'random')} in a random V",
    "matched V": lambda e: f"matched SFT keeps {kept(e, 'early', 'sft_matched')} in its own",
    "alone": lambda e: f"these frozen too, OPD keeps {kept(e, 'early_alone')}",
    "rank": lambda e: "(stable rank {:.1f} against {:.1f})".format(
        *(e.end(run, "stable_rank", **ALONG).mean() for run in ("opd", "opd_shuffled_credit"))
    ),
    "new skills": lambda e: (
        "OPD keeps {} of what it gains after the branch, matched SFT {}, and {} where V holds".format(
            kept(e.beside("headroom"), "early"),
            *(kept(e.beside("headroom"), arm, "sft_matched") for arm in ("early", "early_e80")),
        )
    ),
    "budgets": lambda e: "{} % against OPD's {} % and SFT's {} %, and its update is {} times".format(
        *(at_budgets(e, run) for run in ("rlvr", "opd", "sft")), longer(e)
    ),
    "one budget": lambda e: "RLVR is {} points sparser, with both at 512 × 1,024 {}.".format(
        sparser(e, "rlvr_short", "opd"), sparser(e, "rlvr", "opd_long")
    ),
    "real weights": lambda e: "{} % unchanged, matched SFT {} %, OPD {} %, RLVR {} %".format(
        *(on_smollm2(e, run) for run in ("sft", "sft_matched", "opd", "rlvr"))
    ),
    "their gap": lambda e: f"RLVR is {pm(gap(e.beside('smollm2'), 'rlvr', 'opd'))} points sparser than OPD",
    "their cosines": lambda e: "OPD and RLVR have a cosine of {}, OPD and matched SFT of {}".format(
        *(cosine(e.beside("smollm2"), "opd", other) for other in ("rlvr", "sft_matched"))
    ),
    "their noise": lambda e: "drift ratios of {:.2f} for OPD and {:.2f} for RLVR".format(
        *(e.beside("smollm2").end(run, "drift_ratio").mean() for run in ("opd", "rlvr"))
    ),
    "their channel": lambda e: "OPD ends {} points below free training, matched SFT {};".format(
        *(lost_on_smollm2(e, run, "early") for run in ("opd", "sft_matched"))
    ),
    "their K = 0": lambda e: "with these matrices frozen {} and {} points.".format(
        *(lost_on_smollm2(e, run, "none") for run in ("opd", "sft_matched"))
    ),
    "greedy": lambda e: f"Greedy decoding solves {100 * e.greedy('sft').mean():.1f} %",
    "binds": lambda e: "{} of OPD's steps, {} of RLVR's and {} of matched SFT's".format(
        *(clipped(e, run) for run in ("opd", "rlvr", "sft_matched"))
    ),
}

SHORT = ("order", "size", "exact", "shuffled", "greedy")  # said in the README too
SHORT_SAID: dict[str, Callable[[Results], str]] = {  # said there in other words
    "budgets": lambda e: "leaves {} % of the weights unchanged, OPD {} %, SFT {} %".format(
        *(at_budgets(e, run) for run in ("rlvr", "opd", "sft"))
    ),
    "answers": lambda e: f"RLVR sees {answers(e, 'rlvr') / answers(e, 'opd'):.0f} times OPD's answers",
    "cosine": lambda e: f"have a cosine of {cosine(e, 'opd', 'rlvr')}, as much as",
    "other rollouts": lambda e: f"two runs of RLVR ({cosine(e, 'rlvr', 'rlvr_restream')})",
    "own V": lambda e: (
        f"OPD keeps {kept(e, 'early')} in its own early channel, {kept(e, 'other_seed')} in that of"
    ),
    "real weights": lambda e: f"and that cosine is {cosine(e.beside('smollm2'), 'opd', 'rlvr')} (three",
    "new skills": lambda e: f"OPD keeps {kept(e.beside('headroom'), 'early')} of its later gain in three",
    "SFT's": lambda e: f"Matched SFT keeps {kept(e.beside('headroom'), 'early', 'sft_matched')} and is not",
}


@pytest.mark.parametrize("what", SAID)
def test_a_number_that_is_said_is_that_of_the_tables(evidence, what):
    said = SAID[what](evidence)
    assert said in TEXTS[1]
    assert what not in SHORT or said in README


def test_no_other_number_is_said(evidence):
    """Every digit of the two texts stands in a phrase that is computed, or is not of a table."""
    phrases = [make(evidence) for make in (*SAID.values(), *SHORT_SAID.values())]
    phrases += [row(evidence, run) for run in ROWS]
    for each in TEXTS:
        left = each
        for phrase in sorted(phrases, key=len, reverse=True):
            left = left.replace(phrase, "")
        assert re.findall(r".{0,40}\d.{0,20}", UNTABLED.sub("", left)) == []


@pytest.mark.parametrize("what", SHORT_SAID)
def test_a_number_in_short_is_that_of_the_tables(evidence, what):
    assert SHORT_SAID[what](evidence) in README


def row(evidence: Results, run: str) -> str:
    """A row of the README's table."""
    values = (
        f"{100 * evidence.end(run, 'update_sparsity').mean():.1f}",
        f"{degrees(mean_angle(evidence, run).mean()):.2f}",
        f"{1e3 * evidence.end(run, 'spectral_shift').mean():.2f}",
        f"{evidence.end(run, 'stable_rank', **ALONG).mean():.1f}",
        f"{100 * evidence.score(run)[0].mean():.1f}",
        f"{evidence.end(run, 'drift_ratio').mean():.2f}",
        f"{evidence.end(run, 'coordinate_energy', k=0.1).mean():.2f}",
    )
    return f"| {ROWS[run]} | {' | '.join(values)} |"


@pytest.mark.parametrize("run", ROWS)
def test_a_row_of_the_readme_is_that_of_the_tables(evidence, run):
    assert row(evidence, run) in README


def test_the_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_bytes()) <= 9000


def test_the_claims_are_counted():
    ids = {claim.id.rstrip("abc") for claim in CLAIMS}
    ours = {15: "fifteen", 17: "seventeen"}  # as the texts say it
    paper = sum(each.startswith("C") for each in ids)
    said = f"{ours[paper]} claims of the paper and {ours[len(ids) - paper]} of three other"
    assert said in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert said in " ".join((ROOT / "book/pages/findings.md").read_text(encoding="utf-8").split())


def test_the_claims_that_stay_open_or_fail_are_named(evidence):
    rows = ledger(evidence, ("C1", *(f"C{n}" for n in range(3, 10)), "C11", "C12", "C14", "M5"))
    partly = dict.fromkeys(("C1", "C3", "C4", "C5", "C6", "C7", "C9"), PARTLY)
    unmet = dict.fromkeys(("C8", "M5"), NOT_REPRODUCED)
    untested = dict.fromkeys(("C11", "C12", "C14"), UNTESTED)
    assert rows.set_index("claim")["verdict"].to_dict() == partly | unmet | untested


def test_the_claims_that_are_order_only_are_named(evidence):
    rows = ledger(evidence, ("C1", "C2", "C3", "C4", "C5", "C6"))
    assert rows.loc[rows["verdict, matched"] == ORDER_ONLY, "claim"].tolist() == ["C1", "C3", "C4", "C6"]


def test_opd_lies_beside_rlvr_on_every_metric(evidence):
    for metric in OVERVIEW:
        ends = regime_ends(evidence, metric)
        places = position(ends["opd"], ends["rlvr"], ends["sft"], log=metric.log)
        assert abs(places.mean()) < 0.1, metric.name


def test_the_channel_of_opd_is_there_no_earlier_than_others(evidence):
    opd, rlvr, matched = (
        evidence.first(run, "subspace_alignment", **ALONG) for run in ("opd", "rlvr", "sft_matched")
    )
    low, high = t_interval((opd - rlvr).to_numpy(), 0.95)
    assert low < 0 < high
    assert t_interval((opd - matched).to_numpy(), 0.95)[1] < 0


@pytest.mark.parametrize("run", ["sft", "opd"])
def test_weight_decay_adds_nothing(evidence, run):
    low, high = t_interval(gap(evidence, f"{run}_no_decay", run).to_numpy(), 0.95)
    assert low < 0 < high
