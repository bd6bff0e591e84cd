"""A student's completions token by token, with every objective's credit: picture and view."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from paper_lib.figures.styles import OPD, RLVR
from paper_lib.figures.words import tell
from paper_lib.study.tasks import Problem
from paper_lib.teaching.play import View, view
from paper_lib.training.objectives import group_advantages, mixed_credit, token_gap
from paper_lib.training.rollouts import Batch

_DIGITS = 4  # that numbers are shipped with


def play_rollouts(record: Mapping[str, Any], *, row: int = 0) -> View:
    """Choose a problem, one of its completions and the α of the mix; see probabilities, r_t and credits.

    record: of `rollout_record`. row: the completion that is shown first.
    """
    prompt, completion = divmod(row, len(record["prompts"][0]["completions"]))
    start = {"prompt": prompt, "completion": completion, "alpha": 0.5}
    chosen = record["prompts"][prompt]["completions"][completion]
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    dense, one = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    draw_credit(dense, one, chosen["tokens"], torch.tensor(chosen["gap"]), torch.tensor(chosen["rlvr"]))
    figure.suptitle(record["prompts"][prompt]["prompt"], fontsize=9)
    return view("rollout", {**record, "start": start}, figure, said_at(chosen, 0.5))


def rollout_record(
    batch: Batch,
    log_p: Tensor,
    teacher_log_p: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
) -> dict[str, Any]:
    """What is shown, as JSON: prompts, their completions, and of each the tokens with probabilities and
    credits, to 4 decimals. `opd` is the mix at α = 1, a number a token, `rlvr` that at α = 0, one for all.

    batch: P problems with G completions each, with rewards. log_p, teacher_log_p: (P * G, T), of the sampled
    tokens.
    """
    assert batch.rewards is not None
    gap, advantages = (
        v.double().round(decimals=_DIGITS)
        for v in (token_gap(log_p, teacher_log_p), group_advantages(batch.rewards, batch.group_size))
    )
    opd, rlvr = (mixed_credit(gap, advantages, alpha) for alpha in (1.0, 0.0))
    columns = {"student": log_p.exp(), "teacher": teacher_log_p.exp(), "gap": gap, "opd": opd}
    lengths, prompts = batch.completion_mask.sum(1).tolist(), list[dict[str, Any]]()
    for number, problem in enumerate(problems):
        completions = []
        for row in range(number * batch.group_size, (number + 1) * batch.group_size):
            ids = batch.completion_ids[row, : lengths[row]].tolist()
            values = {name: _list(v[row, : lengths[row]]) for name, v in columns.items()}
            about = {"reward": int(batch.rewards[row]), "rlvr": _list(rlvr[row, :1])[0]}
            completions.append({"tokens": _tokens(tokenizer, ids), **values, **about})
        ids = [*tokenizer(problem.demonstration, add_special_tokens=False)["input_ids"]]
        demonstration = _tokens(tokenizer, [*ids, tokenizer.eos_token_id])
        prompts.append(_named(problem.prompt, demonstration, completions))
    return {"prompts": prompts}


def _named(
    prompt: str, demonstration: Sequence[str], completions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One prompt of a record, with the names of its options and a sentence on each completion."""
    right, of = sum(each["reward"] for each in completions), len(completions)
    for number, each in enumerate(completions, 1):
        verdict = "right" if each["reward"] else "wrong"
        each["name"] = f"{number}, {verdict}: {''.join(each['tokens'])}"
        each["lowest"] = lowest = min(range(len(each["opd"])), key=lambda t: each["opd"][t])
        if right in (0, of):
            group = f"All {of} completions are {verdict}, so A = 0: RLVR learns nothing from this problem"
        else:
            group = f"{right} of {of} {'is' if right == 1 else 'are'} right, so A = {signed(each['rlvr'])}"
            group += " on all its tokens"
        each["said"] = (
            f"Completion {number} of {of} of {prompt} is {verdict} (reward {each['reward']}). {group}. "
            f"OPD's lowest credit is {signed(each['opd'][lowest])}, on token {lowest + 1}, "
            f"“{each['tokens'][lowest]}”: the student gives it {each['student'][lowest]:.3f}, the teacher "
            f"{each['teacher'][lowest]:.3f}."
        )
    name = f"{prompt} ({right} of {of} right)"
    return {"prompt": prompt, "name": name, "demonstration": [*demonstration], "completions": [*completions]}


def mixed(completion: Mapping[str, Any], alpha: float) -> list[float]:
    """The mix's credit of every token of a completion in a record."""
    gap, advantages = (torch.tensor([completion[name]], dtype=torch.float64) for name in ("gap", "rlvr"))
    return mixed_credit(gap, advantages, alpha)[0].tolist()


def said_at(completion: Mapping[str, Any], alpha: float) -> str:
    """The sentences on a completion of a record, and what the mix's credit is where OPD's is lowest."""
    there = signed(mixed(completion, alpha)[completion["lowest"]])
    return f"{completion['said']} With α = {alpha:.2f} the mix has {there} there."


def draw_credit(dense: Axes, one: Axes, tokens: Sequence[str], gap: Tensor, advantage: Tensor) -> None:
    """The credit a_t of every token of one completion (§3.3), as bars: OPD's −r_t in nats, logarithmic beyond
    ±1, and in a panel of its own RLVR's A, which has no unit.

    tokens: T words. gap: r_t, (T,). advantage: A of the completion, ().
    """
    places, credit = range(len(tokens)), (-gap).tolist()
    bars = dense.bar(places, credit, color=OPD, label=r"OPD: $a_t = -r_t$")
    dense.bar_label(bars, [signed(value) for value in credit], fontsize=7, padding=2)
    dense.set_yscale("symlog", linthresh=1)
    dense.set(ylabel="$-r_t$ (nats)", yticks=(-10, -1, 0, 1), yticklabels=("−10", "−1", "0", "1"))
    dense.margins(y=0.25)
    one.bar(places, [float(advantage)] * len(tokens), color=RLVR, label="RLVR: $a_t = A$")
    one.set(ylabel="$A$")
    one.margins(y=0.25)
    for ax in (dense, one):
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_xticks(places, tokens)
        ax.grid(visible=False, axis="x")
    tell(dense, "OPD: $a_t = -r_t$", [-gap.max(), -gap.min()], of=f"{len(tokens)} tokens from")
    tell(one, "RLVR: $a_t = A$", advantage)


def signed(value: float) -> str:
    """A credit to two decimals with its sign, none where that is 0.00."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    return [tokenizer.decode([token]).replace(" ", "␣").replace("\n", "↵") for token in ids]


def _list(values: Tensor) -> list[float]:
    return [round(value, _DIGITS) + 0.0 for value in values.tolist()]
