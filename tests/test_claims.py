"""The ledger: every verdict may fall either way, and nothing missing is an error."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from paper_lib.claims import CLAIMS, LEDGER_COLUMNS, UNTESTED, VERDICTS, ledger
from paper_lib.config import DiagnosticsConfig
from paper_lib.evidence import Evidence, distance, paired, say, seed_spread
from paper_lib.ledger import as_markdown, found, write_ledger

K_OF = {"principal_overlap": 0.3, "low_magnitude_overlap": 0.3, "subspace_alignment": 3.0, "hill_index": 16.0}
STEPS = (10, 20, 30)
TOKENS = [f"opd_tokens_{how}_{share}" for how in ("top_gap", "random") for share in (25, 50)]

# What each run shows at its three snapshots, in a world where the paper is right.
PAPER = {
    "update_sparsity": {
        **{"sft": 0.081, "opd": 0.516, "rlvr": 0.772},
        **{"opd_small_teacher": 0.503, "opd_second_domain": 0.571},
    },
    "angle_u_mean": {"sft": 0.2, "opd": 0.02, "rlvr": 0.01},
    "angle_v_mean": {"sft": 0.2, "opd": 0.02, "rlvr": 0.01},
    "spectral_shift": {"sft": 1e-3, "opd": 1e-4, "rlvr": 1e-5},
    "principal_overlap": {"sft": 0.2966, "opd": 0.2731, "rlvr": 0.2665},
    "low_magnitude_overlap": {"sft": 0.3188, "opd": 0.5359, "rlvr": 0.7348},
    "stable_rank": {
        **{"sft": (20, 40, 60), "opd": (25, 25.5, 26), "rlvr": (30, 26, 22)},
        **{run: (25.1, 25.4, 26.3) for run in (*TOKENS, "opd_teacher_rollouts", "mix_0.75")},
        **{"mix_0.25": (28, 26, 24), "mix_0.01": (29.9, 26, 22.1)},
    },
    "frobenius_norm": {
        **{"sft": 4.701, "opd": 0.452, "rlvr": 0.168, "opd_teacher_rollouts": 0.5},
        **dict.fromkeys(TOKENS, 0.3),
    },
    "hill_index": {"sft": (2, 3, 4), "opd": (2.34, 2.6, 2.93), "rlvr": (3, 2.5, 2)},
    "subspace_alignment": {"sft": (0.4, 0.7, 1), "opd": (0.8, 0.9, 1), "rlvr": (0.5, 0.8, 1)},
}
ACCURACY = {"opd": 0.633, "opd_projected_early": 0.642, "sft": 0.555, "sft_projected_early": 0.456}

# What to change so that every comparison of a claim fails.
REVERSED = {
    "C1": {"update_sparsity": {"sft": 0.9, "rlvr": 0.1}},
    "C2": {"update_sparsity": {"opd_small_teacher": 0.09, "opd_second_domain": 0.77}},
    "C3": {"angle_u_mean": {"sft": 0.001, "rlvr": 0.3}, "angle_v_mean": {"sft": 0.001, "rlvr": 0.3}},
    "C4": {"spectral_shift": {"sft": 1e-5, "rlvr": 1e-3}},
    "C5": {"principal_overlap": {"sft": 0.29, "opd": 0.31, "rlvr": 0.33}},
    "C6": {"low_magnitude_overlap": {"sft": 0.31, "opd": 0.29, "rlvr": 0.27}},
    "C7": {"stable_rank": {"sft": (22, 21, 20), "opd": (20, 40, 60), "rlvr": (20, 21, 22)}},
    "C8": {"frobenius_norm": {"rlvr": 0.45}, "stable_rank": {"rlvr": (30, 20, 15)}},
    "C9": {"hill_index": {"sft": (3, 2.5, 2), "opd": (2, 4, 6), "rlvr": (2, 3, 4)}},
    "C10": {"subspace_alignment": {"opd": (0.2, 0.6, 1)}},
    "C11": {},
    "C12": {"stable_rank": dict.fromkeys(TOKENS, (80.0, 80.0, 80.0))},
    "C13": {
        "stable_rank": {"opd_teacher_rollouts": (80.0, 80.0, 80.0)},
        "frobenius_norm": {"opd_teacher_rollouts": 0.4},
    },
    "C14": {"stable_rank": {"mix_0.75": (29.9, 26, 22.1), "mix_0.01": (25.1, 25.4, 26.3)}},
}
NEEDS = {
    "C2": "opd_small_teacher",
    "C11": "sft_projected_early",
    "C12": TOKENS[0],
    "C13": "opd_teacher_rollouts",
}


def world(
    changes: dict[str, dict] | None = None,
    *,
    accuracy: dict[str, float] = ACCURACY,
    seeds: tuple[int, ...] = (0,),
    jitter: float = 0.001,
    without: tuple[str, ...] = (),
) -> Evidence:
    """Tables of one attention matrix, as in PAPER with `changes`; OPD's seeds 1 + jitter apart."""
    metrics = {name: runs | (changes or {}).get(name, {}) for name, runs in PAPER.items()}
    names = {run for runs in metrics.values() for run in runs}
    rows = [("opd", 0, step, "parameters", np.nan, 100.0) for step in STEPS]
    for seed in seeds:
        rows += [(run, seed, step, "parameters", np.nan, 100.0) for run in names for step in STEPS]
        for metric, runs in metrics.items():
            for run, values in runs.items():
                path = np.broadcast_to(values, 3) * (1 + jitter * seed * (run == "opd"))
                rows += [
                    (run, seed, s, metric, K_OF.get(metric), v) for s, v in zip(STEPS, path, strict=True)
                ]
    frame = pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "k", "value"]).drop_duplicates()
    frame = frame.astype({"k": float, "value": float}).assign(profile="smoke", layer=0, module="q")
    frame = frame[~frame["run"].isin(without)]
    walk = frame[frame["metric"] == "subspace_alignment"]
    walk = walk.assign(null="random_walk", value=walk["value"].where(walk["step"] == STEPS[-1], 0.3))
    scores = [
        (run, seed, STEPS[-1], f"{name}:chain_sum", value)
        for seed in seeds
        for run, share in accuracy.items()
        for name, value in (("sampled_accuracy", share), ("sampled_accuracy_se", 0.01))
    ]
    curves = pd.DataFrame(scores, columns=["run", "seed", "step", "metric", "value"]).assign(profile="smoke")
    return Evidence(
        profile="smoke",
        home="chain_sum",
        diagnostics=DiagnosticsConfig(),
        matrices=frame,
        nulls=walk,
        curves=curves[~curves["run"].isin(without)],
    )


def read(evidence: Evidence, claim: str, column: str = "verdict") -> str:
    """One cell of the ledger."""
    return ledger(evidence, [claim])[column].item()


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_where_the_paper_is_right_every_claim_agrees(seeds):
    rows = ledger(world(seeds=seeds))
    assert rows.set_index("claim")["verdict"].to_dict() == {claim.id: "agrees" for claim in CLAIMS}


@pytest.mark.parametrize("claim", REVERSED)
def test_every_claim_can_fail(claim):
    lost = {"opd": 0.633, "opd_projected_early": 0.4, "sft": 0.555, "sft_projected_early": 0.555}
    evidence = world(REVERSED[claim], accuracy=lost if claim == "C11" else ACCURACY)
    assert read(evidence, claim) == "disagrees", read(evidence, claim, "why")


def test_half_an_ordering_is_partly_and_names_the_half_that_fails():
    evidence = world({"update_sparsity": {"rlvr": 0.4}})
    assert read(evidence, "C1") == "partly"
    assert read(evidence, "C1", "why") == "Fails: OPD < RLVR"


@pytest.mark.parametrize("claim", [claim.id for claim in CLAIMS])
def test_a_missing_run_leaves_a_claim_untested_with_the_reason(claim):
    run = NEEDS.get(claim, "rlvr")
    evidence = world(without=("mix_0.25", "mix_0.01") if claim == "C14" else (run,))
    assert read(evidence, claim) == UNTESTED
    assert ("mix_" if claim == "C14" else run) in read(evidence, claim, "why")


def test_tables_of_one_run_leave_everything_untested():
    names = {run for runs in PAPER.values() for run in runs} - {"opd"}
    rows = ledger(world(without=(*names, *(set(ACCURACY) - {"opd"}))))
    assert set(rows["verdict"]) == {UNTESTED}


def test_an_overlap_without_a_visible_update_leaves_its_claim_untested():
    evidence = world({"principal_overlap": {"rlvr": np.nan}})
    assert read(evidence, "C5") == UNTESTED
    assert "principal_overlap of rlvr at the end is undefined" in read(evidence, "C5", "why")


def test_comparisons_that_seeds_drown_are_no_verdict():
    evidence = world(seeds=(0, 1), jitter=3.0)
    assert {read(evidence, claim) for claim in ("C12", "C13", "C14")} == {UNTESTED}
    assert "than seeds move that distance" in read(evidence, "C12", "why")


def test_nothing_to_lose_is_no_proof_that_nothing_was_lost():
    scores = ACCURACY | {"opd": 0.56, "opd_projected_early": 0.56}
    evidence = world(accuracy=scores)
    assert read(evidence, "C11") == UNTESTED
    assert "nothing to lose" in read(evidence, "C11", "why")
    assert read(world(accuracy=scores | {"opd_projected_early": 0.5}), "C11") == "partly"


def test_an_ordering_goes_by_the_mean_and_says_how_many_seeds_follow():
    evidence = world(seeds=(0, 1, 2))
    swapped = (evidence.matrices["metric"] == "update_sparsity") & (evidence.matrices["seed"] == 1)
    swapped &= evidence.matrices["run"] == "rlvr"
    values = evidence.matrices["value"].mask(swapped, 0.5)
    evidence = replace(evidence, matrices=evidence.matrices.assign(value=values))
    assert read(evidence, "C1") == "agrees"
    assert "Not in every seed: OPD < RLVR (2 of 3 seeds)" in read(evidence, "C1", "why")


def test_matched_sft_is_read_beside_the_papers_setting():
    alone, column = world(), "verdict with matched SFT"
    assert read(alone, "C4", column) == UNTESTED
    assert read(alone, "C12", column) == "–"
    beside = world({metric: {"sft_matched": runs["opd"]} for metric, runs in PAPER.items()})
    assert read(beside, "C1", column) == "partly"
    assert read(beside, "C9", column) == "partly"
    assert read(beside, "C1") == "agrees"


def test_the_sheet_reads_back_as_the_ledger_and_the_page_has_every_claim(tmp_path):
    rows = ledger(world(seeds=(0, 1)))
    page, sheet = write_ledger(rows, tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_csv(sheet, dtype=str, keep_default_na=False), rows, check_dtype=False
    )
    assert list(rows.columns) == list(LEDGER_COLUMNS)
    assert set(rows["verdict"]) <= set(VERDICTS)
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(CLAIMS)
    assert {line.replace(r"\|", "").count("|") for line in lines} == {len(LEDGER_COLUMNS) + 1}
    assert "smoke: 0.0001 M weights in 1 matrices" in page.read_text()


def test_a_notebook_shows_its_own_claims_alone():
    table = found(ledger(world()), "C1", "C14")
    assert [line.split(" | ")[0] for line in table.splitlines()] == ["| claim", "| ---", "| C1", "| C14"]


def test_only_the_claims_asked_for_are_read():
    assert ledger(world(), ("C14", "C2"))["claim"].tolist() == ["C2", "C14"]
    with pytest.raises(ValueError, match="no claim 'C99'; there are C1, C2"):
        ledger(world(), ["C99"])


def test_a_bar_in_a_cell_does_not_end_the_cell():
    assert as_markdown(pd.DataFrame({"why": ["|ΔW| grows"]}), ["why"]).splitlines()[-1] == r"| \|ΔW\| grows |"


def test_distance_is_the_log_of_a_constant_factor_whatever_the_snapshots():
    path = pd.DataFrame({0: [2.0, 2.0, 2.0, 2.0]}, index=[0.25, 0.5, 0.75, 1.0])
    other = pd.DataFrame({0: [3.0, 3.0], 1: [9.0, 9.0]}, index=[0.5, 1.0])
    assert distance(path, other).to_dict() == pytest.approx({0: np.log(1.5)})


def test_seeds_that_move_two_runs_alike_do_not_move_their_distance():
    path = pd.DataFrame({0: [2.0, 2.0], 1: [6.0, 6.0]}, index=[0.5, 1.0])
    assert seed_spread(path, 5 * path) == pytest.approx(0, abs=1e-12)
    assert np.isnan(seed_spread(path[[0]], path))
    assert seed_spread(path, pd.DataFrame(1.0, index=path.index, columns=[0, 1])) == pytest.approx(
        np.log(3) / np.sqrt(2)
    )


def test_values_are_said_with_half_the_interval_of_their_mean():
    assert say(pd.Series([0.51634])) == "0.516"
    assert say(pd.Series([1.0, 2.0, 3.0])) == "2.0 ± 2.5"  # t = 4.303, s = 1, N = 3
    assert say(pd.Series([0.1, 0.1]), 100) == "10 ± 0"


def test_pairs_are_of_the_seeds_that_both_have():
    a, b = paired(pd.Series({0: 1.0, 2: 3.0}), pd.Series({2: 5.0, 4: 6.0}))
    assert (a.to_dict(), b.to_dict()) == ({2: 3.0}, {2: 5.0})
