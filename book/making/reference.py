"""Reference pages from the docstrings: a page a group of modules."""

import ast
import pkgutil
from pathlib import Path

import paper_lib

# Every module is in one group; a new one that is in none stops the build.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Diagnostics": (
        "Pure functions on tensors: what the paper measures, and what chance would give.",
        (
            *("sparsity", "visibility", "spectra", "subspaces", "pca", "alignment", "projection", "drift"),
            *("curvature", "probing", "pairs", "nulls", "equal_footing"),
        ),
    ),
    "Numerics": (
        "Singular values and vectors with error bounds.",
        ("checks", "decompositions", "gram", "krylov", "certified"),
    ),
    "Training": (
        "One loop: tokens and credit in, snapshots out.",
        (
            *("tasks", "rollouts", "batches", "collection", "objectives", "losses", "optimizers"),
            *("constraints", "confinement", "subnetworks", "rotations", "evaluation", "train", "models"),
            "pretrain",
        ),
    ),
    "The study": (
        "Which runs there are, what each depends on, and what is reused.",
        (
            *("profiles", "config", "run_config", "diagnostics_config", "plan", "controls", "lineages"),
            *("study", "schedule", "starts", "runs", "run_place", "reuse", "parallel"),
        ),
    ),
    "Tables": (
        "Trajectories in, tidy tables out.",
        (
            *("extract", "measure", "measure_end", "measuring", "parts", "joint_parts", "joined", "manifest"),
            *("found", "journeys", "tables", "curves", "summaries", "seedwise", "distances", "regression"),
        ),
    ),
    "The ledger": (
        "Claims, comparisons, intervals and verdicts.",
        (
            *("claims", "claims_of_paper", "claims_of_others", "ledger", "evidence", "findings", "outcomes"),
            *(
                "verdicts",
                "rules_weights",
                "rules_training",
                "rules_controls",
                "rules_projection",
                "rules_gates",
                "rules_pnt",
            ),
            "rules_sibling",
        ),
    ),
    "Your own checkpoints": (
        "Reading, pairing, measuring and placing any two checkpoints.",
        (
            *("sources", "checkpoints", "shards", "fused", "adapters", "matrices", "sizes", "export"),
            *(
                "compare",
                "compare_matrix",
                "compared",
                "comparison",
                "clusters",
                "placing",
                "answer",
                "report",
            ),
        ),
    ),
    "Figures": (
        "One look for every figure, and what draws them.",
        (
            *("figures", "styles", "drawing", "drawing_seeds", "drawing_rows", "drawing_overview"),
            *("drawing_weights", "drawing_paths", "drawing_pairs", "drawing_gates", "drawing_controls"),
            *("drawing_sweeps", "drawing_regression", "drawing_ledger", "drawing_compare"),
            *("drawing_masks", "drawing_journeys", "drawing_animation", "animation", "alt_text", "drawn"),
            *("drawn_intervals", "plain_words", "drawing_ratios"),
        ),
    ),
    "Play": (
        "Controls in JupyterLab, still pictures without a kernel, and views that need none.",
        ("play", "play_projection", "play_tolerance", "view_mixing", "view_rollout", "views"),
    ),
    "Commands": (
        "Notebooks executed, times taken, files written whole.",
        (
            *(
                "execute",
                "kernels",
                "turns",
                "commands",
                "compare_command",
                "bench_command",
                "parsing",
                "arguments",
                "bench",
                "bench_diagnose",
                "bench_trl",
                "stopwatch",
            ),
            *("notebooks", "files", "errors"),
        ),
    ),
    "Teaching": (
        "Exercises that say which mistake an answer looks like, and the notebooks without their solutions.",
        (
            *("exercises", "judging", "exercises_training", "exercises_diagnostics", "exercises_sparsity"),
            *("exercises_rotation", "exercises_locking", "exercises_controls", "exercises_checkpoints"),
            "student",
        ),
    ),
}


def reference_pages(folder: Path) -> None:
    """Write index.md and a page a group to a folder. Raises KeyError for a module in no group, or in two."""
    there = {module.name for module in pkgutil.iter_modules(paper_lib.__path__)} - {"__main__"}
    listed = [name for _, names in GROUPS.values() for name in names]
    if wrong := sorted((there ^ set(listed)) | {name for name in listed if listed.count(name) > 1}):
        raise KeyError(f"book/making/reference.py: in no group, in two, or gone: {', '.join(wrong)}")
    folder.mkdir(parents=True)
    index = ["# Reference", "", "Every module of `paper_lib`, from its docstrings.", ""]
    for group, (summary, names) in GROUPS.items():
        index += [f"## [{group}]({_file(group)}.md)", "", summary, "", "| module | |", "|---|---|"]
        index += [f"| [`{name}`](#module-{name}) | {_summary(name)} |" for name in names] + [""]
        page = [f"# {group}", "", summary, ""]
        for name in names:
            page += [f"(module-{name})=", f"## `{name}`", ""]
            page += ["```{eval-rst}", f".. automodule:: paper_lib.{name}", "```", ""]
        (folder / f"{_file(group)}.md").write_text("\n".join(page), encoding="utf-8")
    index += ["```{toctree}", ":hidden:", "", *map(_file, GROUPS), "```", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def _file(group: str) -> str:
    return group.lower().replace(" ", "_")


def _summary(name: str) -> str:
    source = Path(paper_lib.__path__[0], f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
