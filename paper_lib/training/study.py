"""The study: every planned run of a profile, in the order of what they start from, each trained once."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.parallel import cores, run_parallel
from paper_lib.study.config import Profile
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.training.checkpoints import open_trajectory
from paper_lib.training.manifest import Key, measured_runs, read_manifest, spoken
from paper_lib.training.models import save_model
from paper_lib.training.pretrain import build_models
from paper_lib.training.runs import reuse_finished, shared_threads, train_run
from paper_lib.training.starts import Study, constraint_of, load_policy, snapshot_model

# --- In which order the runs of a profile are trained: what is asked for, and what waits for its parents.

Planned = tuple[RunConfig, int]  # a run and its seed


def selected(profile: Profile, runs: list[str] | None, seeds: list[int] | None) -> list[Planned]:
    """The planned runs of these names and seeds, all where None; CompanionError for an unknown one."""
    planned = profile.planned()
    known = sorted({run.name for run, _ in planned})
    for name in runs or []:
        if name not in known:
            raise CompanionError(f"no run {name!r} in profile {profile.name}; it has {', '.join(known)}")
    named = [(run, seed) for run, seed in planned if runs is None or run.name in runs]
    has = sorted({seed for _, seed in named})
    for seed in seeds or []:
        if seed not in has:
            of = "no run" if runs is None else f"none of {', '.join(runs)}"
            known_seeds = ", ".join(map(str, has))
            raise CompanionError(f"profile {profile.name} plans {of} with seed {seed}; it has {known_seeds}")
    chosen = [(run, seed) for run, seed in named if seeds is None or seed in seeds]
    if not chosen:
        raise CompanionError("no run and seed is named: name some, or leave the choice out for all")
    return chosen


def waves(study: Study, wanted: Sequence[Planned], workers: int) -> list[list[Planned]]:
    """Runs by how many generations they have behind them, the longest first within a wave.

    Seeds beyond the number of workers come a wave later: the first wave has one run a seed, and with more
    seeds than workers those that are done would wait for the rest.
    """
    seeds = sorted({seed for _, seed in wanted})

    def depth(run: RunConfig) -> int:
        return max((1 + depth(parent) for parent in study.parents(run)), default=0)

    by_depth: dict[int, list[Planned]] = {}
    for run, seed in wanted:
        by_depth.setdefault(depth(run) + seeds.index(seed) // workers, []).append((run, seed))
    return [sorted(by_depth[d], key=lambda pair: -pair[0].steps) for d in sorted(by_depth)]


def train_study(
    profile_name: str,
    *,
    data_dir: Path | str = "data",
    runs: list[str] | None = None,
    seeds: list[int] | None = None,
    workers: int | None = None,
    force: bool = False,
    train: bool | None = True,
) -> list[Path]:
    """Train what is planned and neither finished nor measured; returns the directories of what is finished.

    runs, seeds: only these. What they start from is trained as well where it is not on disk, measured or
    not. force trains all of it again. train: False trains nothing and says how much is not measured; None is
    False where the profile's tables are committed. A stopped run goes on from its last snapshot. Raises
    CompanionError for unknown names, and after all other runs where one failed.
    """
    study = Study(profile=get_profile(profile_name), data_dir=Path(data_dir))
    chosen = selected(study.profile, runs, seeds)
    if study.profile.trains(train):
        print(f"[train] {len(chosen)} runs of profile {profile_name}: looking for finished ones", flush=True)
        build_models(profile_name, data_dir=data_dir, workers=workers)
        models = study.models()
        _train(study, _demanded(study, chosen, models, force=force), models, workers or cores())
        return [study.directory(*pair) for pair in chosen if study.folder(*pair, models).finished()]
    models = study.models(read_manifest(study.results).models)
    known = study.fingerprints(models)  # a run whose model was never built is not there
    finished = [(r, s) for r, s in chosen if (r.name, s) in known and study.folder(r, s, models).finished()]
    if missing := sum(pair not in finished for pair in _unmeasured(study, chosen, models)):
        again = f"`python -m paper_lib figures --profile {profile_name} --train` trains them"
        print(f"[train] {missing} of {len(chosen)} planned runs are not measured yet; {again}", flush=True)
    return [study.directory(*pair) for pair in finished]


def _unmeasured(study: Study, chosen: list[Planned], models: dict[str, str]) -> list[Planned]:
    """Those whose rows are not up to date in the tables; a line says how many are."""
    done = measured_runs(study.profile, study.results, study.fingerprints(models))
    rest = [(run, seed) for run, seed in chosen if (run.name, seed) not in done]
    if len(rest) < len(chosen):
        count = f"{len(chosen) - len(rest)} of {len(chosen)} runs"
        print(f"[train] {count} are measured already, in {study.results}; --force trains again", flush=True)
    return rest


def _demanded(study: Study, chosen: list[Planned], models: dict[str, str], *, force: bool) -> list[Planned]:
    """What has to be trained: of the unmeasured runs, and of what these start from, whatever is neither
    finished nor to be had from another profile, or lacks a state that others branch from."""
    asked = list(chosen) if force else _unmeasured(study, chosen, models)
    todo, shared = list[Planned](), list[Key]()
    for run, seed in asked:
        folder = study.folder(run, seed, models)
        if (run, seed) in todo:
            continue
        if force:
            with folder.lock():
                folder.clear()
        elif not folder.finished() and reuse_finished(run, folder, study.data_dir / "runs"):
            shared.append((run.name, seed))
        if folder.finished():
            continue
        todo.append((run, seed))
        asked += [(parent, seed) for parent in study.parents(run)]
    if shared:
        print(f"[train] taken over from another profile: {spoken(shared)}", flush=True)
    return todo


def _train(study: Study, todo: list[Planned], models: dict[str, str], workers: int) -> None:
    """Train these runs, whose parents are finished or among them, generation by generation."""
    failures, skipped = list[str](), list[Key]()
    for wave in waves(study, todo, workers):
        jobs = []
        for run, seed in wave:
            if all(study.folder(parent, seed, models).finished() for parent in study.parents(run)):
                jobs.append((study, run, seed, models))
            else:
                skipped.append((run.name, seed))
        labels = [f"{run.name} seed {seed}" for _, run, seed, _ in jobs]
        try:
            each = shared_threads([run for _, run, _, _ in jobs], workers)
            run_parallel(train_planned, jobs, labels=labels, what="train", workers=workers, threads_each=each)
        except CompanionError as error:
            failures.append(str(error))
    if failures:
        skips = f"skipped, as they start from these: {spoken(skipped)}; " if skipped else ""
        raise CompanionError("; ".join(failures) + f" ({skips}all other runs are finished)")


def train_planned(study: Study, run: RunConfig, seed: int, models: dict[str, str]) -> None:
    """One planned run, its parents being finished: load what it starts from and learns from, then train."""
    folder, policy = study.folder(run, seed, models), load_policy(study, run, seed)
    confine, parent = partial(constraint_of, study, run, seed), None
    if run.branch is not None:
        parent = study.folder(study.profile.run(run.branch[0], run.base), seed, models)
    train_run(run, folder, policy, evaluation=study.profile.evaluation, confine=confine, parent=parent)


# --- Trained students for use elsewhere: a snapshot of a run as a Hugging Face directory.

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def export_run(
    profile_name: str,
    run_name: str,
    *,
    destination: Path | str,
    data_dir: Path | str = "data",
    seed: int = 0,
    step: int | None = None,
    dtype: str = "bfloat16",
) -> Path:
    """Write the snapshot after `step` steps (the last where None) as a model that transformers loads.

    Config and tokenizer are those of the base that the run was trained from; weights are rounded to `dtype`,
    as the anchor is before others start from it, or with float32 left as trained. Returns the destination.
    Raises CompanionError for an unknown name, where the run, the step or the base is missing or does not fit,
    and where the destination is not empty.
    """
    study = Study(profile=get_profile(profile_name), data_dir=Path(data_dir))
    run = selected(study.profile, [run_name], [seed])[0][0]
    destination = Path(os.path.abspath(destination))  # which "." has a name, too
    if dtype not in DTYPES:
        raise CompanionError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CompanionError(f"{destination} is not an empty folder: name another, nothing is overwritten")
    trajectory = open_trajectory(study.directory(run, seed))
    step = trajectory.steps[-1] if step is None else step
    if step not in trajectory.steps:
        steps = ", ".join(str(known) for known in trajectory.steps)
        raise CompanionError(f"{trajectory.directory} has no snapshot after {step} steps; it has {steps}")
    model, tokenizer = snapshot_model(study.models_folder, trajectory, step)
    recipe = {"run": trajectory.config, "fingerprint": trajectory.fingerprint, "step": step}
    card = f"""# {run_name}, step {step}

The student of the run `{run_name}` after {step} optimizer steps, in {dtype}. `recipe.json` has the run's
settings. Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.
"""
    model.to(DTYPES[dtype])  # config.json names the dtype of the model
    save_model(model, tokenizer, destination, card=card, recipe=recipe, dtype=DTYPES[dtype])
    return destination
