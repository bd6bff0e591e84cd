"""Tasks: disjoint splits, demonstrations that verify, corruption of digits alone, a plain tokenizer."""

import re
from itertools import pairwise

import pytest
from reasoning_gym import create_dataset
from scipy.stats import binomtest, chisquare
from tiny import LONGER, SORTING, SUMS
from transformers import AutoTokenizer

from paper_lib.ground.errors import CompanionError
from paper_lib.study.plan import NEW_SKILLS
from paper_lib.study.profiles import PROFILES
from paper_lib.study.tasks import (
    CHAIN_SUM,
    CHARACTERS,
    END,
    LARGER_NUMBERS,
    MORE_TERMS,
    NUMBER_SORTING,
    PAD,
    UNSEEN_OPERATORS,
    UNSEEN_ORDER,
    Problem,
    Task,
    corrupt,
    problems,
    seeded_generator,
    split_of,
    verify,
)

STUDY = (CHAIN_SUM, NUMBER_SORTING, MORE_TERMS, LARGER_NUMBERS, UNSEEN_OPERATORS)


def operators(expression: str) -> tuple[str, ...]:
    return tuple(re.findall(r"(?<=\d)[+-]", expression))


def value(expression: str) -> int:
    return sum(int(term) for term in re.findall(r"[+-]?\d+", expression))


def training_tasks() -> set[Task]:
    """Every task that models or runs are trained on which are asked for the unseen order as a variant."""
    runs = {run for profile in PROFILES.values() for run in profile.runs if run.tasks != NEW_SKILLS}
    stages = {s for profile in PROFILES.values() for line in profile.lineages for s in line.stages}
    return {task for run in runs | stages for task in run.tasks}


def test_splits_never_overlap_across_tasks_and_seeds():
    drawn = {
        split: {
            problem.prompt
            for task in {*STUDY, SUMS, LONGER, SORTING}
            for seed in (0, 1, "evaluation")
            for problem in problems(task, split=split, number=number, seed=seed)
        }
        for split, number in (("train", 120), ("validation", 40), ("test", 40))
    }
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]
    for split, prompts in drawn.items():
        assert {split_of(prompt) for prompt in prompts} == {split}


def test_a_tenth_of_the_prompts_each_is_for_validation_and_test():
    counts = {split: 0 for split in ("train", "validation", "test")}
    for number in range(3000):
        counts[split_of(f"?{number}+{number % 97}=")] += 1
    assert counts["validation"] == pytest.approx(300, abs=60)
    assert counts["test"] == pytest.approx(300, abs=60)


@pytest.mark.parametrize("task", sorted(training_tasks(), key=lambda t: t.name), ids=lambda t: t.name)
def test_no_training_prompt_has_the_unseen_operator_order(task):
    assert task.order == "seen"
    for problem in problems(task, split="train", number=150, seed="leak"):
        assert operators(problem.prompt) != UNSEEN_ORDER


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_no_training_trace_of_the_study_passes_through_the_unseen_order(profile):
    for task in {task for run in profile.runs if run.tasks != NEW_SKILLS for task in run.tasks}:
        for problem in problems(task, split="train", number=150, seed="leak"):
            assert UNSEEN_ORDER not in [operators(line) for line in problem.demonstration.split("=")]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_unseen_variant_has_that_order_alone(split):
    for problem in problems(UNSEEN_OPERATORS, split=split, number=40, seed=3):
        assert operators(problem.prompt) == UNSEEN_ORDER


@pytest.mark.parametrize("task", STUDY, ids=lambda t: t.name)
def test_problems_depend_on_the_seed_alone(task):
    first = problems(task, split="train", number=30, seed="0//5")
    assert problems(task, split="train", number=30, seed="0//5") == first
    assert problems(task, split="train", number=10, seed="0//5") == first[:10]
    other = problems(task, split="train", number=30, seed="0//6")
    assert len({p.prompt for p in first} & {p.prompt for p in other}) < 3


@pytest.mark.parametrize("task", STUDY, ids=lambda t: t.name)
def test_problems_lie_in_the_ranges_of_their_task(task):
    for problem in problems(task, split="train", number=60, seed=0):
        numbers = re.findall(r"\d+", problem.prompt)
        assert task.terms[0] <= len(numbers) <= task.terms[1]
        assert all(task.digits[0] <= len(number) <= task.digits[1] for number in numbers)


@pytest.mark.parametrize("task", STUDY, ids=lambda t: t.name)
def test_demonstrations_verify_and_another_answer_does_not(task):
    for problem in problems(task, split="test", number=40, seed=0):
        assert verify(problem.demonstration, problem)
        assert verify(problem.answer, problem)
        assert not verify(problem.demonstration + "0", problem)
        assert not verify(problem.demonstration + "=", problem)
        assert not verify("", problem)


@pytest.mark.parametrize(
    "task", [CHAIN_SUM, MORE_TERMS, LARGER_NUMBERS, UNSEEN_OPERATORS], ids=lambda t: t.name
)
def test_each_line_of_a_trace_carries_out_the_leftmost_operation(task):
    for problem in problems(task, split="train", number=60, seed=1):
        lines = [problem.prompt[1:-1], *problem.demonstration.split("=")]
        assert lines[-1] == problem.answer == str(value(lines[0]))
        for before, after in pairwise(lines):
            assert value(after) == value(before)
            assert operators(after) == operators(before)[1:]


@pytest.mark.parametrize("task", [CHAIN_SUM, MORE_TERMS, LARGER_NUMBERS], ids=lambda t: t.name)
def test_the_verifier_agrees_with_reasoning_gym_on_sums(task):
    theirs = create_dataset(
        "chain_sum", min_terms=2, max_terms=4, min_digits=1, max_digits=3, size=10, seed=0
    )
    for problem in problems(task, split="test", number=40, seed=2):
        entry = {"answer": str(value(problem.prompt[1:-1]))}
        for answer in (problem.answer, str(int(problem.answer) + 1), problem.answer + "0"):
            if int(answer) == int(problem.answer) and answer != problem.answer:
                continue  # 0 and 00 are one number to reasoning-gym; our models must write it as 0
            assert verify(f"1+1={answer}", problem) == (theirs.score_answer(answer, entry) == 1.0)


@pytest.mark.parametrize("task", [NUMBER_SORTING, SORTING], ids=lambda t: t.name)
def test_the_verifier_agrees_with_reasoning_gym_on_sorting(task):
    theirs = create_dataset("number_sorting", min_numbers=2, max_numbers=5, size=10, seed=0)
    for problem in problems(task, split="test", number=40, seed=2):
        ascending = problem.prompt[1] == "<"
        numbers = problem.prompt[2:-1].split(",")
        entry = {
            "answer": str(sorted(numbers, key=int, reverse=not ascending)),
            "metadata": {"direction": "ascending" if ascending else "descending"},
        }
        ordered = problem.answer.split(",")
        for answer in (ordered, ordered[::-1], ordered[:-1]):
            assert verify(",".join(answer), problem) == (theirs.score_answer(str(answer), entry) == 1.0)


def test_corruption_keeps_the_length_and_changes_digits_alone():
    texts = [p.demonstration for p in problems(MORE_TERMS, split="train", number=400, seed=0)]
    sloppy = [corrupt(text, 0.1, seeded_generator("corrupt", i)) for i, text in enumerate(texts)]
    digits = changed = 0
    for text, other in zip(texts, sloppy, strict=True):
        assert len(text) == len(other)
        for before, after in zip(text, other, strict=True):
            assert before.isdigit() == after.isdigit()
            assert before == after or before.isdigit()
            digits, changed = digits + before.isdigit(), changed + (before != after)
    assert binomtest(changed, digits, 0.1).pvalue > 1e-3
    assert sloppy != texts


def test_corruption_at_its_ends_and_its_replacement_digits():
    text = "5" * 9000
    assert corrupt(text, 0.0, seeded_generator(0)) == text
    every = corrupt(text, 1.0, seeded_generator(0))
    assert "5" not in every
    assert chisquare([every.count(digit) for digit in "012346789"]).pvalue > 1e-3
    assert corrupt(text, 0.3, seeded_generator(1)) == corrupt(text, 0.3, seeded_generator(1))


def test_an_empty_problem_set_is_refused():
    with pytest.raises(CompanionError, match=r"chain_sum: 0 test problems asked for"):
        problems(CHAIN_SUM, split="test", number=0, seed=0)


def test_a_task_without_problems_of_a_split_is_refused(monkeypatch):
    monkeypatch.setattr("paper_lib.study.tasks.split_of", lambda prompt: "train")
    monkeypatch.setattr("paper_lib.study.tasks.CANDIDATES", 500)
    with pytest.raises(CompanionError, match="tiny_sums: no test problem among 500 candidates"):
        problems(SUMS, split="test", number=1, seed=0)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("domain", "riddles"), ("terms", (1, 3)), ("terms", (3, 2)), ("digits", (0, 1)), ("digits", (2, 1))],
)
def test_a_task_names_what_is_wrong_with_it(field, wrong):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {wrong!r}")):
        Task(name="wrong", **{field: wrong})


def test_the_tokenizer_writes_one_token_a_character(tokenizer):
    assert len(tokenizer) == len(CHARACTERS)
    assert tokenizer.pad_token == PAD
    assert tokenizer.eos_token == END
    assert tokenizer.decode(tokenizer(CHARACTERS)["input_ids"]) == CHARACTERS
    for task in STUDY:
        for problem in problems(task, split="train", number=20, seed=0):
            text = problem.prompt + problem.demonstration + END
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert len(ids) == len(text)
            assert tokenizer.decode(ids) == text


def test_the_tokenizer_survives_its_file(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert (again.pad_token, again.eos_token, again.padding_side) == (PAD, END, "left")
    texts = ["?37+45-12=", "82-12=70$", "?<7,10,3="]
    assert again(texts, padding=True)["input_ids"] == tokenizer(texts, padding=True)["input_ids"]
    assert again.batch_decode(again(texts)["input_ids"]) == texts


@pytest.mark.parametrize("text", ["?3*4=", "?3 +4=", "x", "\n", "é"])
def test_an_unknown_character_is_an_error(tokenizer, text):
    with pytest.raises(Exception, match="UNK"):
        tokenizer(text)


def test_a_verifier_reads_the_last_line_only():
    problem = Problem(prompt="?3+4=", demonstration="7", answer="7")
    assert verify("1=7", problem)
    assert not verify("7=1", problem)
    assert not verify("07", problem)
