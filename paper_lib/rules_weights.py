"""Rules of C1–C6: what an update does to the weights, against chance and against bf16 rounding."""

from math import degrees

import pandas as pd

from paper_lib.evidence import Evidence, paired
from paper_lib.findings import Finding, falling, if_there, label, less, rising, show, three

OPD_VARIANTS = ("opd_small_teacher", "opd_second_domain")


def sparsity_order(evidence: Evidence, sft: str) -> Finding:
    """C1."""
    values = three(evidence, sft, "update_sparsity")
    return Finding(ours=show(values, "%", 100), checks=rising(values))


def sparsity_of_variants(evidence: Evidence, sft: str) -> Finding:
    """C2. Each variant is nearer to OPD than to SFT and to RLVR."""
    regimes = three(evidence, sft, "update_sparsity")
    variants = {label(run): evidence.end(run, "update_sparsity") for run in OPD_VARIANTS}
    checks = []
    for name, value in variants.items():
        value, first, opd, rlvr = paired(value, *regimes.values())
        gap, others = (value - opd).abs(), pd.concat([value - first, value - rlvr], axis=1).abs().min(axis=1)
        checks.append(less(gap, others, f"{name} is nearest to OPD"))
    note = "no student of another size and no MoE teacher here"
    return Finding(ours=show(regimes | variants, "%", 100), checks=checks, note=note)


def rotation_order(evidence: Evidence, sft: str) -> Finding:
    """C3. The mean principal angle, left and right subspaces together."""
    sides = [three(evidence, sft, f"angle_{side}_mean") for side in ("u", "v")]
    values = {name: (sides[0][name] + sides[1][name]) / 2 for name in sides[0]}
    return Finding(ours=show(values, "° on average", degrees(1)), checks=falling(values))


def shift_order(evidence: Evidence, sft: str) -> Finding:
    """C4."""
    values = three(evidence, sft, "spectral_shift")
    return Finding(ours=show(values, "· 1e-3", 1e3), checks=falling(values))


def principal_overlap(evidence: Evidence, sft: str) -> Finding:
    """C5. Beside it, what the same update scores with its entries permuted."""
    values, show_null, alpha = _overlap(evidence, sft, "principal_overlap")
    below = [
        less(values[n], pd.Series(alpha, index=values[n].index), f"{n} below chance") for n in ("OPD", "RLVR")
    ]
    ours = show(values, f"%, chance {100 * alpha:g} %", 100)
    return Finding(ours=ours, checks=[*falling(values), *below], note=show_null)


def low_magnitude_overlap(evidence: Evidence, sft: str) -> Finding:
    """C6. Beside it, what the same update scores with its entries permuted."""
    values, show_null, alpha = _overlap(evidence, sft, "low_magnitude_overlap")
    above = [
        less(pd.Series(alpha, index=values[n].index), values[n], f"{n} above chance") for n in ("OPD", "RLVR")
    ]
    ours = show(values, f"%, chance {100 * alpha:g} %", 100)
    return Finding(ours=ours, checks=[*rising(values), *above], note=show_null)


def _overlap(evidence: Evidence, sft: str, metric: str) -> tuple[dict[str, pd.Series], str, float]:
    alpha = evidence.diagnostics.alphas[0]
    return three(evidence, sft, metric, k=alpha), if_there(lambda: _permuted(evidence, metric, alpha)), alpha


def _permuted(evidence: Evidence, metric: str, alpha: float) -> str:
    runs = ("opd", "rlvr")
    values = {label(run): evidence.end(run, metric, k=alpha, null="permuted") for run in runs}
    return f"with the update's entries permuted (bf16 rounding alone): {show(values, '%', 100)}"
