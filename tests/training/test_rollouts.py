"""Rollouts: cached sampling is the model's distribution, and scoring with shared prompts a full forward."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny import PROMPTS, SUMS, draw, full_logits

from paper_lib.study.tasks import END, PAD, Problem, problems, seeded_generator
from paper_lib.training import rollouts
from paper_lib.training.rollouts import (
    Batch,
    accuracy,
    completion_logits,
    encode_demonstrations,
    encode_prompts,
    rewards,
    token_log_probs,
)


def texts(tokenizer, batch):
    return tokenizer.batch_decode(batch.completion_ids)


def random_batch(seed, *, prompts=7, group=3, longest=9):
    generator = seeded_generator("batch", seed)
    lengths = torch.randint(1, longest + 1, (prompts * group,), generator=generator)
    widths = torch.randint(1, 6, (prompts,), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    prompt_mask = torch.arange(6) >= 6 - widths[:, None]
    return Batch(
        prompt_ids=torch.randint(0, 19, (prompts, 6), generator=generator) * prompt_mask,
        prompt_mask=prompt_mask,
        completion_ids=torch.randint(0, 19, (prompts * group, longest), generator=generator) * mask,
        completion_mask=mask,
        log_probs=-torch.rand(prompts * group, longest, generator=generator) * mask,
        rewards=torch.arange(prompts * group).float(),
        advantages=torch.randn(prompts * group, generator=generator),
        noise=torch.rand(prompts * group, longest, generator=generator),
    )


def test_prompts_are_padded_on_the_left_and_demonstrations_on_the_right(tokenizer):
    batch = encode_demonstrations(tokenizer, ["?3+4=", "?12-5="], ["7", "12=7"])
    assert tokenizer.batch_decode(batch.prompt_ids) == ["_?3+4=", "?12-5="]
    assert batch.prompt_mask.tolist() == [[False] + [True] * 5, [True] * 6]
    assert texts(tokenizer, batch) == ["7$___", "12=7$"]
    assert batch.completion_mask.sum(1).tolist() == [2, 5]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_cached_log_probs_are_those_of_a_full_forward_pass(student, tokenizer, temperature):
    batch = draw(student, tokenizer, length=12, temperature=temperature)
    lengths = batch.completion_mask.sum(1)
    assert lengths.min() < lengths.max()  # rows that end early were dropped on the way
    logits = full_logits(student, batch) / temperature
    expected = token_log_probs(logits, batch.completion_ids).masked_fill(~batch.completion_mask, 0)
    torch.testing.assert_close(batch.log_probs, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("model", ["student", "base"])
def test_scoring_with_shared_prompts_is_a_full_forward_pass(model, tokenizer, samples, request):
    student = request.getfixturevalue(model)
    batch = draw(student, tokenizer, samples=samples)
    mask = batch.completion_mask
    ours, full = completion_logits(student, batch)[mask], full_logits(student, batch)[mask]
    torch.testing.assert_close(ours, full, atol=2e-5, rtol=0)


@pytest.mark.parametrize("model", ["student", "base"])
def test_scoring_with_shared_prompts_has_the_gradient_of_a_full_forward_pass(model, tokenizer, request):
    student = request.getfixturevalue(model)
    batch = draw(student, tokenizer, samples=8)
    if model == "base":  # some of its completions are alike, and are run once
        alike = [texts(tokenizer, batch)[8 * i : 8 * i + 8] for i in range(4)]
        assert any(len(set(group)) < 8 for group in alike)
    weight = torch.randn(batch.completion_mask.sum(), 19, generator=seeded_generator("weight"))
    gradients = []
    for logits in (completion_logits, full_logits):
        student.zero_grad()
        (logits(student, batch)[batch.completion_mask] * weight).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in student.named_parameters()})
    for name, gradient in gradients[0].items():
        scale = float(gradients[1][name].abs().max())
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4 * scale, rtol=1e-4, msg=name)


def test_equal_completions_are_run_once_and_keep_their_logits_and_gradients(student, tokenizer, monkeypatch):
    batch = draw(student, tokenizer, samples=4)
    twin = batch.completion_ids.view(-1, 4, batch.completion_ids.shape[1])[:, [0, 1, 0, 0]].flatten(0, 1)
    twin_mask = batch.completion_mask.view(-1, 4, twin.shape[1])[:, [0, 1, 0, 0]].flatten(0, 1)
    batch = replace(batch, completion_ids=twin, completion_mask=twin_mask)
    rows = []
    weight = torch.randn(twin_mask.sum(), 19, generator=seeded_generator("weight"))
    gradients = []
    with monkeypatch.context() as patched:
        forward = student.forward
        patched.setattr(student, "forward", lambda **k: rows.append(len(k["input_ids"])) or forward(**k))
        ours = completion_logits(student, batch)[twin_mask]
    for logits in (ours, full_logits(student, batch)[twin_mask]):
        student.zero_grad()
        (logits * weight).sum().backward()
        gradients.append(student.model.layers[0].self_attn.q_proj.weight.grad.clone())
    assert rows == [len(torch.unique(torch.cat([torch.arange(len(twin))[:, None] // 4, twin], 1), dim=0))]
    assert rows[0] <= len(twin) // 2
    torch.testing.assert_close(ours, full_logits(student, batch)[twin_mask], atol=2e-5, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-4 * float(gradients[1].abs().max()), rtol=1e-4)


def test_a_prompt_of_one_token_is_scored(student, tokenizer):
    batch = draw(student, tokenizer, ["?", "?"])
    mask = batch.completion_mask
    ours, full = completion_logits(student, batch)[mask], full_logits(student, batch)[mask]
    torch.testing.assert_close(ours, full, atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_sampling_follows_the_softmax(student, tokenizer, temperature):
    draws = 4000
    batch = draw(student, tokenizer, PROMPTS[:1], samples=draws, length=2, temperature=temperature)
    first, second = batch.completion_ids.T
    expected = (full_logits(student, batch).detach().double() / temperature).softmax(-1)
    assert chisquare(first.bincount(minlength=19), draws * expected[0, 0]).pvalue > 1e-3
    commonest = first[first != tokenizer.eos_token_id].mode().values
    rows = (first == commonest).nonzero()[:, 0]
    found = second[rows].bincount(minlength=19)
    assert chisquare(found, len(rows) * expected[rows[0], 1]).pvalue > 1e-3


def test_a_low_temperature_is_greedy(student, tokenizer):
    cold = draw(student, tokenizer, samples=2, temperature=1e-6)
    greedy = draw(student, tokenizer, samples=1, seed=None)
    assert texts(tokenizer, cold)[::2] == texts(tokenizer, cold)[1::2] == texts(tokenizer, greedy)


@pytest.mark.parametrize("model", ["student", "base"])
def test_greedy_is_that_of_transformers(model, tokenizer, request):
    model = request.getfixturevalue(model)
    prompts = [p.prompt for p in problems(SUMS, split="test", number=12, seed=0)] + ["?1+22=", "?4="]
    ids, mask = encode_prompts(tokenizer, prompts)
    ours = draw(model, tokenizer, prompts, samples=1, length=10, seed=None)
    theirs = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=10)
    assert torch.equal(ours.completion_ids, theirs[:, ids.shape[1] :])


def test_the_base_ends_its_completions_at_different_lengths(base, tokenizer):
    batch = draw(base, tokenizer, samples=8)
    ended = (batch.completion_ids == tokenizer.eos_token_id).any(1)
    assert ended.float().mean() > 0.5
    assert len(set(batch.completion_mask.sum(1)[ended].tolist())) > 1


def test_a_sample_depends_on_no_other_row(base, tokenizer):
    alone = draw(base, tokenizer, PROMPTS[:1])
    for others in (["?9-9="], ["?12-5+88=", "?4+4="], ["?<7,1,22,3,4,5="]):
        together = draw(base, tokenizer, [*PROMPTS[:1], *others])
        width = min(alone.completion_ids.shape[1], together.completion_ids.shape[1])
        assert torch.equal(together.completion_ids[:4, :width], alone.completion_ids[:, :width])
        torch.testing.assert_close(
            together.log_probs[:4, :width], alone.log_probs[:, :width], atol=2e-5, rtol=0
        )


def test_parts_of_a_draw_make_up_the_whole(base, tokenizer):
    whole = texts(tokenizer, draw(base, tokenizer))
    halves = [draw(base, tokenizer, PROMPTS[2 * i : 2 * i + 2], part=(i, 2)) for i in range(2)]
    cut = [text.rstrip(PAD) for half in halves for text in texts(tokenizer, half)]
    assert cut == [text.rstrip(PAD) for text in whole]


def test_the_seed_decides_the_draw(base, tokenizer):
    first, again, other = (texts(tokenizer, draw(base, tokenizer, seed=s)) for s in (0, 0, 1))
    assert first == again != other


def test_the_mask_covers_tokens_up_to_the_end_mark(base, tokenizer):
    batch = draw(base, tokenizer, samples=8)
    for ids, mask, log_p in zip(
        batch.completion_ids.tolist(), batch.completion_mask.tolist(), batch.log_probs, strict=True
    ):
        end = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        assert mask == [True] * end + [False] * (len(ids) - end)
        assert set(ids[end:]) <= {tokenizer.pad_token_id}
        assert (log_p[:end] < 0).all()
        assert (log_p[end:] == 0).all()


def completed(tokenizer, completions):
    """A batch of the given texts, one a prompt; `$` is the end mark and `_` padding or a sampled pad."""
    rows = [tokenizer(text)["input_ids"] for text in completions]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    prompts, prompt_mask = encode_prompts(tokenizer, ["?3+4="] * len(rows))
    return Batch(prompt_ids=prompts, prompt_mask=prompt_mask, completion_ids=ids, completion_mask=mask)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("7" + END, 1.0),
        ("3+4=7" + END, 1.0),
        ("8" + END, 0.0),
        ("7", 0.0),  # right, but it never ended
        ("7=", 0.0),
        ("7=" + END, 0.0),
        ("7" + PAD + END, 0.0),  # padding is for the batch, not for the model to write
        (PAD + "7" + END, 0.0),
        (END, 0.0),
    ],
)
def test_rewards_refuse_what_is_wrong_or_unfinished(tokenizer, completion, reward):
    problem = Problem(prompt="?3+4=", demonstration="7", answer="7")
    batch = completed(tokenizer, [completion, "1234567890" + END])
    assert rewards(tokenizer, batch, [problem] * 2).tolist() == [reward, 0.0]


def test_a_right_answer_that_fills_its_row_without_an_end_mark_is_unfinished(tokenizer):
    problem = Problem(prompt="?3+4=", demonstration="7", answer="7")
    batch = completed(tokenizer, ["3+4=7", "1=10=7", "4+3=7" + END])
    assert rewards(tokenizer, batch, [problem] * 3).tolist() == [0.0, 0.0, 1.0]


def test_rewards_pair_every_completion_with_its_own_problem(tokenizer):
    found = problems(SUMS, split="train", number=3, seed=0)
    batch = completed(tokenizer, [p.answer + END for p in found for _ in range(2)])
    batch = replace(batch, prompt_ids=batch.prompt_ids[::2], prompt_mask=batch.prompt_mask[::2])
    assert rewards(tokenizer, batch, found).tolist() == [1.0] * 6
    wrong = [replace(p, answer=p.answer + "0") for p in found[:1]] + found[1:]
    assert rewards(tokenizer, batch, wrong).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("tokens", [1, 20, 60, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_chunks_cover_every_row_exactly_once(tokens, seed):
    batch = random_batch(seed)
    chunks = batch.chunks(tokens)
    rows = torch.cat([chunk.rewards for chunk in chunks]).long()
    assert rows.sort().values.tolist() == list(range(21))
    for chunk in chunks:
        assert chunk.group_size == batch.group_size
        assert chunk.completion_ids.shape[0] == chunk.prompt_ids.shape[0] * chunk.group_size
        assert chunk.completion_ids.numel() <= tokens or chunk.prompt_ids.shape[0] == 1
        for row, original in enumerate(chunk.rewards.long().tolist()):
            mask, prompt_mask = chunk.completion_mask[row], chunk.prompt_mask[row // chunk.group_size]
            whole, prompt_whole = batch.completion_mask[original], batch.prompt_mask[original // 3]
            for name in ("completion_ids", "log_probs", "noise"):
                ours, all_of_it = getattr(chunk, name)[row], getattr(batch, name)[original]
                assert torch.equal(ours[mask], all_of_it[whole]), name
            assert chunk.advantages[row] == batch.advantages[original]
            ids, all_ids = chunk.prompt_ids[row // chunk.group_size], batch.prompt_ids[original // 3]
            assert torch.equal(ids[prompt_mask], all_ids[prompt_whole])


def test_a_selection_is_cut_to_its_longest_row(tokenizer):
    batch = random_batch(0)
    chosen = batch.select(torch.tensor([4, 1]))
    assert chosen.rewards.tolist() == [12, 13, 14, 3, 4, 5]
    assert chosen.completion_mask.any(0).all()
    assert chosen.prompt_mask.any(0).all()
    plain = replace(batch, log_probs=None, rewards=None, advantages=None, noise=None)
    assert {f.name for f in fields(Batch) if getattr(plain.select(torch.tensor([0])), f.name) is None} == {
        "credit",
        "log_probs",
        "rewards",
        "advantages",
        "noise",
    }


def test_token_log_probs_are_the_log_softmax_of_the_tokens():
    logits = 5 * torch.randn(3, 4, 19, generator=seeded_generator("logits"))
    tokens = torch.randint(0, 19, (3, 4), generator=seeded_generator("tokens"))
    expected = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs(logits, tokens), expected)


# Accuracy

TEST = problems(SUMS, split="test", number=10, seed=0)


def measure(model, tokenizer, chosen=TEST, *, samples=4, seed=0):
    return accuracy(model, tokenizer, chosen, samples=samples, max_new_tokens=6, seed=seed)


def test_the_mean_and_its_error_are_those_of_the_problems(base, tokenizer, monkeypatch):
    generator = np.random.default_rng(0)
    drawn = []

    def planned(tokenizer, batch, part):
        drawn.append(generator.integers(0, 2, len(batch.completion_ids)))
        return torch.from_numpy(drawn[-1]).float()

    monkeypatch.setattr(rollouts, "rewards", planned)
    found = measure(base, tokenizer)
    means = drawn[0].reshape(10, 4).mean(1)
    assert found["sampled_accuracy"] == pytest.approx(means.mean())
    assert found["sampled_accuracy_se"] == pytest.approx(means.std(ddof=1) / np.sqrt(10))
    assert found["greedy_accuracy"] == pytest.approx(drawn[1].mean())


def test_the_error_is_how_the_mean_varies_over_problem_sets(base, tokenizer):
    many = problems(SUMS, split="train", number=640, seed=1)
    found = [measure(base, tokenizer, many[i : i + 32], samples=2, seed=i) for i in range(0, 640, 32)]
    spread = np.std([f["sampled_accuracy"] for f in found], ddof=1)
    error = np.mean([f["sampled_accuracy_se"] for f in found])
    assert 0.5 < spread / error < 2


def test_the_seed_decides_the_samples_and_greedy_needs_none(base, tokenizer):
    first, again, other = (measure(base, tokenizer, samples=16, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["greedy_accuracy"] == other["greedy_accuracy"]
    assert first["sampled_accuracy"] != other["sampled_accuracy"]


def test_many_problems_are_evaluated_in_parts(base, tokenizer, monkeypatch):
    whole = measure(base, tokenizer)
    monkeypatch.setattr(rollouts, "ROWS_AT_ONCE", 12)
    parts = measure(base, tokenizer)
    assert parts["greedy_accuracy"] == whole["greedy_accuracy"]
    assert 0 <= parts["sampled_accuracy"] <= 1


def test_one_problem_has_no_error(base, tokenizer):
    assert measure(base, tokenizer, TEST[:1])["sampled_accuracy_se"] == 0.0
