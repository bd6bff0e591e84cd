"""Three or more wrong answers to each exercise, made from the right one, and what the verdict has to name."""

import math

import torch
from exercise_cells import reference

from paper_lib.geometry.spectra import singular_values
from paper_lib.summaries import at_end, over_matrices


def mirrored(w):
    return -w


def svd(w):
    return torch.linalg.svd(w, full_matrices=False)


def bf16(w):
    return w.bfloat16().float()


def gap(z, t):
    return z.log_softmax(0) - t.log_softmax(0)


def kept(scores, count, weight):
    weights = scores.new_zeros(len(scores))
    weights[scores.argsort(descending=True)[:count]] = weight
    return weights


def above(scores, bar):
    return (scores >= bar) * len(scores) / (scores >= bar).sum()


def fewest(reach, differences):
    return next(n for n in range(2, 9999) if reach(n, differences) < abs(differences.mean()))


def student(level, freedom):
    from scipy.stats import t

    return t.ppf(level, freedom)


def at_end_ratio(matrices, metric):
    rows = matrices[(matrices["metric"] == metric)]
    rows = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    means = rows.groupby("run")["value"].mean()
    return means["sft"] / means["opd"]


def sparsity(run):
    ends = at_end(over_matrices(reference("matrices"), "update_sparsity"))
    return ends.loc[ends["run"] == run, "value"].mean()


def shrunk(null):
    ends = at_end(over_matrices(reference("nulls"), "update_sparsity", sizes=reference("matrices")))
    return ends.loc[(ends["run"] == "opd") & (ends["null"] == null), "value"].mean()


WRONG = {
    "01-1": [
        (lambda right: 5375 / 300, "ratio of the steps"),
        (lambda right: right / 8, "do not multiply again"),
        (lambda right: 1 / right, "wrong way up"),
    ],
    "01-2": [
        (lambda right: lambda r: r - r.mean(), "standard deviation"),
        (lambda right: lambda r: (r - r.mean()) / (r.std(correction=0) + 1e-4), "by G, not by G − 1"),
        (lambda right: lambda r: (r - r.mean()) / r.std(), "deviation is 0"),
        (
            lambda right: lambda r: 0 * r if r.all() else (r - r.mean()) / r.std(),
            "nan: is something divided by 0?",
        ),
    ],
    "01-3": [
        (lambda right: lambda z, t: -right(z, t), "the sign"),
        (lambda right: lambda z, t: z.softmax(0) * gap(z, t), "softmax takes p away"),
        (lambda right: lambda z, t: z.softmax(0) - t.softmax(0), "forward KL"),
    ],
    "02-1": [
        (lambda right: right | {"update_sparsity"}, "a step of bf16"),
        (lambda right: {"stable_rank"}, "quotients of singular values"),
        (lambda right: right | {"spectral_shift"}, "W_0 is not doubled"),
    ],
    "02-2": [
        (lambda right: lambda a, b: (a == b).double().mean(), "counted in float32"),
        (lambda right: lambda a, b: 1 - right(a, b), "that is the density"),
        (lambda right: lambda a, b: ((bf16(a) - bf16(b)).abs() <= 1e-3).double().mean(), "η is relative"),
    ],
    "02-3": [
        (lambda right: lambda d: singular_values(d).sum() / singular_values(d)[0], "are not squared"),
        (lambda right: lambda d: d.square().sum() / singular_values(d).min() ** 2, "the smallest"),
        (lambda right: torch.linalg.matrix_rank, "that is the rank"),
    ],
    "02-4": [
        (lambda right: lambda f: f, "divided by both norms"),
        (lambda right: lambda f: math.sqrt(1 - f), "the rest of the walk"),
        (lambda right: lambda f: math.degrees(math.acos(math.sqrt(f))), "an angle in degrees"),
    ],
    "03-1": [
        (lambda right: (0.2966 * 0.9273, right[1]), "what the principal overlap allows"),
        (lambda right: right[::-1], "wrong order"),
        (lambda right: (0.2966, 0.3188), "those are the overlaps"),
        (lambda right: (0.2966, right[1]), "number 1 of 2"),
    ],
    "03-2": [
        (lambda right: lambda w, a, r: right(w, a, min(w.shape)), "largest weights themselves"),
        (lambda right: lambda w, a, r: ~right(w, a, r), "the complement"),
        (
            lambda right: lambda w, a, r: right(w - (svd(w).U[:, :r] * svd(w).S[:r]) @ svd(w).Vh[:r], a, 9),
            "what the reconstruction leaves out",
        ),
    ],
    "03-3": [
        (lambda right: right + 100 * (shrunk("rescaled_sft") - sparsity("sft")), "at SFT's own norm"),
        (lambda right: -right, "the sign"),
        (lambda right: 100 * (sparsity("opd") - shrunk("rescaled_sft_matched")), "matched SFT's update"),
    ],
    "04-1": [
        (lambda right: 2, "not with k"),
        (lambda right: right - 1, "one short"),
        (lambda right: 90, "too large"),
    ],
    "04-2": [
        (lambda right: lambda a, b, k: math.radians(right(a, b, k)), "radians"),
        (lambda right: lambda a, b, k: right(a.mT, b.mT, k), "the left singular vectors"),
        (
            lambda right: (
                lambda a, b, k: torch.rad2deg(
                    torch.linalg.svdvals(svd(a).Vh[:k] @ svd(b).Vh[:k].mT).max().acos()
                )
            ),
            "the smallest",
        ),
    ],
    "04-3": [
        (lambda right: at_end_ratio(reference("matrices"), "angle_u_mean"), "angles as they are"),
        (
            lambda right: (
                at_end_ratio(reference("matrices"), "angle_u_mean")
                / at_end_ratio(reference("matrices"), "relative_norm")
            ),
            "averaged before dividing",
        ),
        (lambda right: at_end_ratio(reference("matrices"), "relative_norm"), "how much farther"),
    ],
    "04-4": [
        (lambda right: lambda w: 1.1 * w, "orthogonal matrices alone"),
        (lambda right: mirrored, "no span turns"),
        (lambda right: lambda w: w.flip(0), "the left vectors turn"),
    ],
    "05-1": [
        (lambda right: lambda a, b, K: right(a.mT, b.mT, K), "the left singular vectors"),
        (lambda right: lambda a, b, K: K * right(a, b, K), "not divided by K"),
        (lambda right: lambda a, b, K: (K * right(a, b, K)) ** 0.5 / K, "not squared"),
    ],
    "05-2": [
        (lambda right: "opd", "the run of the claim"),
        (lambda right: "sft", "own walk starts highest"),
        (lambda right: "rlvr", "another run gains more"),
    ],
    "05-3": [
        (lambda right: lambda a, b, K: right(a.sqrt(), b.sqrt(), K), "energy is σ²"),
        (lambda right: lambda a, b, K: right(a, b, K) - 1, "one short"),
        (lambda right: lambda a, b, K: K, "flatter spectrum"),
    ],
    "05-4": [
        (lambda right: lambda v: math.sqrt(right(v)), "a cosine"),
        (lambda right: lambda v: 1 - right(v), "the share outside"),
        (lambda right: lambda v: 1.0, "need not"),
    ],
    "06-1": [
        (
            lambda right: lambda r, k: kept(-r, math.ceil(k * len(r)), len(r) / math.ceil(k * len(r))),
            "smallest",
        ),
        (lambda right: lambda r, k: kept(r, math.ceil(k * len(r)), 1.0), "not rescaled"),
        (lambda right: lambda r, k: kept(r, int(k * len(r)), len(r) / int(k * len(r))), "rounded down"),
        (
            lambda right: lambda r, k: kept(r, int(k * len(r)) + 1, len(r) / (int(k * len(r)) + 1)),
            "where ρT is whole",
        ),
        (
            lambda right: lambda r, k: above(r, r.quantile(1 - k)),
            "are off on 7 tokens, ρ = 0.8",
        ),
    ],
    "06-2": [
        (lambda right: 1 - right, "weighs the larger gradient more"),
        (lambda right: 0.5, "only where the two gradients have one norm"),
        (lambda right: right / (1 - right), "a quotient of the norms"),
    ],
    "06-3": [
        (lambda right: lambda d: fewest(lambda n, d: 1.96 * d.std(ddof=1) / n**0.5, d), "1.96"),
        (
            lambda right: lambda d: fewest(lambda n, d: student(0.975, n - 1) * d.std() / n**0.5, d),
            "by N, not by N − 1",
        ),
        (
            lambda right: (
                lambda d: fewest(lambda n, d: student(0.975, len(d) - 1) * d.std(ddof=1) / n**0.5, d)
            ),
            "for the seeds you have",
        ),
        (lambda right: lambda d: max(3, right(d)), "too large on differences [2.0, 2.1, 1.9]"),
    ],
    "07-1": [
        (lambda right: right[::-1], "the other way round"),
        (lambda right: [r / s**0.5 for r, s in zip(right, (300, 1024), strict=True)], "noise grows"),
        (lambda right: [3072 * r for r in right], "the norm of the whole matrix"),
    ],
    "07-2": [
        (lambda right: 2**-9, "spread between none and half a step"),
        (lambda right: 100 * right, "a percentage"),
        (lambda right: right / 8, "float16"),
    ],
    "07-3": [
        (lambda right: lambda v, o, r: (r @ v, o @ r), "turns twice"),
        (lambda right: lambda v, o, r: (r @ v, o), "does not know"),
        (lambda right: lambda v, o, r: (v, o), "nothing changed"),
    ],
    "08-1": [
        (lambda right: right - 36 * 2 * 4096**2 / 1e9, "one copy"),
        (lambda right: right * 1e9 / 2**30, "GiB"),
        (lambda right: 36 * 4096**2 * (2 * 2 + 2 * 8) / 1e9, "one at a time"),
    ],
    "08-2": [
        (lambda right: lambda w_0, w_s, w_t, v: right(w_0, w_0, w_t, v), "the whole update"),
        (lambda right: lambda *given: right(*given) ** 0.5, "not squared"),
        (lambda right: lambda *given: 1 - right(*given), "outside"),
    ],
    "08-3": [
        (lambda right: lambda w, w_new, u, v: right(0 * w, w_new, u, v), "pretrained weights"),
        (lambda right: lambda w, w_new, u, v: right(w, w_new, u, v) - w, "added to W"),
        (lambda right: lambda w, w_new, u, v: w + (w_new - w) @ v @ v.mT, "U_K confines"),
    ],
}
