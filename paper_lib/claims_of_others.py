"""Claims of two other papers that our runs can test: P1–P5 of PNT, S1–S7 of the sibling."""

from paper_lib import rules_pnt, rules_sibling
from paper_lib.findings import Claim
from paper_lib.rules_pnt import NEAR_CHANCE
from paper_lib.rules_projection import INTACT
from paper_lib.rules_sibling import FAR_BELOW

PNT, SIBLING = "The Path Not Taken, 2511.08567", "Dense Supervision, Sparse Updates, 2606.13657"
SAME_SETTINGS = "by design: the runs compared share start, rate, steps and batch"
ONE_RUN = "by design: it is about one run, against its chance"

CLAIMS_OF_OTHERS = (
    Claim(
        id="P1",
        statement="RLVR's updates are sparser than SFT's",
        where=PNT,
        paper="36–92 / 0.6–18.8 %",
        holds_when="sparsity: RLVR > SFT",
        rule=rules_pnt.sparser_than_sft,
        also=("equal norm", "equal accuracy"),
    ),
    Claim(
        id="P2",
        statement="Rotating heads, the function unchanged, destroys mask overlap in those layers only",
        where=PNT,
        paper="overlap falls to chance in the rotated layers",
        holds_when=(
            f"Jaccard of attention masks: within {100 * NEAR_CHANCE:g} points of chance in rotated layers, "
            "above that in the others"
        ),
        rule=rules_pnt.rotated_heads,
        matched=SAME_SETTINGS,
    ),
    Claim(
        id="P3",
        statement="Update masks of different runs meet more than chance",
        where=PNT,
        paper="Jaccard 0.55–0.60, chance 0.37–0.47",
        holds_when="Jaccard above that of independent masks: OPD and other rollouts, OPD and RLVR",
        rule=rules_pnt.masks_across_runs,
        matched=SAME_SETTINGS,
    ),
    Claim(
        id="P4",
        statement="RLVR keeps the spectral geometry that SFT disturbs",
        where=PNT,
        paper="rotation and spectral shift below SFT's",
        holds_when="mean principal angle and NSS, in logarithms: RLVR < SFT",
        rule=rules_pnt.milder_than_sft,
        also=("equal norm", "equal accuracy"),
    ),
    Claim(
        id="P5",
        statement="RLVR's visible updates avoid principal weights that are not small",
        where=PNT,
        paper="overlap below chance",
        holds_when="overlap with principal and not low-magnitude weights below their share",
        rule=rules_pnt.off_principal,
        matched=ONE_RUN,
    ),
    Claim(
        id="S1",
        statement="OPD's update is small, two orders of magnitude below offline distillation's",
        where=SIBLING,
        paper="0.036–0.142 / 11.9 % of ‖W₀‖",
        holds_when=f"relative norm in the sibling's range; at least {FAR_BELOW:g} times below SFT's",
        rule=rules_sibling.small_update,
    ),
    Claim(
        id="S2",
        statement="OPD's stable rank is below offline distillation's",
        where=SIBLING,
        paper="7.3–20.3 / 82.7",
        holds_when="stable rank, in logarithms: OPD < SFT",
        rule=rules_sibling.low_rank,
        also=("equal norm", "equal accuracy"),
    ),
    Claim(
        id="S3",
        statement="OPD's visible updates avoid principal weights and gather on small ones",
        where=SIBLING,
        paper="4.4–5.5 and 23–49 %, chance 10 %",
        holds_when="principal overlap below chance, low-magnitude overlap above",
        rule=rules_sibling.masks_of_opd,
        matched=ONE_RUN,
    ),
    Claim(
        id="S4",
        statement="The MLP carries most of the update's energy",
        where=SIBLING,
        paper="62–86 %",
        holds_when="more than half of ‖ΔW‖_F² over all matrices",
        rule=rules_sibling.energy_in_mlp,
        matched=ONE_RUN,
    ),
    Claim(
        id="S5",
        statement="RLVR's mask covers OPD's beyond chance",
        where=SIBLING,
        paper="53 %, chance 17.5 %",
        holds_when="share of OPD's visible entries that RLVR shows above RLVR's density",
        rule=rules_sibling.shared_masks,
        matched=SAME_SETTINGS,
    ),
    Claim(
        id="S6",
        statement="Training only the subnetwork that OPD found recovers its accuracy, a random one does not",
        where=SIBLING,
        paper="35.10 / 35.52 full / 32.92 random",
        holds_when=(
            f"found loses less than {100 * INTACT:g} points of accuracy, random more than that, and more "
            "than found"
        ),
        rule=rules_sibling.subnetwork,
        matched=SAME_SETTINGS,
    ),
    Claim(
        id="S7",
        statement="OPD with AdamW beats OPD with SGD",
        where=SIBLING,
        paper="43.0 / 39.1",
        holds_when="accuracy: AdamW > SGD, each at its best rate",
        rule=rules_sibling.optimizer,
        matched="by design: start, steps and batch shared, each optimizer at its own rate",
    ),
)
