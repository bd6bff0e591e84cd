"""The claims of the paper, C1–C15: what it says and where, and the rule that judges it."""

from paper_lib import rules_controls, rules_gates, rules_projection, rules_training, rules_weights
from paper_lib.findings import EQUALLY_SET, Claim
from paper_lib.rules_controls import PRESERVED
from paper_lib.rules_gates import SAME_DENSITY
from paper_lib.rules_projection import INTACT
from paper_lib.rules_training import NORM_FACTOR, RANK_FACTOR
from paper_lib.rules_weights import STABLE_SPARSITY

WHOLE = ("OPD at SFT's settings", "OPD at a quarter of the batch")  # for what compares whole trajectories
ENDS = (*WHOLE, *EQUALLY_SET, "equal norm", "equal accuracy")

CLAIMS_OF_PAPER = (
    Claim(
        id="C1",
        statement="The share of weights unchanged at bf16 rises from SFT to OPD to RLVR",
        where="§3.2, Table 1",
        paper="8.1 / 51.6 / 77.2 %",
        holds_when="sparsity: SFT < OPD < RLVR",
        rule=rules_weights.sparsity_order,
        also=ENDS,
    ),
    Claim(
        id="C2",
        statement="OPD's sparsity is stable over teachers, student sizes and data domains",
        where="§3.2, Table 1",
        paper="48.6–57.1 % over six variants",
        holds_when=f"each variant within {100 * STABLE_SPARSITY:g} points of OPD, as the paper's are",
        rule=rules_weights.sparsity_of_variants,
        matched="by design: each variant has OPD's rate, steps and batch",
    ),
    Claim(
        id="C3",
        statement="SFT rotates the principal subspaces most, then OPD, then RLVR",
        where="§3.2, Fig. 2",
        paper="> 10° / about 1° / < 0.5°, one layer",
        holds_when="mean principal angle, in logarithms: SFT > OPD > RLVR",
        rule=rules_weights.rotation_order,
        also=ENDS,
    ),
    Claim(
        id="C4",
        statement="SFT shifts the spectrum most, then OPD, then RLVR",
        where="§3.2, Fig. 2",
        paper="NSS 1e-3 / 1e-4 / 1e-5",
        holds_when="NSS, in logarithms: SFT > OPD > RLVR",
        rule=rules_weights.shift_order,
        also=ENDS,
    ),
    Claim(
        id="C5",
        statement="Visible updates avoid principal weights, more so from SFT to OPD to RLVR",
        where="§3.2, Fig. 3",
        paper="29.66 / 27.31 / 26.65 %, chance 30 %",
        holds_when="overlap: SFT > OPD > RLVR; OPD and RLVR below chance",
        rule=rules_weights.principal_overlap,
        also=ENDS,
    ),
    Claim(
        id="C6",
        statement="Visible updates gather on small weights, more so from SFT to OPD to RLVR",
        where="§3.2, Fig. 3",
        paper="31.88 / 53.59 / 73.48 %, chance 30 %",
        holds_when="overlap: SFT < OPD < RLVR; OPD and RLVR above chance",
        rule=rules_weights.low_magnitude_overlap,
        also=ENDS,
    ),
    Claim(
        id="C7",
        statement="Stable rank: OPD stays in a narrow low band, SFT grows, RLVR contracts",
        where="§4.1, Fig. 4a",
        paper="OPD about 20–30, SFT to about 75",
        holds_when="SFT grows, RLVR contracts; OPD's band is at most half of either's and ends below SFT",
        rule=rules_training.rank_regimes,
        also=ENDS,
    ),
    Claim(
        id="C8",
        statement="OPD's low rank is not a small norm: it is well above RLVR's at about the same stable rank",
        where="§4.1, Fig. 4b",
        paper="norms 4.701 / 0.452 / 0.168 (first draft)",
        holds_when=(
            f"norm OPD/RLVR above {NORM_FACTOR}, and then end stable ranks within a factor {RANK_FACTOR}"
        ),
        rule=rules_training.norm_and_rank,
        matched="by design: OPD and RLVR share start, rate, steps and batch",
        also=(*WHOLE[1:], *EQUALLY_SET),
    ),
    Claim(
        id="C9",
        statement="Hill index: OPD drifts mildly, SFT rises sharply, RLVR falls",
        where="§4.1, Fig. 4c",
        paper="OPD 2.34 → 2.93 (first draft)",
        holds_when="SFT rises, RLVR falls, OPD moves less than SFT, in logarithms",
        rule=rules_training.tail_drift,
        also=WHOLE,
    ),
    Claim(
        id="C10",
        statement="OPD's first checkpoint already has its final top subspace; SFT's and RLVR's come later",
        where="§4.2, Fig. 5",
        paper="no values printed (axis 0.4–1.0)",
        holds_when="Sim_K(first, end): OPD above SFT and RLVR",
        rule=rules_training.early_subspace,
        also=WHOLE,
    ),
    Claim(
        id="C11",
        statement="Training on inside the early subspace leaves OPD intact and degrades SFT",
        where="§4.2, Figs 6, 8",
        paper="OPD 63.3 → 64.2, SFT 55.5 → 45.6 (first draft)",
        holds_when=(
            f"OPD loses less than {100 * INTACT:g} points of accuracy, SFT more than that and OPD; each only "
            "where the free run gains more than that after the branch"
        ),
        rule=rules_projection.projected_training,
        matched="SFT is confined at OPD's start, rate, steps and batch, where it learns on after the branch",
    ),
    Claim(
        id="C12",
        statement="Keeping 25 or 50 % of the tokens preserves the stable-rank trajectory",
        where="§5.1, Figs 7a, 9",
        paper="preserved (axis 18–29)",
        holds_when=f"each within {PRESERVED:g} of OPD's trajectory, RMS log distance, where RLVR is not",
        rule=rules_controls.kept_tokens,
        matched="by design: the controls change nothing else",
    ),
    Claim(
        id="C13",
        statement="Teacher rollouts preserve the stable-rank trajectory, with a somewhat larger norm",
        where="§5.1, Figs 7b, 9",
        paper="preserved; norm larger",
        holds_when=f"within {PRESERVED:g} of OPD's trajectory, where RLVR is not; the norm ends above OPD's",
        rule=rules_controls.teacher_rollouts,
        matched="by design: the control changes nothing else",
    ),
    Claim(
        id="C14",
        statement="Mixing in RLVR's advantage leaves OPD's trajectory once OPD's share is small",
        where="§5.2, Figs 7c, 9",
        paper="α from 0.75 to 0.01",
        holds_when=(
            "the largest α is nearer to OPD, the smallest nearer to RLVR and farther from OPD, where RLVR is "
            "farther from OPD than other rollouts lead"
        ),
        rule=rules_controls.advantage_mixes,
        matched="mixes of advantages at unit scale, so that α does not change the gradient's size",
    ),
    Claim(
        id="C15a",
        statement="Gate I: an anchor keeps the policy near its start, and so bounds the norm",
        where="§3.3, App. D",
        paper="‖ΔW‖ ≤ √(2δ/μ), qualitative",
        holds_when="KL to the start: OPD and RLVR below SFT; norms within the bound",
        rule=rules_gates.anchor_gate,
    ),
    Claim(
        id="C15b",
        statement="Gate II: the model's geometry steers the update off the principal directions",
        where="§3.3, App. D",
        paper="qualitative",
        holds_when=(
            "OPD and RLVR rotate a tenth less than SFT's update at their norm, and show less on principal, "
            "not small weights than with their entries permuted, by a tenth of the distance from chance; "
            "OPD's energy in the principal subspaces is below a random update's; principal directions are "
            "the steeper ones"
        ),
        rule=rules_gates.geometry_gate,
    ),
    Claim(
        id="C15c",
        statement="Gate III: bf16 decides which part of an update is visible",
        where="§3.3, App. D",
        paper="visible when |ΔW| ≳ ½ ULP, qualitative",
        holds_when=(
            f"sparsity with entries in random places within {100 * SAME_DENSITY:g} points; ½ ULP predicts "
            f"more than {100 - 100 * SAME_DENSITY:g} % of the entries"
        ),
        rule=rules_gates.visibility_gate,
    ),
)
