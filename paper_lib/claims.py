"""What the paper claims, and for each claim a verdict that is computed from our tables and never asserted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from paper_lib import rules_training, rules_weights
from paper_lib.evidence import Evidence, Untested
from paper_lib.findings import Finding
from paper_lib.rules_training import NORM_FACTOR, RANK_FACTOR

UNTESTED = "not tested at this scale"
VERDICTS = ("agrees", "partly", "disagrees", UNTESTED)
LEDGER_COLUMNS = (
    *("claim", "statement", "where", "paper", "ours", "scale", "verdict", "why"),
    *("with matched SFT", "verdict with matched SFT", "agrees when"),
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the ledger. rule: evidence, and the run that plays SFT, to a finding. about_sft: the claim
    compares with SFT, so it is read a second time with matched SFT."""

    id: str
    statement: str
    where: str
    paper: str
    agrees_when: str
    rule: Callable[[Evidence, str], Finding]
    about_sft: bool = False


CLAIMS = (
    Claim(
        id="C1",
        statement="The share of weights unchanged at bf16 rises from SFT to OPD to RLVR",
        where="§3.2, Table 1",
        paper="8.1 / 51.6 / 77.2 %",
        agrees_when="sparsity: SFT < OPD < RLVR",
        rule=rules_weights.sparsity_order,
        about_sft=True,
    ),
    Claim(
        id="C2",
        statement="OPD's sparsity is stable over teachers and data domains",
        where="§3.2, Table 1",
        paper="48.6–57.1 % over six variants",
        agrees_when="each variant's sparsity is nearer to OPD's than to SFT's and RLVR's",
        rule=rules_weights.sparsity_of_variants,
    ),
    Claim(
        id="C3",
        statement="SFT rotates the principal subspaces most, then OPD, then RLVR",
        where="§3.2, Fig. 2",
        paper="> 10° / about 1° / < 0.5°, one layer",
        agrees_when="mean principal angle: SFT > OPD > RLVR",
        rule=rules_weights.rotation_order,
        about_sft=True,
    ),
    Claim(
        id="C4",
        statement="SFT shifts the spectrum most, then OPD, then RLVR",
        where="§3.2, Fig. 2",
        paper="NSS 1e-3 / 1e-4 / 1e-5",
        agrees_when="NSS: SFT > OPD > RLVR",
        rule=rules_weights.shift_order,
        about_sft=True,
    ),
    Claim(
        id="C5",
        statement="Visible updates avoid principal weights, more so from SFT to OPD to RLVR",
        where="§3.2, Fig. 3",
        paper="29.66 / 27.31 / 26.65 %, chance 30 %",
        agrees_when="overlap: SFT > OPD > RLVR; OPD and RLVR below chance",
        rule=rules_weights.principal_overlap,
        about_sft=True,
    ),
    Claim(
        id="C6",
        statement="Visible updates gather on small weights, more so from SFT to OPD to RLVR",
        where="§3.2, Fig. 3",
        paper="31.88 / 53.59 / 73.48 %, chance 30 %",
        agrees_when="overlap: SFT < OPD < RLVR; OPD and RLVR above chance",
        rule=rules_weights.low_magnitude_overlap,
        about_sft=True,
    ),
    Claim(
        id="C7",
        statement="Stable rank: OPD stays in a narrow low band, SFT grows, RLVR contracts",
        where="§4.1, Fig. 4a",
        paper="OPD about 20–30, SFT to about 75",
        agrees_when="SFT grows, RLVR contracts; OPD's band is at most half as wide, and ends below SFT",
        rule=rules_training.rank_regimes,
        about_sft=True,
    ),
    Claim(
        id="C8",
        statement="OPD's low rank is not a small norm: it is well above RLVR's at about the same stable rank",
        where="§4.1, Fig. 4b",
        paper="norms 4.701 / 0.452 / 0.168 (first draft)",
        agrees_when=f"norm OPD/RLVR above {NORM_FACTOR}; end stable ranks within a factor {RANK_FACTOR}",
        rule=rules_training.norm_and_rank,
    ),
    Claim(
        id="C9",
        statement="Hill index: OPD drifts mildly, SFT rises sharply, RLVR falls",
        where="§4.1, Fig. 4c",
        paper="OPD 2.34 → 2.93 (first draft)",
        agrees_when="SFT rises, RLVR falls, OPD moves less than SFT",
        rule=rules_training.tail_drift,
        about_sft=True,
    ),
    Claim(
        id="C10",
        statement="OPD's first checkpoint already has its final top subspace; SFT's and RLVR's come later",
        where="§4.2, Fig. 5",
        paper="no values printed (axis 0.4–1.0)",
        agrees_when="Sim_K(first, end): OPD above SFT, RLVR and a random walk with OPD's step lengths",
        rule=rules_training.early_subspace,
        about_sft=True,
    ),
    Claim(
        id="C11",
        statement="Training on inside the early subspace leaves OPD intact and degrades SFT",
        where="§4.2, Figs 6, 8",
        paper="OPD 63.3 → 64.2, SFT 55.5 → 45.6 (first draft)",
        agrees_when="OPD loses at most 2 standard errors; SFT loses more than 2, and more than OPD",
        rule=rules_training.projected_training,
    ),
    Claim(
        id="C12",
        statement="Keeping 25 or 50 % of the tokens preserves the stable-rank trajectory",
        where="§5.1, Figs 7a, 9",
        paper="preserved (axis 18–29)",
        agrees_when="each no farther from OPD than RLVR and SFT are, or than seeds move RLVR",
        rule=rules_training.kept_tokens,
    ),
    Claim(
        id="C13",
        statement="Teacher rollouts preserve the stable-rank trajectory, with a somewhat larger norm",
        where="§5.1, Figs 7b, 9",
        paper="preserved; norm larger",
        agrees_when="as C12, and the norm ends above OPD's",
        rule=rules_training.teacher_rollouts,
    ),
    Claim(
        id="C14",
        statement="Mixing in RLVR's advantage leaves OPD's trajectory once OPD's share is small",
        where="§5.2, Figs 7c, 9",
        paper="α from 0.75 to 0.01",
        agrees_when="the largest α is nearer to OPD, the smallest nearer to RLVR and farther from OPD",
        rule=rules_training.advantage_mixes,
    ),
)


def judge(finding: Finding) -> str:
    """agrees: every comparison holds; disagrees: none does; partly: some do; not tested: they were blunt."""
    if finding.blunt or not finding.checks:
        return UNTESTED
    held = sum(check.holds for check in finding.checks)
    return "agrees" if held == len(finding.checks) else "partly" if held else "disagrees"


def ledger(evidence: Evidence, only: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a claim, all text, columns LEDGER_COLUMNS. A missing run makes a row "not tested", no error.

    only: these claims, such as ("C7", "C8"), in the ledger's order; None is all. Raises ValueError
    for an unknown one.
    """
    known_claims = [claim.id for claim in CLAIMS]
    if unknown := sorted(set(only or ()) - set(known_claims)):
        raise ValueError(f"no claim {unknown[0]!r}; there are {', '.join(known_claims)}")
    rows = []
    for claim in [claim for claim in CLAIMS if only is None or claim.id in only]:
        ours, verdict, why = _read(claim, evidence, "sft")
        beside = matched = "–"
        if claim.about_sft:
            beside, matched, reason = _read(claim, evidence, "sft_matched")
            beside = beside if matched != UNTESTED else reason
        known = (claim.id, claim.statement, claim.where, claim.paper)
        rows.append((*known, ours, evidence.scale, verdict, why, beside, matched, claim.agrees_when))
    return pd.DataFrame(rows, columns=list(LEDGER_COLUMNS))


def _read(claim: Claim, evidence: Evidence, sft: str) -> tuple[str, str, str]:
    """Our values, the verdict and why, with `sft` in SFT's place."""
    try:
        finding = claim.rule(evidence, sft)
    except Untested as missing:
        return "–", UNTESTED, str(missing)
    failing = [str(check) for check in finding.checks if not check.holds]
    mixed = [str(check) for check in finding.checks if check.holds and check.in_seeds < check.seeds]
    reasons = [f"fails: {'; '.join(failing)}"] if failing else ["every comparison holds"]
    if mixed:
        reasons.append(f"not in every seed: {'; '.join(mixed)}")
    notes = [note for note in (finding.blunt, *reasons, finding.note) if note]
    return finding.ours, judge(finding), ". ".join(note[0].upper() + note[1:] for note in notes)
