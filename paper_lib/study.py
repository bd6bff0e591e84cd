"""The study: every planned run of a profile, in the order of what they start from, each trained once."""

import os
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.checkpoints import load_checkpoint, read_matrix, step_path
from paper_lib.config import Profile, RunConfig, fingerprint
from paper_lib.errors import CompanionError
from paper_lib.models import as_stored, load_model, require_same_vocabulary, weights_fingerprint
from paper_lib.parallel import run_parallel
from paper_lib.pretrain import build_models, missing_models, models_directory
from paper_lib.profiles import get_profile
from paper_lib.projection import is_projected, random_subspace
from paper_lib.reuse import reuse_finished
from paper_lib.runs import RunPlace, train_run
from paper_lib.subspaces import top_right_singular_vectors
from paper_lib.tasks import seeded_generator
from paper_lib.train import Policy

ANCHOR = "sft"  # the run whose end is the anchor that OPD, RLVR and matched SFT start from


@dataclass(frozen=True, kw_only=True)
class Study:
    """A profile and the folder that holds its models and runs."""

    profile: Profile
    data_dir: Path

    def directory(self, run: RunConfig, seed: int) -> Path:
        """data/runs/<profile>/<run>/seed_<seed>."""
        return self.data_dir / "runs" / self.profile.name / run.name / f"seed_{seed}"

    def parents(self, run: RunConfig) -> list[RunConfig]:
        """The runs of the same seed that must be finished before this one starts."""
        names = {ANCHOR} if run.start == "anchor" else set()
        if run.branch is not None:
            names.add(run.branch[0])
        if run.projection is not None and run.projection.source is not None:
            names.add(run.projection.source)
        return [self.profile.run(name) for name in sorted(names)]

    def kept_states(self, run: RunConfig) -> tuple[int, ...]:
        """Steps of this run at which others branch off."""
        return tuple(sorted({r.branch[1] for r in self.profile.runs if r.branch and r.branch[0] == run.name}))

    def place(self, run: RunConfig, seed: int, models: dict[str, str]) -> RunPlace:
        """Where the run lives, with the fingerprint of all that decides its numbers, its parents included."""
        used = ["base"] + ([run.teacher] if run.objective in ("opd", "mix") else [])
        parts = [run, seed, self.profile.evaluation, [models[name] for name in used]]
        parts += [self.place(parent, seed, models).fingerprint for parent in self.parents(run)]
        return RunPlace(
            directory=self.directory(run, seed),
            profile=self.profile.name,
            seed=seed,
            fingerprint=fingerprint(*parts),
        )

    def models(self) -> dict[str, str]:
        """Fingerprint of every model of the profile, by name; a missing one raises CompanionError."""
        place = models_directory(self.profile, self.data_dir)
        names = {"base", *(r.teacher for r in self.profile.runs if r.objective in ("opd", "mix"))}
        return {name: weights_fingerprint(load_model(place / name)[0].state_dict()) for name in sorted(names)}


def train_study(
    profile_name: str,
    *,
    data_dir: Path | str = "data",
    runs: list[str] | None = None,
    seeds: list[int] | None = None,
    workers: int | None = None,
    force: bool = False,
) -> list[Path]:
    """Train what is planned and not yet finished; returns the directories of the planned runs.

    runs, seeds: only these, with the runs that they start from. force trains them again. A stopped run goes
    on from its last snapshot. Raises CompanionError for unknown names, and after all other runs where one
    failed.
    """
    study = Study(profile=get_profile(profile_name), data_dir=Path(data_dir))
    wanted = _selected(study, runs, seeds)
    prepare_models(study, workers=workers)
    models = study.models()
    places = {(run.name, seed): study.place(run, seed, models) for run, seed in wanted}
    if force:
        for place in places.values():
            rmtree(place.directory, ignore_errors=True)
    failures = []
    for wave in _waves(study, wanted, workers or os.cpu_count() or 1):
        todo = _to_train(study, wave, places, reuse=not force)
        jobs = [(study, run, seed, models) for run, seed in todo]
        labels = [f"{run.name} seed {seed}" for run, seed in todo]
        try:
            run_parallel(train_planned, jobs, labels=labels, what="train", workers=workers)
        except CompanionError as error:
            failures.append(str(error))
    if failures:
        raise CompanionError("; ".join(failures) + " (all other runs are finished)")
    return [place.directory for place in places.values()]


def _to_train(
    study: Study, wave: list[tuple[RunConfig, int]], places: dict[tuple[str, int], RunPlace], *, reuse: bool
) -> list[tuple[RunConfig, int]]:
    """Runs of a wave that are neither finished nor to be had from another profile, their parents there."""
    todo, shared = [], []
    for run, seed in wave:
        place, kept = places[run.name, seed], study.kept_states(run)
        if place.finished(kept_states=kept):
            continue
        if reuse and reuse_finished(run, place, study.data_dir / "runs", kept_states=kept):
            shared.append(f"{run.name} seed {seed}")
            continue
        parents = [(places[p.name, seed], study.kept_states(p)) for p in study.parents(run)]
        if all(parent.finished(kept_states=kept) for parent, kept in parents):
            todo.append((run, seed))
    if shared:
        print(f"[train] taken over from another profile: {', '.join(shared)}", flush=True)
    return todo


def prepare_models(study: Study, *, workers: int | None = None) -> None:
    """Build the base and teachers where they are not on disk."""
    missing = missing_models(study.profile, study.data_dir)
    if missing:
        print(f"[models] building {', '.join(missing)}", flush=True)
        build_models(study.profile, data_dir=study.data_dir, workers=workers)


def train_planned(study: Study, run: RunConfig, seed: int, models: dict[str, str]) -> None:
    """One planned run, its parents being finished: load what it starts from and learns from, then train."""
    policy = load_policy(study, run, seed)
    parent = None
    if run.branch is not None:
        parent = study.place(study.profile.run(run.branch[0]), seed, models)
    train_run(
        run,
        study.place(run, seed, models),
        policy,
        evaluation=study.profile.evaluation,
        bases=projection_bases(study, run, seed, policy.student),
        parent=parent,
        kept_states=study.kept_states(run),
        report=lambda line: None,
    )


def load_policy(study: Study, run: RunConfig, seed: int) -> Policy:
    """The student at W_0, its tokenizer, and the teacher where the run has one."""
    place = models_directory(study.profile, study.data_dir)
    student, tokenizer = load_model(place / "base")
    if run.start == "anchor":
        student.load_state_dict(anchor_weights(study, seed))
    teacher: PreTrainedModel | None = None
    if run.objective in ("opd", "mix"):
        teacher, theirs = load_model(place / run.teacher)
        require_same_vocabulary(tokenizer, theirs, run.teacher)
        teacher.requires_grad_(False)
    return Policy(student=student, tokenizer=tokenizer, teacher=teacher)


def anchor_weights(study: Study, seed: int) -> dict[str, Tensor]:
    """The end of the SFT run of this seed, as a bf16 checkpoint holds it."""
    anchor = study.profile.run(ANCHOR)
    return as_stored(load_checkpoint(step_path(study.directory(anchor, seed), anchor.steps)))


def projection_bases(
    study: Study, run: RunConfig, seed: int, student: PreTrainedModel
) -> dict[str, Tensor] | None:
    """V_K (n, K) of every projection matrix for a projected run, None for a free one (§4.2)."""
    projection = run.projection
    if projection is None or run.branch is None:
        return None
    source = study.profile.run(projection.source or run.branch[0])
    folder, step = study.directory(source, seed), run.branch[1]
    bases = {}
    for name, weight in student.named_parameters():
        if not is_projected(name):
            continue
        if not min(weight.shape) >= projection.K:
            raise CompanionError(
                f"run {run.name}: K = {projection.K} exceeds the smaller side of {name} {tuple(weight.shape)}"
            )
        if projection.basis == "random":
            generator = seeded_generator("subspace", seed, name)
            bases[name] = random_subspace(weight.shape[1], projection.K, generator)
            continue
        target = read_matrix(step_path(folder, 0), name)
        if projection.basis != "principal":
            target = read_matrix(step_path(folder, step), name) - target
        bases[name] = top_right_singular_vectors(target, projection.K)
    return bases


def _selected(study: Study, runs: list[str] | None, seeds: list[int] | None) -> list[tuple[RunConfig, int]]:
    planned = study.profile.planned()
    if runs is None and seeds is None:
        return planned
    known = sorted({run.name for run, _ in planned})
    for name in runs or []:
        if name not in known:
            raise CompanionError(
                f"no run {name!r} in profile {study.profile.name}; it has {', '.join(known)}"
            )
    chosen = [
        (run, seed)
        for run, seed in planned
        if (runs is None or run.name in runs) and (seeds is None or seed in seeds)
    ]
    if not chosen:
        raise CompanionError(f"profile {study.profile.name} plans no such run with seeds {seeds}")
    needed = list(chosen)
    for run, seed in needed:
        needed += [(p, seed) for p in study.parents(run) if (p, seed) not in needed]
    return needed


def _waves(
    study: Study, wanted: list[tuple[RunConfig, int]], workers: int
) -> list[list[tuple[RunConfig, int]]]:
    """Runs by how many generations they have behind them, the longest first within a wave.

    Seeds beyond the number of workers come a wave later: the first wave has one run a seed, and whoever is
    done with it would wait for the others.
    """
    seeds = sorted({seed for _, seed in wanted})

    def depth(run: RunConfig) -> int:
        return max((1 + depth(parent) for parent in study.parents(run)), default=0)

    waves: dict[int, list[tuple[RunConfig, int]]] = {}
    for run, seed in wanted:
        waves.setdefault(depth(run) + seeds.index(seed) // workers, []).append((run, seed))
    return [sorted(waves[d], key=lambda pair: -pair[0].steps) for d in sorted(waves)]
