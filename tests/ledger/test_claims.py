"""The ledger: every verdict may fall either way, and nothing missing is an error."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from worlds import ELSEWHERE, FALSE, NEEDS, TOKENS, VARIANTS, world

from paper_lib.figures.results import Results
from paper_lib.ground.tables import write_table
from paper_lib.ledger.claim import ENDS
from paper_lib.ledger.page import SUMMARY, as_markdown, claims_in_short, the_rule, write_ledger
from paper_lib.ledger.rules.budgets import at_the_budgets
from paper_lib.ledger.rules.projection import retained, retained_shares
from paper_lib.ledger.verdicts import (
    CLAIMS,
    LEDGER_COLUMNS,
    MATCHED,
    NOT_REPRODUCED,
    ORDER_ONLY,
    PAPER,
    PARTLY,
    REPRODUCED,
    UNTESTED,
    VERDICTS,
    ledger,
    read_all,
    read_claim,
)
from paper_lib.study.profiles import HEADROOM, REFERENCE
from paper_lib.summaries import paired, say

IDS = [claim.id for claim in CLAIMS]
IDLE_IN_PART = ("C15a", "C15c", "S1")  # an identity, arithmetic, and a range of another width and rate
COLUMNS = {PAPER: "verdict", MATCHED: "verdict, matched"}


def read(evidence: Results, claim: str, column: str = "verdict") -> str:
    """One cell of the ledger."""
    return ledger(evidence, [claim])[column].item()


@pytest.fixture(scope="module")
def true_rows() -> pd.DataFrame:
    here = ledger(world(), [claim for claim in IDS if claim not in ELSEWHERE])
    elsewhere = [ledger(world(changes), [claim]) for claim, changes in ELSEWHERE.items()]
    return pd.concat([here, *elsewhere]).set_index("claim").loc[IDS]


@pytest.mark.parametrize("reading", [PAPER, MATCHED])
@pytest.mark.parametrize("claim", IDS)
def test_where_a_claim_is_true_it_is_reproduced(true_rows, claim, reading):
    why = true_rows.loc[claim, "why" if reading == PAPER else "why, matched"]
    assert true_rows.loc[claim, COLUMNS[reading]] == (PARTLY if claim in IDLE_IN_PART else REPRODUCED), why
    assert "Fails" not in why


@pytest.mark.parametrize("claim", IDS)
def test_where_a_claim_is_false_it_is_not_reproduced(claim):
    for reading in read_all(world(FALSE[claim]), [claim]):
        assert reading.verdict == NOT_REPRODUCED, (reading.name, reading.why)


@pytest.fixture(scope="module", params=[(0,), (0, 1)], ids=str)
def few_seeds(request) -> Results:
    return world(seeds=request.param)


@pytest.mark.parametrize("claim", IDS)
def test_fewer_than_three_seeds_are_no_test(claim, few_seeds):
    for reading in read_all(few_seeds, [claim]):
        assert reading.verdict == UNTESTED
        assert "of the 3 needed" in reading.why


@pytest.mark.parametrize("claim", [claim for claim in IDS if claim not in ("C2", "C12")])
def test_a_missing_run_or_table_leaves_a_claim_untested_with_the_reason(claim):
    missing = NEEDS.get(claim, "rlvr")
    without = ("mix_0.75", "mix_0.25") if claim == "C14" else (missing,)
    rows = read_claim(next(each for each in CLAIMS if each.id == claim), world(without=without))
    assert rows.verdict == UNTESTED
    assert ("mix_" if claim == "C14" else missing.removesuffix("s")) in rows.why.lower()


def test_a_family_with_a_missing_member_is_reproduced_in_part():
    assert read(world(without=(TOKENS[0],)), "C12") == PARTLY
    assert TOKENS[0] in read(world(without=(TOKENS[0],)), "C12", "why")
    assert read(world(without=tuple(VARIANTS)), "C2") == UNTESTED


def test_tables_of_one_run_leave_everything_but_claims_about_it_untested():
    evidence = world()
    matrices = evidence.table("matrices")
    alone = {name: table.head(0) for name, table in evidence.tables.items() if name != "nulls"}
    alone |= {"nulls": evidence.table("nulls"), "matrices": matrices[matrices["run"] == "opd"]}
    rows = ledger(replace(evidence, tables=alone))
    tested = rows.loc[rows["verdict"] != UNTESTED, "claim"].tolist()
    assert tested == ["S3", "S4"]


def test_an_overlap_without_a_visible_update_leaves_its_claim_untested():
    evidence = world({"principal_overlap": {"rlvr": np.nan}})
    assert read(evidence, "C5") == UNTESTED
    assert "rincipal_overlap of rlvr at the end is undefined" in read(evidence, "C5", "why")


def test_half_an_ordering_is_partly_and_names_the_half_that_fails():
    evidence = world({"update_sparsity": {"rlvr": 0.4}})
    assert read(evidence, "C1") == PARTLY
    assert read(evidence, "C1", "why") == "Holds: SFT < OPD. Fails: OPD < RLVR"


@pytest.mark.parametrize(
    ("claim", "changes", "pair"),
    [
        ("C1", {"update_sparsity": {"rlvr": 0.54}}, "OPD < RLVR"),  # 2.4 points, the paper 25.6
        ("C4", {"spectral_shift": {"rlvr": 9e-5}}, "OPD > RLVR"),  # a factor 1.1, the paper 10
        ("S7", {"accuracy": {"opd_sgd": 0.63}}, "AdamW at the study's rate above SGD"),
    ],
)
def test_less_than_a_tenth_of_the_papers_size_is_the_order_alone(claim, changes, pair):
    evidence = world(changes, jitter=1e-4)
    assert read(evidence, claim) == ORDER_ONLY
    assert f"ess than a tenth of the paper's size: {pair}" in read(evidence, claim, "why")
    assert "% of the paper's" in read(evidence, claim, "comparisons")


def test_a_gain_of_nothing_is_no_proof_that_it_was_kept_or_lost():
    idle_sft = world({"learning": {"sft": (0.3, 0.35, 0.35)}})
    assert read(idle_sft, "C11") == PARTLY
    assert read(idle_sft, "C11", "why").count("nothing to keep") == 1  # once for both comparisons
    idle = world({"learning": {"sft": (0.3, 0.35, 0.35), "opd": (0.4, 0.4, 0.4)}})
    assert read(idle, "C11") == UNTESTED
    assert list(retained_shares(idle).index) == ["SFT, matched, own early V", "SFT, matched, K = 0"]


def test_the_share_that_is_kept_is_0_at_k_0_and_1_where_nothing_is_lost():
    evidence = world({"learning": {"opd_projected_early": 0.6}}, jitter=0)
    arms = ("opd_projected_none", "opd_projected_random", "opd_projected_early")
    kept = [retained(evidence, "opd", arm).tolist() for arm in arms]
    assert kept == [[pytest.approx(share)] * 3 for share in (0, 0.25, 1)]


def on_new_skills(ends: dict[str, float]) -> Results:
    """Greedy accuracy of runs of two seeds: 0.3 at the parents' branch, then straight to their ends."""
    rows = [
        (run, seed, step, "greedy_accuracy", value)
        for run, end in ends.items()
        for seed in (20, 21, 22)
        for step, value in ((0, 0.2), (10, 0.25), (20, 0.3), (100, end))
    ]
    curves = pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "value"])
    matrices = pd.DataFrame({"run": list(ends)})
    return Results(study=HEADROOM, tables={"curves": curves, "matrices": matrices})


def test_where_all_else_is_frozen_k_0_is_the_parent_at_its_branch():
    ends = {"opd": 0.5, "opd_projected_early": 0.46, "opd_projected_early_at_10": 0.45}
    evidence = on_new_skills(ends)
    assert retained(evidence, "opd", "opd_projected_early").tolist() == [pytest.approx(0.8)] * 3
    assert retained(evidence, "opd", "opd_projected_early_at_10").tolist() == [pytest.approx(0.8)] * 3
    assert list(retained_shares(evidence)["seeds"]) == [3, 3]


def test_confinement_is_judged_on_new_skills_where_their_tables_are_there(tmp_path):
    arms = {
        "projected_early": (0.49, 0.5),
        "projected_early_e80": (0.49, 0.5),
        "projected_random": (0.4, 0.4),
    }
    ends = {"opd": 0.5, "sft_matched": 0.7}
    ends |= {f"{run}_{arm}": end[at] for arm, end in arms.items() for at, run in enumerate(ends)}
    folder = tmp_path / "headroom"
    folder.mkdir()
    for name, table in on_new_skills(ends).tables.items():
        write_table(table, folder / f"{name}.parquet", columns=list(table), fingerprint="0" * 16)
    easy = replace(world(), study=REFERENCE, folder=tmp_path / "reference")
    claim = next(claim for claim in CLAIMS if claim.id == "C11")
    reading = read_claim(claim, easy)
    assert reading.verdict == REPRODUCED
    assert claim.judged_on in reading.why
    assert claim.judged_on not in read_claim(claim, easy, MATCHED).why


def test_a_margin_that_another_objective_passes_preserves_nothing():
    near = {"rlvr": (25.1, 25.3, 26.1)}
    assert read(world({"stable_rank": near}), "C12") == UNTESTED
    assert "RLVR, another objective, is within 0.1 too" in read(world({"stable_rank": near}), "C12", "why")
    far = near | {"opd_tokens_random_25": (80.0, 80.0, 80.0)}
    assert read(world({"stable_rank": far}), "C12") == NOT_REPRODUCED


def test_a_mix_cannot_lie_between_objectives_that_do_not_differ():
    same = dict.fromkeys(("rlvr", "rlvr_restream"), (25, 25.5, 26.1))
    assert read(world({"stable_rank": same}), "C14") == UNTESTED


def test_equal_ranks_at_equal_norms_show_nothing():
    assert read(world({"frobenius_norm": {"rlvr": 0.45}}), "C8") == NOT_REPRODUCED


def test_half_of_the_energy_is_no_finding_where_more_than_half_of_the_weights_are():
    evidence = world()
    matrices = evidence.table("matrices")
    sizes = matrices["metric"].eq("parameters") & matrices["module"].eq("up")
    heavy = {"matrices": matrices.assign(value=matrices["value"].mask(sizes, 1000.0))}
    why = read(replace(evidence, tables=evidence.tables | heavy), "S4", "why")
    assert "more than half of the weights are there" in why


def test_an_optimizer_is_to_win_at_its_best_rate_and_at_the_studys():
    faster = {"opd_lr_2e-05": 0.7}
    beaten = {"accuracy": {"opd": 0.4} | faster, "learning": {"opd_lr_2e-05": (0.4, 0.6, 0.7)}}
    assert read(world(beaten), "S7") == PARTLY
    assert read(world(beaten | {"accuracy": {"opd": 0.6} | faster}), "S7") == REPRODUCED
    assert read(world(beaten | {"learning": {"opd_lr_2e-05": (0.4, 0.4, 0.4)}}), "S7") == NOT_REPRODUCED


def test_other_seeds_can_change_a_verdict():
    values = {0: 0.77, 1: 0.78, 2: 0.76, 3: 0.2, 4: 0.3, 5: 0.25}
    evidence = world(seeds=tuple(values))
    rows = evidence.table("matrices")
    chosen = (rows["run"] == "rlvr") & (rows["metric"] == "update_sparsity")
    moved = rows.assign(value=rows["value"].mask(chosen, rows["seed"].map(values)))
    verdicts = []
    for seeds in ((0, 1, 2), (3, 4, 5), (0, 1, 2, 3, 4, 5)):
        tables = {"matrices": moved, "nulls": evidence.table("nulls")}
        chosen_seeds = {name: table[table["seed"].isin(seeds)] for name, table in tables.items()}
        verdicts.append(read(replace(evidence, tables=evidence.tables | chosen_seeds), "C1"))
    assert verdicts == [REPRODUCED, PARTLY, PARTLY]
    every_seed = replace(evidence, tables=evidence.tables | {"matrices": moved})
    assert read(every_seed, "C1", "why").endswith("Undecided: OPD < RLVR")


@pytest.mark.parametrize(
    ("claim", "null", "explained"),
    [
        ("C1", {"null rescaled_sft update_sparsity": {"opd": 0.516}}, "as sparse"),
        ("C3", {f"null rescaled_sft angle_{side}_mean": {"opd": 0.02} for side in "uv"}, "rotates as little"),
        ("C5", {"null permuted principal_overlap": {"opd": 0.2731}}, "rounding to bf16"),
        ("C6", {"null permuted low_magnitude_overlap": {"opd": 0.5359}}, "rounding to bf16"),
        ("C7", {"stable_rank": {"rlvr_random_reward": 20.0}}, "credit by chance"),
        ("C10", {"subspace_alignment": {"opd_shuffled_credit": (0.9, 0.9, 1)}}, "credit by chance"),
        ("C11", {"learning": {"opd_projected_random": 0.6}}, "random V"),
        ("P3", {"pair jaccard_rounding": {("opd", "opd_restream", 0): 0.6}}, "small weights"),
        ("S5", {"pair reverse_coverage_rounding": {("opd", "rlvr", 0): 0.53}}, "small weights"),
    ],
)
def test_a_null_that_gives_the_effect_leaves_the_verdict_and_says_so(true_rows, claim, null, explained):
    assert true_rows.loc[claim, "beyond the null"] == "yes"
    row = ledger(world(null), [claim]).iloc[0]
    assert row["verdict"] == REPRODUCED
    assert row["beyond the null"] == "no"
    assert explained in row["why"]


def test_matched_sft_is_read_beside_the_papers_setting():
    evidence = world({"update_sparsity": {"sft_matched": 0.516}, "frobenius_norm": {"sft_matched": 0.4}})
    assert read(evidence, "C1") == REPRODUCED
    assert read(evidence, "C1", "verdict, matched") == PARTLY
    assert read(world(without=("sft_matched",)), "C1", "verdict, matched") == UNTESTED


def test_further_readings_put_other_runs_into_the_roles():
    alone = world()
    assert read(alone, "C1", "OPD at SFT's settings").startswith(
        f"{UNTESTED}: No update_sparsity of opd_as_sft"
    )
    assert read(alone, "C12", "equal norm") == "–"
    beside = world({"update_sparsity": {"opd_as_sft": 0.2, "opd_batch_64": 0.4, "opd_batch_128": 0.9}})
    assert read(beside, "C1", "OPD at SFT's settings").startswith(f"{REPRODUCED}: ✓ SFT <")
    assert read(beside, "C1", "OPD at a quarter of the batch").startswith(REPRODUCED)


def test_no_cell_of_the_ledger_is_empty_and_every_verdict_is_known(true_rows):
    for rows in (true_rows.reset_index(), ledger(world(seeds=(0,), without=("rlvr", "pairs", "curvature")))):
        assert list(rows["claim"]) == IDS
        assert rows.map(lambda cell: isinstance(cell, str) and cell != "").all().all()
        assert set(rows["verdict"]) | set(rows["verdict, matched"]) <= set(VERDICTS)


def test_the_ledger_covers_the_paper_and_two_others():
    assert sum(name.startswith("C") for name in IDS) >= 15
    assert sum(name[0] in "PS" for name in IDS) >= 6
    assert len(IDS) == len(set(IDS)) == len(FALSE)
    assert {name for claim in CLAIMS for name in claim.also} == set(ENDS)


def test_the_sheet_reads_back_as_the_ledger_and_the_page_has_claims_and_rule(tmp_path):
    rows = ledger(world())
    page, sheet = write_ledger(rows, tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_csv(sheet, dtype=str, keep_default_na=False), rows, check_dtype=False
    )
    assert list(rows.columns) == list(LEDGER_COLUMNS)
    text = page.read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(CLAIMS)
    assert {line.replace(r"\|", "").count("|") for line in lines} == {len(SUMMARY) + 1}
    assert all(f"### {claim}. " in text for claim in IDS)
    assert the_rule() in " ".join(text.split())
    assert "smoke: 0.0003 M weights in 3 matrices" in " ".join(text.split())


def test_a_notebook_shows_its_own_claims_alone():
    table = str(claims_in_short(ledger(world(), ("C1", "C14"))).data)
    assert [line.split(" | ")[0] for line in table.splitlines()] == ["| claim", "| ---", "| C1", "| C14"]


def test_only_the_claims_asked_for_are_read():
    assert ledger(world(), ("C14", "C2"))["claim"].tolist() == ["C2", "C14"]
    with pytest.raises(ValueError, match="no claim 'C99'; there are C1, C2"):
        ledger(world(), ["C99"])


def test_a_bar_in_a_cell_does_not_end_the_cell():
    assert as_markdown(pd.DataFrame({"why": ["|ΔW| grows"]}), ["why"]).splitlines()[-1] == r"| \|ΔW\| grows |"


def test_values_are_said_with_half_the_interval_of_their_mean():
    assert say(pd.Series([0.51634])) == "0.516"
    assert say(pd.Series([1.0, 2.0, 3.0])) == "2.0 ± 2.5"  # t = 4.303, s = 1, N = 3
    assert say(pd.Series([0.1, 0.1]), 100) == "10 ± 0"


def test_pairs_are_of_the_seeds_that_both_have():
    a, b = paired(pd.Series({0: 1.0, 2: 3.0}), pd.Series({2: 5.0, 4: 6.0}))
    assert (a.to_dict(), b.to_dict()) == ({2: 3.0}, {2: 5.0})


def test_at_the_budgets_a_claim_holds_where_it_holds_as_printed_and_at_either_budget():
    order = {"sft": 0.1, "opd": 0.3, "rlvr": 0.5}
    lengths = {"sft_short": 0.1, "rlvr_short": 0.5, "sft_long": 0.1, "opd_long": 0.3}
    claim = next(claim for claim in CLAIMS if claim.id == "C1")
    held = at_the_budgets(claim.rule, world({"update_sparsity": order | lengths}))
    assert [contrast.outcome for contrast in held.contrasts] == ["holds"] * 6
    of_budget = world({"update_sparsity": order | lengths | {"opd_long": 0.6}})
    outcomes = [each.outcome for each in at_the_budgets(claim.rule, of_budget).contrasts]
    assert outcomes == [*["holds"] * 5, "fails"]
