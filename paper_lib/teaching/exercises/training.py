"""The exercises of 01_train: how much data, and what credit."""

from typing import Any

import torch
from torch import Tensor

from paper_lib.teaching.judging import Outcomes, exercise, judge_function, judge_numbers
from paper_lib.training.objectives import group_advantages, reverse_kl

PAPER_STEPS = {"sft": 5375, "opd": 300, "rlvr": 1024}  # Shen et al. 2026, the tables of settings
PAPER_BATCH = {"sft": 256, "opd": 64, "rlvr": 512}  # sequences: for OPD and RLVR 8 samples a prompt are in it
SAMPLES = 8


@exercise("01-1", "How much more does SFT see?", minutes=5)
def _sequences(answer: Any) -> str:
    seen = {run: PAPER_STEPS[run] * PAPER_BATCH[run] for run in PAPER_STEPS}
    steps = PAPER_STEPS["sft"] / PAPER_STEPS["opd"]
    right = seen["sft"] / seen["opd"]
    mistakes = {
        "the ratio of the steps: a step of SFT also holds more sequences than one of OPD": steps,
        "the wrong way up: SFT's sequences belong above the line": 1 / right,
        "the 8 samples of a prompt are in OPD's batch already: do not multiply again": right / SAMPLES,
        "you counted OPD's prompts; every one of its 8 samples is a sequence": right * SAMPLES,
        "that is SFT against RLVR": seen["sft"] / seen["rlvr"],
    }
    judge_numbers(answer, right, mistakes, unit="one number, SFT's sequences over OPD's", relative=0.02)
    return "With ten times the learning rate as well, SFT and OPD differ in much more than their objective."


@exercise("01-2", "The advantage of a group", minutes=10)
def _advantages(answer: Any) -> str:
    groups = {
        "a group of 8 with 3 right answers": [1, 0, 0, 1, 0, 0, 1, 0],
        "a group of 4 with one right answer": [0, 0, 1, 0],
        "a group of 4 that are all right": [1, 1, 1, 1],
        "a group of 4 that are all wrong": [0, 0, 0, 0],
    }

    def outcomes(r: Tensor) -> Outcomes:
        centred, std = r - r.mean(), r.std()
        return group_advantages(r, len(r)), {
            "centred, but not divided by the group's standard deviation": centred,
            "that deviation divides by G, not by G − 1": _over(centred, r.std(correction=0)),
            "divided by the variance, not by its root": _over(centred, r.var()),
            "not centred: a group's advantages have mean 0": _over(r, std),
            "nan where rewards are equal and the deviation is 0: what can such a group teach?": centred / std,
        }

    cases = {name: (torch.tensor(r).double(),) for name, r in groups.items()}
    # Within whatever small number stands beside the deviation.
    judge_function(answer, outcomes, cases, returns="a tensor of the group's (G,) advantages", relative=2e-3)
    return "A group that is all right or all wrong teaches RLVR nothing; OPD still learns from it."


def _over(values: Tensor, scale: Tensor) -> Tensor:
    return values / scale if scale > 0 else torch.zeros_like(values)


@exercise("01-3", "Why −r_t is the right credit", minutes=25)
def _gradient(answer: Any) -> str:
    generator = torch.Generator().manual_seed(7)
    pairs = [torch.randn(2, size, generator=generator, dtype=torch.float64) for size in (4, 9)]

    def outcomes(z: Tensor, t: Tensor) -> Outcomes:
        right, p, q, gap = _by_autograd(z, t), z.softmax(0), t.softmax(0), z.log_softmax(0) - t.log_softmax(0)
        return right, {
            "the sign: the credit −r_t climbs, the divergence falls": -right,
            "∇ log p_v is not e_v alone: the softmax takes p away": p * gap,
            "averaged over the teacher's distribution; on-policy samples are the student's": (
                q * gap - (q * gap).sum() * p
            ),
            "that is the gradient of the forward KL, as SFT on the teacher's samples has it": p - q,
            "every token counts the same here: weight it by how often the student samples it": (
                gap - (p * gap).sum()
            ),
        }

    cases = {f"a vocabulary of {len(a)}": (a, b) for a, b in pairs}
    # The exact divergence is float32.
    judge_function(answer, outcomes, cases, returns="a tensor of (V,) derivatives", relative=1e-4)
    return "−r_t is an unbiased credit although r_t depends on θ: the mean of ∇ log p is 0."


def _by_autograd(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(reverse_kl(leaf, teacher_logits), leaf)
    return gradient
