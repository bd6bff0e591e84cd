"""The credit a_t of SFT, OPD, RLVR and their mix, the retention of tokens, and the exact reverse KL.

One form covers every objective: g = Σ_t a_t ∇log p_θ(y_t | x, y_<t) (Shen et al. 2026, §3.3). Rows are
completions, columns their positions; masks are 1 on completion tokens, the end mark included, and 0 on
padding.
"""

from typing import Literal

import torch
from torch import Generator, Tensor


def token_gap(log_p: Tensor, teacher_log_p: Tensor) -> Tensor:
    """r_t = log π_θ(a_t) − log π_T(a_t) on the sampled tokens: (rows, T), detached; OPD's credit is −r_t."""
    return (log_p - teacher_log_p).detach()


def group_advantages(rewards: Tensor, group_size: int, *, epsilon: float = 1e-4) -> Tensor:
    """GRPO (Shao et al. 2024, arXiv 2402.03300): A = (R − mean) / (std + ε) within each prompt's group, std
    with n − 1; 0 where a group has no variance.

    rewards: (P * G,). Returns (P * G,). Raises ValueError unless the rows divide into groups of at least two.
    """
    if group_size < 2 or rewards.numel() % group_size:
        raise ValueError(f"{rewards.numel()} rewards do not divide into groups of {group_size} (at least 2)")
    groups = rewards.view(-1, group_size)  # (P, G)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + epsilon)).flatten()


def mixed_credit(
    gap: Tensor, advantages: Tensor, alpha: float, *, scales: tuple[float, float] | None = None
) -> Tensor:
    """A_t = α·(−r_t) + (1 − α)·A_RLVR, raw and unnormalised (§5.2): α = 1 is OPD, α = 0 is RLVR.

    gap: (rows, T); advantages: (rows,), the same for every token of a row. Returns (rows, T). scales: the
    RMS s_OPD of −r_t and s_RLVR of A over the batch's completion tokens; then A_t = α·(−r_t)/s_OPD +
    (1 − α)·A/s_RLVR, so that α turns the gradient from one objective to the other and the two have one scale.
    An advantage of scale 0 is 0 everywhere, as A is where all rewards of each group are equal, and adds 0.
    Raises ValueError for α outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a value in [0, 1]")
    if scales is not None:
        both = zip((gap, advantages), scales, strict=True)
        gap, advantages = (v / s if s else torch.zeros_like(v) for v, s in both)
    return alpha * -gap + (1 - alpha) * advantages[:, None].expand_as(gap)


def shuffled(credit: Tensor, mask: Tensor, generator: Generator) -> Tensor:
    """The same credits dealt out anew over the completion tokens, every order equally likely; 0 on padding.

    credit, mask: (rows, T). Returns (rows, T).
    """
    dealt = credit[mask]
    order = torch.randperm(len(dealt), generator=generator).to(credit.device)
    return torch.zeros_like(credit).masked_scatter(mask, dealt[order])


def retained(
    gap: Tensor,
    mask: Tensor,
    *,
    keep_fraction: float,
    selection: Literal["top_gap", "random"],
    noise: Tensor | None,
) -> Tensor:
    """Weight T / Σm on the ⌈ρT⌉ tokens kept of each response, 0 on the others (§5.1).

    selection "top_gap" keeps the largest r_t, "random" the largest of `noise`, uniform numbers (rows, T).
    Returns (rows, T). Rows without tokens keep none. Raises ValueError for "random" without noise.
    """
    score = gap if selection == "top_gap" else noise
    if score is None:
        raise ValueError("selection 'random' needs noise: uniform numbers of the mask's shape")
    order = score.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)  # (rows, T)
    rank = order.argsort(1)  # (rows, T), 0 for the highest score of a row
    length = mask.sum(1, keepdim=True)  # (rows, 1)
    kept = torch.ceil(keep_fraction * length - 1e-9)
    chosen = (rank < kept) & mask
    return torch.where(chosen, length / kept.clamp(min=1), 0.0)


def credit_weighted_loss(
    log_p: Tensor, credit: Tensor, mask: Tensor, *, tokens: float | None = None
) -> Tensor:
    """−Σ a_t log p(y_t) / Σ mask: SFT, RLVR, OPD and their mix differ only in the tokens and the credit a_t
    (§3.3).

    log_p, credit, mask: (rows, T). tokens: the denominator, where this is part of a larger batch. Returns a
    scalar; with credit 1 it is the cross-entropy of `transformers`.
    """
    return -(credit * log_p).masked_fill(~mask, 0.0).sum() / (mask.sum() if tokens is None else tokens)


def clipped_loss(
    log_p: Tensor,
    old_log_p: Tensor,
    credit: Tensor,
    mask: Tensor,
    *,
    clip: tuple[float, float] = (0.2, 0.28),
    tokens: float | None = None,
) -> Tensor:
    """−Σ min(ρ_t a_t, clip(ρ_t, 1 − low, 1 + high) a_t) / Σ mask with ρ_t = π_θ / π_old.

    PPO's surrogate (Schulman et al. 2017, arXiv 1707.06347) with DAPO's asymmetric range (Yu et al. 2025,
    arXiv 2503.14476). Its gradient is that of `credit_weighted_loss` where π_θ = π_old.
    log_p, old_log_p, credit, mask: (rows, T); clip: (low, high); tokens: as there. Returns ().
    """
    ratio = (log_p - old_log_p).exp()
    bounded = ratio.clamp(1 - clip[0], 1 + clip[1])
    total = mask.sum() if tokens is None else tokens
    return -torch.minimum(ratio * credit, bounded * credit).masked_fill(~mask, 0.0).sum() / total


def reverse_kl(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(π_θ ‖ π_T) at each position (§2). logits, teacher_logits: (..., V).

    Returns (...,) ≥ 0 in float32, differentiable in `logits`. Raises ValueError as `exact_kl` does.
    """
    return exact_kl(logits, teacher_logits, dtype=torch.float32)


def exact_kl(logits_p: Tensor, logits_q: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """KL(p ‖ q) = Σ_v p(v) (log p(v) − log q(v)) over the whole vocabulary, computed in `dtype`.

    logits_p, logits_q: (..., V). Returns (...,), ≥ 0 up to rounding, in float64 1e-16. Raises ValueError for
    unequal shapes. What float32 logits themselves are off by, 1e-6, adds about 1e-12.
    """
    if logits_p.shape != logits_q.shape:
        raise ValueError(f"logits need one (..., V), got {tuple(logits_p.shape)}, {tuple(logits_q.shape)}")
    log_p, log_q = logits_p.to(dtype).log_softmax(-1), logits_q.to(dtype).log_softmax(-1)  # (..., V)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
