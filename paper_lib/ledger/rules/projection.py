"""C11 and its rule: training confined to a subspace, by the share of the free run's gain that it keeps."""

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import HARDER, Cast, Claim, Finding, if_there, label, null_if_there, show
from paper_lib.ledger.contrasts import Contrast, above, absent, below, more
from paper_lib.summaries import Untested, paired, say, t_interval

KEPT = 0.8  # of the gain: the paper's confined OPD keeps all of it
APART = 0.1  # of the gain: what SFT keeps less than OPD
ENERGY = "early_e80"  # V by its share of the parent's energy at the branch, so that each gets the K it needs


def projected_training(evidence: Results, cast: Cast) -> Finding:
    """C11. A run that ends no better than with frozen matrices has nothing to keep and decides nothing."""
    opd, sft = (retained(evidence, run, f"{run}_projected_early") for run in ("opd", cast.sft))
    opd_idle, sft_idle = (nothing_to_keep(evidence, run) for run in ("opd", cast.sft))
    name, share = label(cast.sft), f"{100 * KEPT:g} % of its gain"
    keeps = (
        f"OPD keeps more than {share}",
        f"{name} keeps less than {share}",
        f"OPD keeps more by {APART:g}",
    )
    defined = {} if opd_idle else {"OPD": opd}
    defined |= {} if sft_idle else {name: sft}
    contrasts = [
        absent(keeps[0], opd_idle) if opd_idle else above(opd, KEPT, keeps[0]),
        absent(keeps[1], sft_idle) if sft_idle else below(sft, KEPT, keeps[1]),
        absent(keeps[2], sft_idle) if sft_idle else more(opd, sft, keeps[2], by=APART),
    ]
    if f"opd_projected_{ENERGY}" in evidence.runs:
        own, other = (retained(evidence, run, f"{run}_projected_{ENERGY}") for run in ("opd", cast.sft))
        text = f"so it does where each V holds 80 % of its update, by {APART:g}"
        contrasts.append(more(own, other, text, by=APART))
    return Finding(
        ours=f"share of the gain that is kept, f: {show(defined)}" if defined else "–",
        contrasts=contrasts,
        explained="a random V does as well",
        note=if_there(lambda: greedy(evidence, ("opd", "opd_projected_early", cast.sft))),
        **null_if_there(lambda: _random_subspace(evidence, opd)),
    )


C11 = Claim(
    id="C11",
    statement="Training on inside the early subspace leaves OPD intact and degrades SFT",
    where="§4.2, Figs 6, 8",
    paper="OPD 63.3 → 64.2, SFT 55.5 → 45.6 (first draft)",
    holds_when=(
        f"of what free training has over training with these matrices frozen after the branch (K = 0), OPD "
        f"keeps more than {100 * KEPT:g} %, SFT less, and OPD {100 * APART:g} points more than SFT"
    ),
    rule=projected_training,
    matched="SFT is confined at OPD's start, rate, steps and batch, where it learns on after the branch",
    judged_on=HARDER,
)


def retained(evidence: Results, free: str, confined: str) -> pd.Series:
    """f = (A_V − A_0) / (A_free − A_0), one a seed that all three have: 1 is free training, 0 is K = 0.

    A: validation accuracy at the end, in V, free, and with every projected matrix frozen after the branch
    while embeddings, norms and head train on; where these are frozen throughout, the parent at the branch.
    Sampled accuracy, or greedy where the problems ask for a new skill. The interval is Student's, of the
    ratios: for a denominator clear of 0, which `nothing_to_keep` asks.
    """
    inside, none, whole = _scores(evidence, free, confined)
    return (inside - none) / (whole - none)


def nothing_to_keep(evidence: Results, free: str) -> str:
    """Why f is undefined, where free training does not end above K = 0; otherwise empty."""
    _, none, whole = _scores(evidence, free)
    if not more(whole, none, "").lacking:
        return ""
    return f"free {label(free)} is {say(whole - none, 100)} points above K = 0: nothing to keep"


def retained_shares(evidence: Results) -> pd.DataFrame:
    """f of every confined run whose parent has something to keep: mean, interval and seeds, by label."""
    rows, runs = {}, evidence.runs
    parents = [run for run in runs if f"{run}_projected_none" in runs or _alone(evidence, run)]
    for free in (run for run in parents if f"{run}_projected_early" in runs):
        if nothing_to_keep(evidence, free):
            continue
        for confined in (run for run in runs if run.startswith(f"{free}_projected_")):
            values = retained(evidence, free, confined)
            rows[label(confined)] = (values.mean(), *t_interval(values.to_numpy(), 0.95), len(values))
    return pd.DataFrame(rows, index=["kept", "low", "high", "seeds"]).T


def kept_in_words(evidence: Results) -> str:
    """The share that OPD and matched SFT keep in their early V and in a random one, in one line;
    where the tables have no run at K = 0 it says so."""
    shares, words = retained_shares(evidence)["kept"], []
    for free in ("opd", "sft_matched"):
        arms = [label(f"{free}_projected_{arm}") for arm in ("early", "random")]
        if set(arms) <= set(shares.index):
            words.append("{} keeps {:.0f} %, {:.0f} % in a random V".format(label(free), *100 * shares[arms]))
    return f"Of what the matrices add, {'; '.join(words)}" if words else "No run at K = 0 says what V adds"


def greedy(evidence: Results, runs: tuple[str, ...]) -> str:
    """Greedy accuracy of these runs at the end, in words: whether a change is more than one of sampling."""
    values = {label(run): evidence.greedy(run) for run in dict.fromkeys(runs)}
    return f"greedy accuracy: {show(values, '%', 100)}"


def _random_subspace(evidence: Results, own: pd.Series) -> tuple[str, Contrast]:
    if why := nothing_to_keep(evidence, "opd"):
        raise Untested(why)
    chance = retained(evidence, "opd", "opd_projected_random")
    return f"kept in a random V: {say(chance)}", more(own, chance, "more than in a random V")


def _scores(evidence: Results, free: str, confined: str = "") -> list[pd.Series]:
    """A of a confined run (the early V without one), at K = 0 and of the free run, of the seeds in common."""
    confined, alone = confined or f"{free}_projected_early", _alone(evidence, free)
    metric = "greedy_accuracy" if alone else "sampled_accuracy"
    inside, whole = (evidence.learning(run, metric) for run in (confined, free))
    if alone:
        none = whole[whole.index <= evidence.branch(confined)]
    else:
        none = evidence.learning(f"{free}_projected_none", metric)
    return paired(*(path.iloc[-1].dropna() for path in (inside, none, whole)))


def _alone(evidence: Results, run: str) -> bool:
    """Whether a run trains its projection matrices alone, so that its branch is its K = 0."""
    return any(each.name == run and each.frozen for each in evidence.study.everything)


CLAIMS = (C11,)
