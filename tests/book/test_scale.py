"""The page on scale: its memory and hours are those that a dry run of the recipes prints."""

import pytest
from exercise_cells import ROOT

from paper_lib.ground.tables import table_parts
from paper_lib.live.recipe import hours, memory, sizes
from paper_lib.study.profiles import PAPER

PAGE = (ROOT / "book" / "pages" / "scale.md").read_text(encoding="utf-8")
STUDENT, TEACHER = "Qwen/Qwen3-8B-Base", "Qwen/Qwen3-32B"
SCALE = {"tokens": 1000, "cards": 8}


def measured(profile):
    """The seeds of every run that the committed tables of a profile hold."""
    seeds = {}
    for run, seed, _ in table_parts(ROOT / "data" / "results" / profile / "curves.parquet")["fingerprints"]:
        seeds.setdefault(run, set()).add(seed)
    return seeds


@pytest.mark.parametrize("profile", ["headroom", "budgets", "widths", "smollm2"])
def test_the_runs_and_seeds_of_a_profile_are_those_of_its_tables(profile):
    seeds = measured(profile)
    (number,) = {len(of_run) for of_run in seeds.values()}
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{profile}`"))
    assert f" | {len(seeds)} a seed | {number}" in row


def test_the_runs_and_seeds_of_the_reference_are_those_of_its_tables():
    numbers = [len(of_run) for of_run in measured("reference").values()]
    assert f"| {sum(numbers)} | {max(numbers)} (main runs), {min(numbers)} |" in PAGE


def of(taken, run):
    return list(taken(PAPER.run(run), STUDENT, TEACHER, **SCALE).values())


def test_the_models_have_the_weights_that_the_page_gives():
    (student, a_token), (teacher, _) = sizes(STUDENT), sizes(TEACHER)
    assert f"student has {student / 1e9:.1f} billion parameters, the teacher {teacher / 1e9:.1f}." in PAGE
    assert f"| {a_token:,} a token | 64 responses: {64 * 1000 * a_token / 1e9:.1f} GB |" in PAGE


def test_the_memory_of_the_papers_scale_is_what_its_bytes_give():
    (training,), (_, teacher, copy, few), (_, _, many) = (of(memory, run) for run in ("sft", "opd", "rlvr"))
    assert f"| {8 * training:.0f} GB | {training:.1f} GB |" in PAGE
    assert f"| {8 * teacher:.0f} GB | {teacher:.1f} GB |" in PAGE
    assert f"| {copy:.1f} GB |" in PAGE
    assert f"| {many:.1f} GB (RLVR), {few:.1f} GB (OPD) |" in PAGE


def test_the_hours_of_the_papers_scale_are_what_its_steps_give():
    (sft,), (student, teacher, sampling), (rlvr, group) = (of(hours, run) for run in ("sft", "opd", "rlvr"))
    batches = [run.prompts_per_step * run.samples_per_prompt * run.steps for run in PAPER.runs]
    assert "| responses: batch × steps | {:,} | {:,} | {:,} |".format(*batches) in PAGE
    assert f"| {sft:.1f} h | {student:.2f} h | {rlvr:.1f} h |" in PAGE
    assert f"| | {teacher:.2f} h | |" in PAGE
    assert f"| | {sampling:.2f} h | {group:.1f} h |" in PAGE
    assert (
        f"| **{sft:.1f} h** | **{student + teacher + sampling:.2f} h** | **{rlvr + group:.1f} h** |" in PAGE
    )


@pytest.mark.parametrize("run", PAPER.runs, ids=lambda run: run.name)
def test_the_papers_budgets_are_those_of_its_tables(run):
    steps, responses, rate = {"sft": (5375, 256, 1e-5), "opd": (300, 64, 1e-6), "rlvr": (1024, 512, 1e-6)}[
        run.name
    ]
    assert (run.steps, run.prompts_per_step * run.samples_per_prompt, run.learning_rate) == (
        steps,
        responses,
        rate,
    )
