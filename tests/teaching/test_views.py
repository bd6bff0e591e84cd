"""A view's data is what the package computes, escaped, and small."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from paper_lib.figures.words import alt_text
from paper_lib.study.tasks import Problem, character_tokenizer
from paper_lib.teaching.charts import SHOWN, play_mixing
from paper_lib.teaching.play import as_script, view
from paper_lib.teaching.rollout import draw_credit, mixed, play_rollouts, rollout_record, said_at, signed
from paper_lib.training.objectives import group_advantages, mixed_credit, token_gap
from paper_lib.training.rollouts import Batch

LIMIT = 150_000
TOKENIZER = character_tokenizer()


def shipped(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


def rollouts(prompts: int = 2, group: int = 4, length: int = 6) -> dict:
    """Arguments of `rollout_record`: the first group has rewards of both kinds, every other none."""
    generator = torch.Generator().manual_seed(0)
    rows, lengths = prompts * group, torch.arange(prompts * group) % length + 1
    ids = torch.randint(2, len(TOKENIZER), (rows, length), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    log_p, teacher_log_p = -4 * torch.rand(2, rows, length, generator=generator)
    batch = Batch(
        prompt_ids=torch.full((prompts, 1), 2),
        prompt_mask=torch.ones(prompts, 1, dtype=torch.bool),
        completion_ids=ids.where(mask, torch.tensor(TOKENIZER.pad_token_id)),
        completion_mask=mask,
        rewards=(torch.arange(rows) == 0).float(),
    )
    problems = [Problem(prompt=f"?{n}<", demonstration="1+1=2", answer="2") for n in range(prompts)]
    return {
        **{"batch": batch, "log_p": log_p, "teacher_log_p": teacher_log_p},
        **{"tokenizer": TOKENIZER, "problems": problems},
    }


def test_credits_are_those_of_the_objectives_to_four_decimals():
    about = rollouts()
    batch, record = about["batch"], rollout_record(**about)
    gap = token_gap(about["log_p"], about["teacher_log_p"])
    advantages = group_advantages(batch.rewards, 4)
    lengths = batch.completion_mask.sum(1)
    rows = [each for prompt in record["prompts"] for each in prompt["completions"]]
    for row, each in enumerate(rows):
        assert len(each["tokens"]) == lengths[row]
        wanted = {
            "gap": gap,
            "opd": -gap,
            "student": about["log_p"].exp(),
            "teacher": about["teacher_log_p"].exp(),
        }
        for name, values in wanted.items():
            np.testing.assert_allclose(each[name], values[row, : lengths[row]], atol=1e-4)
        np.testing.assert_allclose(each["rlvr"], advantages[row], atol=1e-4)
        np.testing.assert_allclose(
            mixed(each, 0.3), mixed_credit(gap, advantages, 0.3)[row, : lengths[row]], atol=1e-4
        )


def test_the_mix_at_one_is_opd_and_at_zero_rlvr_exactly():
    record = rollout_record(**rollouts())
    for each in record["prompts"][0]["completions"]:
        assert mixed(each, 1.0) == each["opd"]
        assert mixed(each, 0.0) == [each["rlvr"]] * len(each["opd"])
        assert [-credit for credit in each["opd"]] == each["gap"]


def test_the_credit_of_a_completion_is_minus_the_gap_for_opd_and_one_number_for_rlvr():
    fig, (dense, one) = plt.subplots(2)
    draw_credit(dense, one, ["1", "+", "$"], torch.tensor([0.5, -1.0, 2.0]), torch.tensor(-0.5))
    assert [bar.get_height() for bar in dense.patches] == [-0.5, 1.0, -2.0]
    assert [bar.get_height() for bar in one.patches] == [-0.5] * 3
    assert "Y: -r_t (nats): OPD: a_t = -r_t: 3 tokens from −2 to 1." in alt_text(fig, "Credit.")
    assert "Y: A: RLVR: a_t = A −0.5." in alt_text(fig, "Credit.")
    plt.close(fig)


def test_a_group_without_variance_is_said_to_teach_rlvr_nothing():
    record = rollout_record(**rollouts())
    assert {each["rlvr"] for each in record["prompts"][1]["completions"]} == {0.0}
    assert "All 4 completions are wrong, so A = 0" in record["prompts"][1]["completions"][0]["said"]
    assert "1 of 4 is right, so A = +1.50" in record["prompts"][0]["completions"][0]["said"]


def test_sft_has_the_demonstration_with_its_end_mark():
    record = rollout_record(**rollouts())
    assert record["prompts"][0]["demonstration"] == ["1", "+", "1", "=", "2", "$"]


def test_any_rollout_and_any_alpha_can_be_shown():
    record = rollout_record(**rollouts())
    play = play_rollouts(record, row=1)
    assert play.words.startswith("Completion 2 of 4 of ?0< is wrong (reward 0).")
    words = said_at(record["prompts"][1]["completions"][1], 1.0)
    assert "Completion 2 of 4 of ?1< is wrong" in words
    assert "With α = 1.00 the mix has" in words


def test_the_view_of_a_study_is_small_and_says_what_the_record_does():
    record = rollout_record(**rollouts(prompts=8, group=8, length=14))
    html = play_rollouts(record).html
    assert len(html.encode()) < LIMIT
    assert {name: shipped(html)[name] for name in record} == record


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "+0.50"), (-0.5, "−0.50"), (-0.004, "0.00"), (0.0, "0.00")]
)
def test_a_credit_shows_its_sign_where_it_has_one(value, text):
    assert signed(value) == text


def tables(seeds: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(0)
    places = [(r, s, t) for r in ("opd", "rlvr", "mix_0.25") for s in range(seeds) for t in (5, 10)]
    keys = pd.DataFrame(places, columns=["run", "seed", "step"])
    metrics = [*list(SHOWN)[:3]]
    values = [keys.assign(metric=m, value=1 + generator.random(len(keys))) for m in metrics]
    accuracy = keys.assign(metric="sampled_accuracy", value=generator.random(len(keys)))
    error = keys.assign(metric="sampled_accuracy_se", value=0.1)
    return pd.concat(values).assign(layer=0, module="q", k=np.nan), pd.concat([accuracy, error])


def ends_of(play, words):
    """By α, the line of a metric that is chosen, and what is said of it."""
    data, found = shipped(play.html), {}
    shown = data["controls"][1]["options"].index(words)
    for (alpha, metric), (number,), (said,), _ in data["cells"]:
        if metric == shown:
            chosen = [each for each in data["panels"][number]["lines"] if each["chosen"]]
            found[data["controls"][0]["options"][alpha]] = (chosen[0], data["said"][said])
    return found


def test_the_paths_of_a_mix_equal_the_tables():
    matrices, curves = tables()
    play = play_mixing(matrices, curves, modules=["q"])
    everything = pd.concat([matrices, curves])
    means = everything.groupby(["run", "metric", "step"])["value"].mean()
    for metric, words in SHOWN.items():
        found = ends_of(play, words)
        assert list(found) == ["α = 0, RLVR", "α = 0.25", "α = 1, OPD"]
        for run, (path, _) in zip(("rlvr", "mix_0.25", "opd"), found.values(), strict=True):
            np.testing.assert_allclose(path["mean"], means[run, metric], rtol=1e-4)
            assert path["x"] == [0.5, 1]
            assert all(
                lo < mid < hi for lo, mid, hi in zip(path["low"], path["mean"], path["high"], strict=True)
            )


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed)"), (2, "2 seeds)")])
def test_below_three_seeds_there_is_no_interval_but_that_of_the_problems(seeds, words):
    play = play_mixing(*tables(seeds=seeds), modules=["q"])
    path, said = ends_of(play, "stable rank")["α = 1, OPD"]
    assert path["low"] == [None, None]
    assert f"({words}" in said
    accuracy = ends_of(play, "validation accuracy")["α = 1, OPD"][1]
    assert f"± 1 standard error over the problems, {words}" in accuracy


def test_the_mix_in_the_middle_comes_first_and_its_view_is_small():
    play = play_mixing(*tables(), modules=["q"])
    assert len(play.html.encode()) < LIMIT
    assert play.words == ends_of(play, "stable rank")["α = 0.25"][1]


def test_text_ends_no_script_and_opens_no_element():
    nasty = "</script><!-- <b>&\"'"
    html = view("rollout", {"said": nasty}, Figure(), nasty).html
    assert shipped(html) == {"said": nasty}
    assert nasty not in html
    assert html.count("</script>") == 2
    with pytest.raises(ValueError, match="JSON"):
        as_script({"value": float("nan")})


@pytest.mark.parametrize("name", ["rollout", "chart"])
def test_a_view_loads_nothing_and_has_no_ids_to_clash(name):
    html = view(name, {}, Figure(), "").html
    assert not re.search(r"\b(id|for)=", html)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(", html)
    assert html.count(f'data-view="{name}"') == 2  # the root, and where its script looks for it


@pytest.mark.parametrize("name", ["rollout", "chart"])
def test_style_stays_inside_the_view(name):
    style = re.search(r"<style>(.*?)</style>", view(name, {}, Figure(), "").html, re.DOTALL)[1]
    style = re.sub(r"@media[^{]*", "", style)
    selectors = [s.strip() for rule in re.findall(r"([^{};]+)\{", style) for s in rule.split(",")]
    assert selectors
    assert all(re.match(r'(\[data-theme="\w+"\] )?\.paper-view\b', s) for s in selectors if s), selectors
