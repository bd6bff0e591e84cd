"""What to run: the profiles as constants."""

from dataclasses import replace
from typing import Any

from paper_lib.ground.errors import CompanionError
from paper_lib.study import lineages, tasks
from paper_lib.study.config import DiagnosticsConfig, EvaluationConfig, MergeConfig, ModelProbes, Profile
from paper_lib.study.plan import budget_runs, control_runs, headroom_runs, pretrained_runs, study_runs

VARIANTS = (tasks.MORE_TERMS, tasks.LARGER_NUMBERS, tasks.UNSEEN_OPERATORS, tasks.NUMBER_SORTING)
MAIN_RUNS = ("sft", "opd", "rlvr")
# What other rollouts, prompts, or credits change in an update.
PROBE_PAIRS = (
    ("rlvr", "rlvr_restream"),
    ("sft_matched", "sft_matched_restream"),
    ("opd", "opd_shuffled_credit"),
    ("rlvr", "rlvr_random_reward"),
    ("opd", "opd_256x1"),
    ("opd", "sft_matched_32x8"),
)

_SFT: dict[str, Any] = {
    **{"schedule": "cosine", "warmup_fraction": 0.1, "betas": (0.9, 0.95)},
    **{"samples_per_prompt": 1, "demonstration_noise": 0.04},
}

LAPTOP = Profile(
    name="laptop",
    lineages=lineages.LAPTOP,
    runs=study_runs(
        task=tasks.CHAIN_SUM,
        second_task=tasks.NUMBER_SORTING,
        sft={**_SFT, "steps": 160, "prompts_per_step": 256, "learning_rate": 1e-4, "snapshot_every": 16},
        policy={"steps": 100, "learning_rate": 1e-5, "snapshot_every": 10},
        K=3,
    ),
    main_runs=MAIN_RUNS,
    main_seeds=(0, 1, 2),
    diagnostics=DiagnosticsConfig(model_probes=ModelProbes(drift_prompts=32, draws=2)),
    evaluation=EvaluationConfig(variants=VARIANTS),
)

REFERENCE = replace(
    LAPTOP,
    name="reference",
    lineages=lineages.REFERENCE,
    probes=control_runs(
        LAPTOP.runs, rotated_layers=(1, 3), ks=(1, 6, 12), wide_ks=(6, 12), branches=(0.1, 0.4)
    ),
    seeds=tuple(range(5)),
    main_runs=(*MAIN_RUNS, "sft_matched"),
    main_seeds=tuple(range(8)),
    diagnostics=DiagnosticsConfig(),
    probe_pairs=PROBE_PAIRS,
    committed=True,
)

# From a pilot on two seeds that no result uses, at 100 steps of 256 completions: greedy accuracy in percent
# on problems whose operators the anchor never saw, at the anchor, after 20 steps (the branch) and at the end:
#
#   rate            1e-5 (one seed)     3e-5
#   OPD             24  28  37          21  41  56    24  36  51
#   RLVR            24  32  53          21  45  73    24  43  70
#   matched SFT     24  33  68          21  56  87    24  52  86
#
# Every arm has more than 20 points to gain and gains more than 5 after the branch at 3e-5. Of harder sums
# (four terms, or three digits) OPD gained at most 6 points in 200 steps, at four rates: no headroom.
HEADROOM = Profile(
    name="headroom",
    lineages=lineages.HEADROOM,
    runs=headroom_runs(
        sft={**_SFT, "demonstration_noise": 0.0, "steps": 30, "prompts_per_step": 256}
        | {"learning_rate": 5e-5, "snapshot_every": 10},
        policy={"steps": 100, "learning_rate": 3e-5, "snapshot_every": 10},
        K=3,
    ),
    seeds=tuple(range(20, 26)),
    bases=tuple((seed, "base_second") for seed in range(23, 26)),
    diagnostics=DiagnosticsConfig(
        pairs=(*DiagnosticsConfig().pairs[:3], ("opd", "opd_exact"), ("opd", "opd_shuffled_credit")),
        seed_runs=(),
    ),
    evaluation=EvaluationConfig(
        snapshot_problems=512,
        final_problems=512,
        samples=2,
        variants=(tasks.NUMBER_SORTING, tasks.MORE_TERMS),
        drawn="by seed",
    ),
    committed=True,
)

BUDGETS = Profile(
    name="budgets",
    lineages=lineages.HEADROOM,
    runs=budget_runs(task=tasks.CHAIN_SUM, demonstration_noise=0.04),
    seeds=tuple(range(30, 34)),
    bases=((31, "base_second"), (33, "base_second")),
    diagnostics=replace(HEADROOM.diagnostics, pairs=DiagnosticsConfig().pairs[:1], null_runs=MAIN_RUNS),
    evaluation=EvaluationConfig(variants=VARIANTS, drawn="by seed"),
    committed=True,
)

# The paper's own three runs, for TRL's trainers (`paper_lib.live.recipe`): the budgets at the paper's rates.
PAPER = Profile(
    name="paper",
    models="",
    runs=tuple(
        replace(BUDGETS.run(name), learning_rate=rate, snapshot_every=every)
        for name, rate, every in (("sft", 1e-5, 256), ("opd", 1e-6, 64), ("rlvr", 1e-6, 128))
    ),
)

WIDTHS = Profile(
    name="widths",
    lineages=lineages.WIDTHS,
    runs=tuple(LAPTOP.run(name) for name in (*MAIN_RUNS, "sft_matched")),
    seeds=(50, 51, 52),
    bases=tuple((seed, "base_tiny") for seed in (50, 51, 52)),
    diagnostics=DiagnosticsConfig(
        pairs=DiagnosticsConfig().pairs[:3], null_runs=(), seed_runs=(), model_probes=None
    ),
    evaluation=EvaluationConfig(drawn="by seed"),
    committed=True,
)

# Sizes by the cost: a step of 32 completions, logits at completions alone, takes two cores 3 to 5 s. Rates
# stand in the paper's ratio of ten, at 1e-5 as in the tiny runs.
_SIXTY: dict[str, Any] = {"steps": 60, "snapshot_every": 12, "precision": "bf16"}
SMOLLM2 = Profile(
    name="smollm2",
    models="runs/smollm2/models",
    lineages=lineages.SMOLLM2,
    runs=pretrained_runs(
        sft=_SFT | _SIXTY | {"prompts_per_step": 32, "learning_rate": 1e-4},
        policy=_SIXTY | {"prompts_per_step": 4, "learning_rate": 1e-5},
        K=8,
    ),
    seeds=(40, 41, 42),
    diagnostics=DiagnosticsConfig(
        principal_rank=16,
        angle_k=72,
        K=8,
        hill_k=64,
        energy_k=16,
        null_runs=("opd",),  # those that the frozen rules ask for: 840 decompositions a run and null
        pairs=DiagnosticsConfig().pairs[:3],
        seed_runs=(),
        model_probes=None,
    ),
    evaluation=EvaluationConfig(snapshot_problems=64, final_problems=256, samples=2, drawn="by seed"),
    curve_runs=tuple(f"{run}_projected_{arm}" for run in ("opd", "sft_matched") for arm in ("early", "none")),
    committed=True,
)

_SHORT: dict[str, Any] = {"max_new_tokens": 12}
_SMOKE_RUNS = study_runs(
    task=tasks.SMALL_SUMS,
    second_task=tasks.SMALL_SORTING,
    sft=_SFT | _SHORT | {"steps": 20, "prompts_per_step": 64, "learning_rate": 1e-4, "snapshot_every": 4},
    policy=_SHORT | {"steps": 10, "prompts_per_step": 8, "learning_rate": 1e-5, "snapshot_every": 2},
    K=2,
)
# One probe of each kind.
_SMOKE_PROBES = (
    *("opd_as_sft", "mix_0.25_unit", "opd_lr_2e-05", "opd_batch_16"),
    *("opd_projected_early_k1", "opd_projected_early_at_40", "sft_projected_early_update"),
    *("sft_matched_projected_early", "sft_matched_projected_random"),
    *("opd_subnetwork_found", "opd_subnetwork_random", "opd_sgd", "opd_rotated"),
    *("opd_restream", "sft_small", "opd_small_student", "opd_moe_teacher"),
    *("opd_projected_none", "opd_projected_free_alone", "sft_matched_projected_early_alone"),
    *("opd_shuffled_credit", "rlvr_random_reward", "opd_64x1"),
)

SMOKE = Profile(
    name="smoke",
    models="runs/smoke/models",
    lineages=lineages.SMOKE,
    runs=_SMOKE_RUNS,
    probes=tuple(
        run
        for run in control_runs(_SMOKE_RUNS, rotated_layers=(1,), ks=(1,), wide_ks=(4,), branches=(0.4,))
        if run.name in _SMOKE_PROBES
    ),
    main_runs=MAIN_RUNS,
    main_seeds=(0, 1),
    diagnostics=DiagnosticsConfig(
        principal_rank=2,
        angle_k=8,
        K=2,
        hill_k=8,
        energy_k=2,
        model_probes=ModelProbes(drift_prompts=8, curvature_prompts=8, draws=2, samples=2),
    ),
    merges=MergeConfig(pairs=(("opd", "rlvr"),)),
    stepped_runs=("opd",),
    evaluation=EvaluationConfig(
        snapshot_problems=32,
        final_problems=64,
        variant_problems=64,
        variants=(replace(tasks.SMALL_SUMS, name="more_terms", terms=(4, 4)), tasks.SMALL_SORTING),
    ),
)

PROFILES = {
    profile.name: profile for profile in (SMOKE, LAPTOP, REFERENCE, HEADROOM, BUDGETS, WIDTHS, SMOLLM2)
}


def get_profile(name: str) -> Profile:
    """The profile of that name; CompanionError names the known ones."""
    if name not in PROFILES:
        raise CompanionError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
