"""Matched controls and causal probes that go beyond the paper: settings in, `RunConfig`s out.

Each changes one thing that the paper's comparisons leave confounded or untested. How the settings without a
counterpart in the papers were chosen: SGD's learning rate by the search beside `SGD_RATE`; the rest by a rule
that is stated where it is used.
"""

from dataclasses import replace
from typing import Any

from paper_lib.study import tasks
from paper_lib.study.run_config import Projection, RunConfig, Subnetwork
from paper_lib.study.tasks import Task

# --- Every run of the paper with its controls, and a stage of pretraining: settings in, `RunConfig`s out.

MIX_ALPHAS = (0.75, 0.5, 0.25, 0.05, 0.01)


def pretraining_stage(name: str, **changes: Any) -> RunConfig:
    """A stage of pretraining: demonstrations of every task, cosine schedule."""
    all_tasks = (tasks.CHAIN_SUM, tasks.NUMBER_SORTING, tasks.MORE_TERMS, tasks.LARGER_NUMBERS)
    settings: dict[str, Any] = {"objective": "sft", "start": "scratch", "max_new_tokens": 32}
    settings |= {"tasks": all_tasks, "weights": (0.64, 0.16, 0.1, 0.1)}
    settings |= {"prompts_per_step": 128, "samples_per_prompt": 1, "snapshot_every": 200}
    settings |= {"learning_rate": 2e-3, "schedule": "cosine", "warmup_fraction": 0.05}
    return RunConfig(name=name, **(settings | changes))


def study_runs(
    *, task: Task, second_task: Task, sft: dict[str, Any], policy: dict[str, Any], K: int
) -> tuple[RunConfig, ...]:
    """Every run of the paper and its controls. sft: settings of the first stage; policy: of all that follow.

    The branch of projected training is at a fifth of the run, as in §4.2.
    """
    first = RunConfig(name="sft", objective="sft", start="base", tasks=(task,), **sft)
    opd = RunConfig(name="opd", objective="opd", tasks=(task,), **policy)
    batch = opd.prompts_per_step * opd.samples_per_prompt
    rlvr = replace(opd, name="rlvr", objective="rlvr")
    matched = replace(opd, name="sft_matched", objective="sft", prompts_per_step=batch, samples_per_prompt=1)
    kept = [
        replace(opd, name=f"opd_tokens_{kind}_{round(100 * rho)}", token_selection=kind, keep_fraction=rho)
        for kind in ("top_gap", "random")
        for rho in (0.5, 0.25)
    ]
    mixes = [replace(opd, name=f"mix_{alpha:g}", objective="mix", alpha=alpha) for alpha in MIX_ALPHAS]

    early, chance = Projection(basis="early", K=K), Projection(basis="random", K=K)
    return (
        *(first, opd, rlvr, matched, replace(opd, name="opd_exact", estimator="exact")),
        replace(opd, name="opd_small_teacher", teacher="teacher_small"),
        replace(opd, name="opd_second_domain", tasks=(second_task,)),
        *kept,
        replace(opd, name="opd_teacher_rollouts", rollout_policy="teacher"),
        *mixes,
        replace(opd, name="opd_sibling", stream="sibling", steps=round(opd.steps / 5)),
        projected(opd, "early", early),
        projected(opd, "early_update", replace(early, constrain="update")),
        projected(opd, "early_both", replace(early, constrain="both")),
        projected(opd, "random", chance),
        projected(opd, "other_seed", replace(early, basis="other_seed", source="opd_sibling")),
        projected(opd, "principal", Projection(basis="principal", K=K)),
        projected(first, "early", early),
        projected(first, "random", chance),
    )


def projected(
    parent: RunConfig, label: str, projection: Projection | None, *, at: float = 0.2, **changes: Any
) -> RunConfig:
    """The run that goes on from the state of `parent` after that share of its steps, confined."""
    name, branch = f"{parent.name}_projected_{label}", (parent.name, round(at * parent.steps))
    return replace(parent, name=name, branch=branch, projection=projection, **changes)


UNIT_ALPHAS = (0.5, 0.25, 0.05)
RATE_FACTORS = (0.5, 2.0)
SGD_MOMENTUM = 0.9
# From a search on seed 100, which no result uses, at the reference settings: the rate of the highest
# validation accuracy, as the mean of the last three snapshots. In percent, with a standard error of about
# 1.2 near the top; the anchor has 80.4, and AdamW 90.3 at the end, 89.0 as that mean:
#
#   rate                 0.0003   0.001   0.003   0.005   0.01   0.03    0.1   0.3
#   last snapshot          84.8    90.8    92.8    92.9   91.0   62.1    7.9   0.0
#   mean of last three     84.5    89.8    91.9    91.1   85.6   66.4   10.4   0.0
SGD_RATE = 0.003


def control_runs(
    runs: tuple[RunConfig, ...],
    *,
    rotated_layers: tuple[int, ...],
    ks: tuple[int, ...],
    wide_ks: tuple[int, ...],
    branches: tuple[float, ...],
) -> tuple[RunConfig, ...]:
    """The probes of a study. runs: what `study_runs` gave. rotated_layers: half of the student's layers.
    ks: sizes of OPD's early V_K beside the study's own; wide_ks: of SFT's, which needs more directions for
    the same share of its update, the last also of a random V for OPD. branches: shares of the run after which
    V_K is taken, beside the study's fifth."""
    by_name = {run.name: run for run in runs}
    sft, opd, rlvr, matched = (by_name[name] for name in ("sft", "opd", "rlvr", "sft_matched"))
    mix = by_name["mix_0.5"]
    confined = projections(by_name, ks=ks, wide_ks=wide_ks, branches=branches)
    return (
        opd_as_sft(sft, opd),
        *(replace(mix, name=f"mix_{a:g}_unit", alpha=a, mix_scale="unit") for a in UNIT_ALPHAS),
        *(swept for run in (opd, rlvr, matched) for swept in rate_and_batch(run)),
        *confined,
        replace(opd, name="opd_subnetwork_found", subnetwork=Subnetwork(source="opd")),
        replace(opd, name="opd_subnetwork_random", subnetwork=Subnetwork(source="opd", entries="random")),
        sgd(opd, SGD_RATE),
        replace(opd, name="opd_rotated", rotated_layers=rotated_layers),
        replace(opd, name="opd_restream", stream="restream"),
        replace(sft, name="sft_small", base="base_small"),
        replace(opd, name="opd_small_student", base="base_small", anchor="sft_small"),
        replace(opd, name="opd_moe_teacher", teacher="teacher_moe"),
        *frozen_runs(by_name | {run.name: run for run in confined}),
        *chance_runs(opd, rlvr),
        *(replace(run, name=f"{run.name}_restream", stream="restream") for run in (rlvr, matched)),
        *prompt_runs(opd, matched),
        *(replace(run, name=f"{run.name}_clip_100", max_gradient_norm=100.0) for run in (opd, rlvr)),
        *(replace(run, name=f"{run.name}_no_decay", weight_decay=0.0) for run in (sft, opd)),
    )


def opd_as_sft(sft: RunConfig, opd: RunConfig) -> RunConfig:
    """OPD where `sft_matched` is SFT: at SFT's start, rates, β₂, steps and completions a step."""
    samples = opd.samples_per_prompt
    prompts = sft.prompts_per_step * sft.samples_per_prompt // samples
    batch: dict[str, Any] = {"prompts_per_step": prompts, "samples_per_prompt": samples}
    opd_like: dict[str, Any] = {"objective": "opd", "teacher": opd.teacher, "demonstration_noise": 0.0}
    return replace(sft, name="opd_as_sft", **opd_like, **batch)


def rate_and_batch(run: RunConfig) -> tuple[RunConfig, ...]:
    """The run at half and twice its learning rate, and with a quarter of its prompts a step: rate and batch
    set the size of the update and its noise (the paper's OPD and RLVR differ eightfold in batch)."""
    rates = [run.learning_rate * factor for factor in RATE_FACTORS]
    prompts = run.prompts_per_step // 4
    batch = prompts * run.samples_per_prompt
    return (
        *(replace(run, name=f"{run.name}_lr_{rate:g}", learning_rate=rate) for rate in rates),
        replace(run, name=f"{run.name}_batch_{batch}", prompts_per_step=prompts),
    )


def projections(
    runs: dict[str, RunConfig], *, ks: tuple[int, ...], wide_ks: tuple[int, ...], branches: tuple[float, ...]
) -> tuple[RunConfig, ...]:
    """Projected runs at other K, other branches and other targets than the study's, and of matched SFT, which
    goes on learning after the branch where SFT does not."""

    def varied(name: str, label: str, **changes: Any) -> RunConfig:
        run = runs[name]
        assert run.projection is not None
        return replace(run, name=f"{name}_{label}", projection=replace(run.projection, **changes))

    early, random = (runs[f"opd_projected_{label}"].projection for label in ("early", "random"))
    return (
        *(varied("opd_projected_early", f"k{K}", K=K) for K in ks),
        *(projected(runs["opd"], f"early_at_{100 * at:.0f}", early, at=at) for at in branches),
        *(varied("opd_projected_random", f"k{K}", K=K) for K in wide_ks[-1:]),
        *(varied("sft_projected_early", f"k{K}", K=K) for K in wide_ks),
        varied("sft_projected_early", "update", constrain="update"),
        projected(runs["sft_matched"], "early", early),
        projected(runs["sft_matched"], "random", random),
    )


def frozen_runs(runs: dict[str, RunConfig]) -> tuple[RunConfig, ...]:
    """The ends of the scale on which a confined run is read.

    `…_none`: K = 0, no matrix trains on; what remains are embeddings, norms and head. `…_none_gradient`: only
    the gradient is confined, so that decay and the optimizer's memory of the parent go on as well. `…_alone`:
    the matrices train on without the others, in all directions, in early ones or in random ones; their K = 0
    is the parent at the branch.
    """
    gradient = Projection(basis="none", K=0)
    update = replace(gradient, constrain="update")
    found = [projected(runs[parent], "none", update) for parent in ("opd", "sft", "sft_matched")]
    for parent in ("opd", "sft_matched"):
        found.append(projected(runs[parent], "none_gradient", gradient))
        bases = {label: runs[f"{parent}_projected_{label}"].projection for label in ("early", "random")}
        for label, basis in ({"free": None} | bases).items():
            found.append(projected(runs[parent], f"{label}_alone", basis, frozen="others"))
    return tuple(found)


def chance_runs(opd: RunConfig, rlvr: RunConfig) -> tuple[RunConfig, ...]:
    """Nulls of training: updates whose credit says nothing of the tokens or answers that it is given to."""
    return (
        replace(opd, name="opd_shuffled_credit", chance="credit"),
        replace(rlvr, name="rlvr_random_reward", chance="reward"),
    )


def prompt_runs(opd: RunConfig, matched: RunConfig) -> tuple[RunConfig, ...]:
    """OPD on as many prompts a step as matched SFT, one rollout each, and matched SFT on as few as OPD. Eight
    copies of each demonstration have the loss of one, a mean over tokens, so one is what it is given."""
    few, samples, many = opd.prompts_per_step, opd.samples_per_prompt, matched.prompts_per_step
    return (
        replace(opd, name=f"opd_{many}x1", prompts_per_step=many, samples_per_prompt=1),
        replace(matched, name=f"sft_matched_{few}x{samples}", prompts_per_step=few),
    )


def sgd(opd: RunConfig, rate: float) -> RunConfig:
    """OPD under SGD with momentum μ. Its decay is such that both optimizers shrink a weight by η λ a step in
    the long run, η and λ being AdamW's: λ_SGD = λ (1 − μ) η / η_SGD."""
    decay = opd.weight_decay * (1 - SGD_MOMENTUM) * opd.learning_rate / rate
    return replace(opd, name="opd_sgd", sgd_momentum=SGD_MOMENTUM, learning_rate=rate, weight_decay=decay)


# --- Headroom: problems that the student cannot do yet, and every arm of confinement (C10, C11).

NEW_SKILLS = (tasks.UNSEEN_OPERATORS, tasks.NUMBER_SORTING)
KS = (1, 6, 12, 24)  # beside the study's K
ENERGIES = (0.6, 0.8, 0.9)  # of the parent's own update at the branch


def headroom_runs(*, sft: dict[str, Any], policy: dict[str, Any], K: int) -> tuple[RunConfig, ...]:
    """OPD, RLVR and SFT on two skills that the anchor lacks, each matrix trained and all else frozen, and
    each confined: the parent at its branch is then K = 0.

    sft: settings of the first stage, on clean demonstrations of the skill that the student has; policy: of
    all runs from the anchor. Problems and rollouts are the same in all of them; SFT sees each step's 32
    problems with one demonstration, whose loss is that of eight copies.
    """
    skills: dict[str, Any] = {"tasks": NEW_SKILLS, "weights": (0.5, 0.5), "frozen": "others"}
    first = RunConfig(name="sft", objective="sft", start="base", tasks=(tasks.CHAIN_SUM,), **sft)
    opd = RunConfig(name="opd", objective="opd", **skills, **policy)
    rlvr = replace(opd, name="rlvr", objective="rlvr")
    matched = replace(opd, name="sft_matched", objective="sft", samples_per_prompt=1)
    sibling = replace(opd, name="opd_sibling", stream="sibling", steps=round(opd.steps / 5))
    early, chance = Projection(basis="early", K=K), Projection(basis="random", K=K)
    arms = [("early", early), *((f"early_k{k}", replace(early, K=k)) for k in KS)]
    arms += [(f"early_e{round(100 * share)}", replace(early, K=64, energy=share)) for share in ENERGIES]
    arms += [("random", chance), (f"random_k{KS[-2]}", replace(chance, K=KS[-2]))]
    of_others = {"rlvr": "rlvr", "sft": "sft_matched", "other_seed": sibling.name}
    only_opd = [
        *((name, Projection(basis="other_seed", K=K, source=source)) for name, source in of_others.items()),
        ("principal", Projection(basis="principal", K=K)),
        ("early_both", replace(early, constrain="both")),
    ]
    of_opd = Projection(basis="other_seed", K=K, source="opd")
    return (
        *(first, opd, rlvr, matched, replace(opd, name="opd_exact", estimator="exact")),
        *(sibling, *chance_runs(opd, rlvr)),
        *(projected(opd, *arm) for arm in (*arms, *only_opd)),
        *(projected(opd, f"early_at_{share}", early, at=share / 100) for share in (10, 40)),
        *(projected(matched, *arm) for arm in (*arms, ("opd", of_opd))),
        *(projected(rlvr, *arm) for arm in (("early", early), ("random", chance))),
    )


# --- The paper's budgets (its tables of settings), and each objective at the other budget (C1–C9).


def budget_runs(*, task: Task, demonstration_noise: float) -> tuple[RunConfig, ...]:
    """SFT of 256 × 5,375 completions, OPD of 64 × 300, RLVR of 512 × 1,024, at eight a prompt, with the
    paper's schedules, β, ε and decay, and rates in its ratio of ten. `…_short` is at OPD's budget, `…_long`
    at RLVR's.

    SFT from the anchor sees the prompts of the others with one demonstration, whose loss is that of eight.
    """
    sft: dict[str, Any] = {"steps": 5375, "prompts_per_step": 256, "snapshot_every": 430}
    sft |= {"learning_rate": 1e-4, "schedule": "cosine", "warmup_fraction": 0.1, "betas": (0.9, 0.95)}
    sft |= {"samples_per_prompt": 1, "demonstration_noise": demonstration_noise}
    short: dict[str, Any] = {"steps": 300, "prompts_per_step": 8, "snapshot_every": 30, "tasks": (task,)}
    long = short | {"steps": 1024, "prompts_per_step": 64, "snapshot_every": 128}
    return (
        RunConfig(name="sft", objective="sft", start="base", tasks=(task,), **sft),
        RunConfig(name="opd", objective="opd", **short),
        RunConfig(name="rlvr", objective="rlvr", epsilon=1e-15, **long),
        RunConfig(name="opd_long", objective="opd", **long),
        RunConfig(name="rlvr_short", objective="rlvr", epsilon=1e-15, **short),
        RunConfig(name="sft_short", objective="sft", samples_per_prompt=1, **short),
        RunConfig(name="sft_long", objective="sft", samples_per_prompt=1, **long),
    )


# --- Pretrained weights: the four main runs, and two of them confined (C1–C7, C10).


def pretrained_runs(*, sft: dict[str, Any], policy: dict[str, Any], K: int) -> tuple[RunConfig, ...]:
    """SFT, OPD, RLVR and matched SFT, and OPD and matched SFT confined from a fifth of the run on to their
    early V_K, or to nothing (K = 0). sft: settings of the first stage; policy: of all that follow."""
    first = RunConfig(name="sft", objective="sft", start="base", **sft)
    opd = RunConfig(name="opd", objective="opd", **policy)
    batch = opd.prompts_per_step * opd.samples_per_prompt
    matched = replace(opd, name="sft_matched", objective="sft", prompts_per_step=batch, samples_per_prompt=1)
    early, none = Projection(basis="early", K=K), Projection(basis="none", K=0, constrain="update")
    return (
        *(first, opd, replace(opd, name="rlvr", objective="rlvr"), matched),
        *(projected(run, *arm) for run in (opd, matched) for arm in (("early", early), ("none", none))),
    )
