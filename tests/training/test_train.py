"""Training: one update is AdamW on the whole batch's gradient, however it is cut into chunks or processes."""

import math
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from ranks import WORLD, on_two_ranks
from tiny import (
    MIX,
    OPD,
    RANDOM_TOKENS,
    RLVR,
    SFT,
    SHAPE,
    SORTING,
    SUMS,
    TEACHER_SHAPE,
    TINY,
    full_logits,
    snapshots,
)

from paper_lib.ground.errors import CompanionError
from paper_lib.study.tasks import character_tokenizer, split_of
from paper_lib.training import train
from paper_lib.training.models import build_model
from paper_lib.training.objectives import group_advantages
from paper_lib.training.rollouts import token_log_probs
from paper_lib.training.runs import RunFolder, shared_threads, train_run
from paper_lib.training.train import (
    Optimization,
    Policy,
    chunk_loss,
    collect,
    informative,
    step_problems,
    train_steps,
)

LONG_SFT = replace(SFT, steps=8, snapshot_every=8)


def policy_of(seed=0):
    tokenizer = character_tokenizer()
    teacher = build_model(TEACHER_SHAPE, tokenizer, seed=1).requires_grad_(False)
    return Policy(student=build_model(SHAPE, tokenizer, seed=seed), tokenizer=tokenizer, teacher=teacher)


@pytest.fixture
def policy():
    return policy_of()


@pytest.fixture
def base_policy(base, teacher, tokenizer):
    return Policy(student=base, tokenizer=tokenizer, teacher=teacher)


def weights(policy):
    return {name: tensor.clone() for name, tensor in policy.student.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def run_steps(policy, run, first=0, last=None, seed=0, optimization=None):
    values = []
    optimization = optimization or Optimization(policy, run, Accelerator())
    train_steps(optimization, seed, first, last or run.steps, record=lambda s, v: values.append((s, dict(v))))
    return values


# What a step trains on


def test_problems_of_a_step_are_shared_by_the_runs_of_a_seed():
    drawn = step_problems(OPD, 0, 3, 6)
    assert step_problems(RLVR, 0, 3, 6) == drawn
    assert step_problems(replace(OPD, stream="other"), 0, 3, 6) != drawn
    assert step_problems(OPD, 1, 3, 6) != drawn
    assert step_problems(OPD, 0, 4, 6) != drawn
    assert {split_of(p.prompt) for p in drawn} == {"train"}


@pytest.mark.parametrize(("number", "shares"), [(10, (7, 3)), (8, (6, 2)), (2, (1, 1)), (3, (2, 1))])
def test_tasks_share_a_step_by_their_weights(number, shares):
    run = replace(OPD, tasks=(SUMS, SORTING), weights=(0.7, 0.3))
    drawn = step_problems(run, 0, 0, number)
    sorting = sum("," in p.prompt for p in drawn)
    assert (len(drawn) - sorting, sorting) == shares


def test_demonstrations_are_corrupted_afresh_every_step(policy):
    run = replace(SFT, demonstration_noise=0.5)
    clean = collect(policy, replace(run, demonstration_noise=0.0), 0, 0)
    first, again, second = (collect(policy, run, 0, step) for step in (0, 0, 1))
    assert torch.equal(first.completion_ids, again.completion_ids)
    assert torch.equal(first.prompt_ids, clean.prompt_ids)
    assert not torch.equal(first.completion_ids, clean.completion_ids)
    assert not torch.equal(second.prompt_ids, first.prompt_ids)


def test_rollouts_come_from_whom_the_run_names(policy):
    for run, actor in ((OPD, policy.student), (replace(OPD, rollout_policy="teacher"), policy.teacher)):
        batch = collect(policy, run, 0, 0)
        expected = token_log_probs(full_logits(actor, batch), batch.completion_ids)
        mask = batch.completion_mask
        torch.testing.assert_close(batch.log_probs[mask], expected[mask], atol=2e-5, rtol=0)
        assert batch.group_size == run.samples_per_prompt


def test_runs_draw_their_own_rollouts(base_policy):
    opd, rlvr = (collect(base_policy, run, 0, 0) for run in (OPD, RLVR))
    assert torch.equal(opd.prompt_ids, rlvr.prompt_ids)
    assert opd.completion_ids.shape != rlvr.completion_ids.shape or not torch.equal(
        opd.completion_ids, rlvr.completion_ids
    )


def test_rlvr_and_the_mix_get_group_advantages(base_policy):
    for run in (RLVR, MIX):
        batch = collect(base_policy, replace(run, prompts_per_step=8), 0, 0)
        expected = group_advantages(batch.rewards, run.samples_per_prompt)
        torch.testing.assert_close(batch.advantages, expected)
        assert batch.rewards.unique().tolist() == [0.0, 1.0]
    assert collect(base_policy, OPD, 0, 0).advantages is None


def test_parts_of_a_step_make_up_the_whole(base_policy):
    for run in (replace(SFT, demonstration_noise=0.5), RANDOM_TOKENS, RLVR):
        whole = collect(base_policy, run, 0, 0)
        halves = [collect(base_policy, run, 0, 0, part=(i, 2)) for i in range(2)]
        rows = len(whole.completion_mask) // 2
        for i, half in enumerate(halves):
            mask, whole_mask = half.completion_mask, whole.completion_mask[i * rows : (i + 1) * rows]
            for name in ("completion_ids", "log_probs", "noise", "rewards", "advantages"):
                ours, theirs = getattr(half, name), getattr(whole, name)
                if theirs is None:
                    assert ours is None
                    continue
                theirs = theirs[i * rows : (i + 1) * rows]
                if theirs.dim() == 2:
                    ours, theirs = ours[mask], theirs[whole_mask]
                torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0, msg=name)


def test_prompts_that_do_not_divide_among_processes_are_refused(policy):
    with pytest.raises(CompanionError, match="8 prompts a step do not divide among 3 processes"):
        collect(policy, SFT, 0, 0, part=(0, 3))


def test_groups_without_variance_are_skipped(base_policy):
    batch = collect(base_policy, replace(RLVR, prompts_per_step=3), 0, 0)
    batch = replace(batch, rewards=torch.tensor([0.0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1]))
    assert informative(batch, RLVR).rewards.tolist() == [1, 0, 0, 1]
    assert torch.equal(informative(batch, RLVR).prompt_ids[0][-5:], batch.prompt_ids[1][-5:])
    for run in (OPD, MIX, SFT):
        assert informative(batch, run) is batch
    assert informative(replace(batch, rewards=torch.zeros(12)), RLVR) is None


def test_a_step_without_variance_leaves_everything_alone(policy, monkeypatch):
    monkeypatch.setattr(train, "rewards", lambda tokenizer, batch, _: torch.ones(len(batch.completion_ids)))
    before = weights(policy)
    optimization = Optimization(policy, RLVR, Accelerator())
    values = run_steps(policy, RLVR, optimization=optimization)
    assert [(step, v) for step, v in values] == [(step, {"reward": 1.0}) for step in range(1, 5)]
    assert same(weights(policy), before)
    assert not any("exp_avg" in name for name in optimization.state())


# What a step does


def reference_steps(policy, run, steps):
    """The same steps by hand: whole batch, full forward passes, torch's own AdamW and clipping."""
    student = policy.student
    optimizer = torch.optim.AdamW(
        student.parameters(), betas=run.betas, eps=run.epsilon, weight_decay=run.weight_decay
    )
    norms = []
    for step in range(steps):
        batch = collect(policy, run, 0, step)
        optimizer.zero_grad()
        log_p = token_log_probs(full_logits(student, batch), batch.completion_ids)
        credit = torch.ones_like(log_p)
        if run.objective == "opd":
            teacher_log_p = token_log_probs(full_logits(policy.teacher, batch), batch.completion_ids)
            credit = (teacher_log_p - log_p).detach()
        mask = batch.completion_mask
        (-(credit * log_p)[mask].sum() / mask.sum()).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), run.max_gradient_norm)))
        optimizer.param_groups[0]["lr"] = run.learning_rates()[step]
        optimizer.step()
    return norms


@pytest.mark.parametrize("objective", ["sft", "opd"])
def test_an_update_is_adamw_on_the_gradient_of_the_whole_batch(objective, monkeypatch):
    monkeypatch.setattr(train, "CHUNK_TOKENS", 20)  # several chunks a step
    run = {"sft": SFT, "opd": OPD}[objective]
    run = replace(run, epsilon=1e-4, max_gradient_norm=0.5, weight_decay=0.2)
    ours, theirs = policy_of(), policy_of()
    values = run_steps(ours, run, last=3)
    norms = reference_steps(theirs, run, 3)
    assert [v["gradient_norm"] for _, v in values] == pytest.approx(norms, rel=1e-3)
    assert max(norms) > 0.5  # the clipping was at work, and the recorded norm is the one before it
    for (name, first), second in zip(weights(ours).items(), weights(theirs).values(), strict=True):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4, msg=name)


def test_the_rate_of_every_step_is_the_schedules(policy, monkeypatch):
    optimization = Optimization(policy, LONG_SFT, Accelerator())
    used = []
    step = optimization.optimizer.step
    monkeypatch.setattr(
        optimization.optimizer,
        "step",
        lambda: (used.append(optimization.optimizer.param_groups[0]["lr"]), step()),
    )
    run_steps(policy, LONG_SFT, optimization=optimization)
    assert tuple(used) == LONG_SFT.learning_rates()


def test_training_lowers_the_loss(policy):
    run = replace(SFT, steps=30, snapshot_every=30, learning_rate=5e-3, demonstration_noise=0.0)
    losses = [v["loss"] for _, v in run_steps(policy, run)]
    assert losses[0] == pytest.approx(math.log(19), rel=0.2)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("run", [OPD, replace(OPD, estimator="exact")], ids=["sampled", "exact"])
def test_opd_approaches_the_teacher(run):
    policy = policy_of()
    run = replace(run, steps=12, snapshot_every=12, learning_rate=1e-2, prompts_per_step=4)
    exact = replace(run, estimator="exact")

    def distance():
        batch = collect(policy, exact, 9, 0)
        tokens = float(batch.completion_mask.sum())
        with torch.no_grad():
            return float(chunk_loss(policy, exact, batch, tokens=tokens))

    before, teacher = distance(), {n: t.clone() for n, t in policy.teacher.state_dict().items()}
    run_steps(policy, run)
    assert distance() < 0.8 * before
    assert same(policy.teacher.state_dict(), teacher)


def test_several_updates_on_a_batch_clip_from_the_second(base_policy, monkeypatch):
    run = replace(RLVR, prompts_per_step=8, updates_per_batch=2)
    drawn, off_policy = [], []
    original, loss = train.collect, train.chunk_loss
    monkeypatch.setattr(train, "collect", lambda *a, **k: (drawn.append(a[3]), original(*a, **k))[1])
    monkeypatch.setattr(
        train, "chunk_loss", lambda *a, **k: (off_policy.append(k["off_policy"]), loss(*a, **k))[1]
    )
    values = run_steps(base_policy, run)
    assert drawn == [0, 2]
    assert [step for step, _ in values] == [1, 2, 3, 4]
    assert off_policy == [False, True] * (len(off_policy) // 2)


def test_weights_and_moments_continue_to_the_bit():
    through = policy_of()
    run_steps(through, LONG_SFT)
    first, second = policy_of(), policy_of(seed=5)
    halfway = Optimization(first, LONG_SFT, Accelerator())
    run_steps(first, LONG_SFT, last=4, optimization=halfway)
    state = {name: tensor.clone() for name, tensor in halfway.state().items()}
    continued = Optimization(second, LONG_SFT, Accelerator())
    continued.load_state(state)
    assert same(continued.state(), state)
    run_steps(second, LONG_SFT, first=4, optimization=continued)
    assert same(weights(second), weights(through))


SGD = replace(OPD, name="opd_sgd", sgd_momentum=0.9, learning_rate=0.05, weight_decay=0.01)


def test_sgd_accumulates_the_clipped_gradient_and_its_decay():
    policy = policy_of()
    expected = {name: p.detach().clone() for name, p in policy.student.named_parameters()}
    optimization, momentum = Optimization(policy, SGD, Accelerator()), {name: 0.0 for name in expected}
    for step in range(3):
        run_steps(policy, SGD, first=step, last=step + 1, optimization=optimization)
        for name, parameter in policy.student.named_parameters():
            momentum[name] = 0.9 * momentum[name] + parameter.grad + 0.01 * expected[name]
            expected[name] = expected[name] - 0.05 * momentum[name]
            torch.testing.assert_close(parameter.detach(), expected[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_continues_to_the_bit(momentum):
    run = replace(SGD, sgd_momentum=momentum)
    through, first, second = policy_of(), policy_of(), policy_of(seed=5)
    run_steps(through, run)
    halfway = Optimization(first, run, Accelerator())
    run_steps(first, run, last=2, optimization=halfway)
    state = {name: tensor.clone() for name, tensor in halfway.state().items()}
    assert any(name.startswith("momentum_buffer.") for name in state) == (momentum > 0)
    continued = Optimization(second, run, Accelerator())
    continued.load_state(state)
    assert same(continued.state(), state)
    run_steps(second, run, first=2, optimization=continued)
    assert same(weights(second), weights(through))


@pytest.mark.parametrize("objective", ["sft", "opd"])
def test_bf16_products_change_a_gradient_by_their_rounding_and_leave_weights_float32(objective):
    run = replace(SFT if objective == "sft" else OPD, warmup_fraction=0.0)
    gradients = {}
    for precision in (None, "bf16"):
        policy, timed = policy_of(), replace(run, precision=precision, max_gradient_norm=1e6)
        optimization = Optimization(policy, timed, Accelerator(cpu=True))
        # Rollouts come before the loss, in a context of their own: casts made without a graph are not reused.
        with train.products(timed, torch.device("cpu")):
            collect(policy, timed, 0, 0)
        optimization.update(collect(policy, run, 0, 0), 0)
        assert {p.dtype for p in policy.student.parameters()} == {torch.float32}
        gradients[precision] = torch.cat([p.grad.flatten() for p in policy.student.parameters()])
    off = (gradients["bf16"] - gradients[None]).norm() / gradients[None].norm()
    assert 1e-5 < off < 0.05


def test_runs_in_bf16_alone_share_the_cores_that_they_are_too_few_for():
    half = replace(OPD, precision="bf16")
    assert shared_threads([half], 4) == 4
    assert shared_threads([half, half, half], 4) == 1
    assert shared_threads([half, OPD], 4) == shared_threads([OPD], 4) == 1


def test_a_loss_that_is_not_finite_is_told_in_one_line(policy):
    with torch.no_grad():
        policy.student.model.norm.weight[0] = float("nan")
    before = weights(policy)
    with pytest.raises(
        CompanionError, match=r"run sft: the loss is nan at step 1; earlier snapshots are kept"
    ):
        run_steps(policy, SFT)
    assert all(torch.equal(t.nan_to_num(7), before[n].nan_to_num(7)) for n, t in weights(policy).items())


def test_a_gradient_that_is_not_finite_changes_no_weight(policy):
    before = weights(policy)
    weight = policy.student.model.layers[0].mlp.up_proj.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(CompanionError, match=r"the norm of the gradient is (inf|nan) at step 1"):
        run_steps(policy, SFT)
    assert same(weights(policy), before)


def test_a_missing_teacher_is_told_in_one_line(policy):
    alone = replace(policy, teacher=None)
    with pytest.raises(CompanionError, match="run opd: objective opd needs a teacher"):
        run_steps(alone, OPD)
    with pytest.raises(CompanionError, match="run rlvr: teacher rollouts need a teacher"):
        run_steps(alone, replace(RLVR, rollout_policy="teacher"))


# Several processes

# A large ε keeps Adam from blowing up the rounding of entries whose gradient is nearly zero.
SHARED = tuple(
    replace(run, epsilon=1e-4)
    for run in (replace(SFT, max_gradient_norm=0.5), OPD, RANDOM_TOKENS, RLVR, replace(MIX, mix_scale="unit"))
)


def short_sums(tokenizer, batch, problems):
    """A reward that only additions can earn, so that the groups of subtractions have no variance."""
    additions = torch.tensor(["+" in problem.prompt for problem in problems])
    short = batch.completion_mask.sum(1) <= 2
    return (short & additions.repeat_interleave(batch.group_size)).float()


def folder_in(directory):
    return RunFolder(directory=directory / "sft", profile="tiny", seed=0, fingerprint="0123456789abcdef")


def _train_shared(rank, model, results):
    torch.distributed.init_process_group("gloo")
    train.rewards = short_sums
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == WORLD
    found = {}
    for run in SHARED:
        policy = policy_of()
        policy.student.load_state_dict(model)
        optimization = Optimization(policy, run, accelerator)
        found[run.name] = (run_steps(policy, run, first=2, optimization=optimization), weights(policy))
    torch.save(found, results / f"{rank}.pt")
    train_run(
        SHARED[0], folder_in(results), policy_of(), evaluation=TINY.evaluation, report=lambda line: None
    )


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(base, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "rewards", short_sums)
    additions = [["+" in p.prompt for p in step_problems(RLVR, 0, step, 2)] for step in range(2, RLVR.steps)]
    assert [True, False] in additions or [
        False,
        True,
    ] in additions  # only one process learns from such a step
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    on_two_ranks(_train_shared, start, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD))
    for run in SHARED:
        policy = policy_of()
        policy.student.load_state_dict(start)
        expected, trained = run_steps(policy, run, first=2), weights(policy)
        assert same(first[run.name][1], second[run.name][1]), run.name
        assert any(not torch.equal(trained[n], start[n]) for n in trained), run.name
        for (_, ours), (_, theirs) in zip(first[run.name][0], expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), run.name
        for name, tensor in trained.items():
            torch.testing.assert_close(first[run.name][1][name], tensor, atol=5e-5, rtol=1e-4, msg=name)

    policy = policy_of()
    train_run(SHARED[0], folder_in(tmp_path / "one"), policy, evaluation=TINY.evaluation)
    ours, theirs = snapshots(tmp_path / "sft"), snapshots(tmp_path / "one" / "sft")
    assert ours.keys() == theirs.keys()
    for path, tensors in theirs.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(ours[path][name], tensor, atol=5e-5, rtol=1e-4, msg=name)
    first, second = (pd.read_parquet(p / "sft" / "curve.parquet") for p in (tmp_path, tmp_path / "one"))
    assert first["metric"].tolist() == second["metric"].tolist()
    assert first["step"].tolist() == second["step"].tolist()


def test_rates_of_the_tiny_schedule_rise_and_fall():
    rates = LONG_SFT.learning_rates()
    assert max(rates) == LONG_SFT.learning_rate
    assert all(a > b for a, b in pairwise(rates[2:]))
