"""What confines a planned run: its subspaces or its subnetwork, out of the snapshots of its parents."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.geometry.sparsity import visible_mask
from paper_lib.geometry.spectra import energy_rank, singular_values
from paper_lib.geometry.subspaces import top_right_singular_vectors
from paper_lib.ground.errors import CompanionError
from paper_lib.study.config import Profile, fingerprint
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import seeded_generator
from paper_lib.training import confinement
from paper_lib.training.checkpoints import Trajectory, load_checkpoint, read_matrix, step_path
from paper_lib.training.confinement import Confinement, SubnetworkConstraint, SubspaceConstraint, is_projected
from paper_lib.training.manifest import Key
from paper_lib.training.models import (
    as_stored,
    load_model,
    require_same_vocabulary,
    stored_weights,
    weights_fingerprint,
)
from paper_lib.training.rotations import change_heads, random_change
from paper_lib.training.runs import RunFolder
from paper_lib.training.train import Policy

# --- What a planned run starts from and learns from, out of the study's models and parents.

BASE = "base"  # the pretrained model that a run starts from, where it names no other
ANCHOR = "sft"  # the run whose end is the anchor that OPD, RLVR and matched SFT start from


@dataclass(frozen=True, kw_only=True)
class Study:
    """A profile and the folder that holds its models and runs."""

    profile: Profile
    data_dir: Path

    def directory(self, run: RunConfig, seed: int) -> Path:
        """data/runs/<profile>/<run>/seed_<seed>."""
        return self.data_dir / "runs" / self.profile.name / run.name / f"seed_{seed}"

    @property
    def results(self) -> Path:
        """data/results/<profile>, where the tables are."""
        return self.data_dir / "results" / self.profile.name

    def parents(self, run: RunConfig) -> list[RunConfig]:
        """The runs of the same seed that must be finished before this one starts."""
        names = {run.anchor or ANCHOR} if run.start == "anchor" else set()
        if run.branch is not None:
            names.add(run.branch[0])
        if run.projection is not None and run.projection.source is not None:
            names.add(run.projection.source)
        if run.subnetwork is not None:
            names.add(run.subnetwork.source)
        return [self.profile.run(name, run.base) for name in sorted(names)]

    def folder(self, run: RunConfig, seed: int, models: dict[str, str]) -> RunFolder:
        """The run's folder, with the fingerprint of all that decides its numbers, its parents included."""
        parts = [run, seed, self.profile.evaluation, [models[name] for name in models_of(run)]]
        parts += [self.folder(parent, seed, models).fingerprint for parent in self.parents(run)]
        branches = [other.branch for other in self.profile.everything if other.branch]
        return RunFolder(
            directory=self.directory(run, seed),
            profile=self.profile.name,
            seed=seed,
            fingerprint=fingerprint(*parts),
            kept_states=tuple(sorted({step for name, step in branches if name == run.name})),
        )

    def fingerprints(self, models: dict[str, str]) -> dict[Key, str]:
        """Of the planned runs, in planned order; not of those with a model behind them that is not known."""
        known = dict[Key, str]()
        for run, seed in self.profile.planned():
            with suppress(KeyError):  # a model of the run or of one that it starts from
                known[run.name, seed] = self.folder(run, seed, models).fingerprint
        return known

    def models(self, recorded: dict[str, str] | None = None) -> dict[str, str]:
        """Fingerprint of every model that a run starts or learns from, by name. Of those not on disk what was
        `recorded` with what was made from them, if it was; without it a missing one raises CompanionError."""
        names = sorted({BASE, *(name for run, _ in self.profile.planned() for name in models_of(run))})
        known = {name: made for name, made in (recorded or {}).items() if name in names}
        for name in names:
            if recorded is None or (self.models_folder / name / "config.json").is_file():
                known[name] = weights_fingerprint(stored_weights(self.models_folder / name))
        return known

    @property
    def models_folder(self) -> Path:
        """Where the profile's base and teachers live, each in a folder of its name."""
        return self.data_dir / self.profile.models


def models_of(run: RunConfig) -> list[str]:
    """The pretrained models that decide a run's numbers: its base, and its teacher where it has one."""
    return [run.base or BASE] + ([run.teacher] if run.objective in ("opd", "mix") else [])


def load_policy(study: Study, run: RunConfig, seed: int) -> Policy:
    """The student at W_0, its tokenizer, and the teacher where the run has one."""
    student, tokenizer = load_model(study.models_folder / (run.base or BASE))
    if run.start == "anchor":
        anchor = study.profile.run(run.anchor or ANCHOR)
        end = load_checkpoint(step_path(study.directory(anchor, seed), anchor.steps))
        student.load_state_dict(as_stored(end))
    if run.rotated_layers is not None:
        student.load_state_dict(rotated_weights(student, run.rotated_layers, seed))
    return with_teacher(student, tokenizer, run, study.models_folder)


def with_teacher(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, run: RunConfig, models: Path
) -> Policy:
    """The student, and the teacher of its run where it has one."""
    teacher: PreTrainedModel | None = None
    if run.objective in ("opd", "mix"):
        teacher, theirs = load_model(models / run.teacher)
        require_same_vocabulary(tokenizer, theirs, run.teacher)
        teacher.requires_grad_(False)
    return Policy(student=student, tokenizer=tokenizer, teacher=teacher)


def rotated_weights(student: PreTrainedModel, layers: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """The student's weights with the heads of these layers changed, as a bf16 checkpoint holds them, in
    float32 on bf16's grid; CompanionError for a layer that the student lacks."""
    config = student.config
    if max(layers) >= (number := config.num_hidden_layers):
        raise CompanionError(f"rotated_layers is {layers}, expected layers from 0 to {number - 1}")
    sizes = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    state = student.state_dict()
    for layer in layers:
        state = change_heads(state, layer, *random_change(*sizes, seeded_generator("rotation", seed, layer)))
    return as_stored(state)


def constraint_of(study: Study, run: RunConfig, seed: int, student: PreTrainedModel) -> Confinement | None:
    """What confines the run: a subspace, what is frozen, a subnetwork or nothing."""
    if run.projection is not None or run.frozen is not None:
        bases = projection_bases(study, run, seed, student)
        constrain = "gradient" if run.projection is None else run.projection.constrain
        frozen = [name for name, _ in student.named_parameters() if run.frozen and not is_projected(name)]
        return SubspaceConstraint(student, bases, constrain, frozen)
    if run.subnetwork is not None:
        return SubnetworkConstraint(student, subnetwork_masks(study, run, seed))
    return None


def projection_bases(study: Study, run: RunConfig, seed: int, student: PreTrainedModel) -> dict[str, Tensor]:
    """V_K (n, K) of every projection matrix (m, n) for a projected run, none for a free one (§4.2).

    Returns, by parameter name, orthonormal columns, in float64 where there are any. Raises CompanionError
    where K exceeds the smaller side of a matrix, ValueError where an update has no K directions.
    """
    projection = run.projection
    if projection is None or run.branch is None:
        return {}
    source = study.profile.run(projection.source or run.branch[0])
    folder, step = study.directory(source, seed), run.branch[1]
    bases, K = {}, projection.K
    for name, weight in student.named_parameters():
        if not is_projected(name):
            continue
        if min(shape := tuple(weight.shape)) < K:
            raise CompanionError(f"run {run.name}: K = {K} exceeds the smaller side of {name} {shape}")
        if projection.basis == "none":
            bases[name] = weight.new_zeros(weight.shape[1], 0)
            continue
        if projection.basis == "random":
            generator = seeded_generator("subspace", seed, name)
            bases[name] = confinement.random_subspace(weight.shape[1], K, generator)
            continue
        target = read_matrix(step_path(folder, 0), name)
        if projection.basis != "principal":
            target = read_matrix(step_path(folder, step), name) - target
        share = projection.energy  # where given, as few of K as hold this share of ‖target‖²
        fewest = K if share is None else min(K, energy_rank(singular_values(target), share))
        bases[name] = top_right_singular_vectors(target, fewest)
    return bases


def subnetwork_masks(study: Study, run: RunConfig, seed: int) -> dict[str, Tensor]:
    """The entries of every projection matrix that the run trains: what its source visibly changed in bf16
    from W_0 to its end, or a random set of that size: by parameter name, bool (m, n)."""
    assert run.subnetwork is not None
    source = study.profile.run(run.subnetwork.source)
    folder = study.directory(source, seed)
    w_0, w_t = (load_checkpoint(step_path(folder, step)) for step in (0, source.steps))
    masks = {name: visible_mask(w_0[name], w_t[name]) for name in w_0 if is_projected(name)}
    if run.subnetwork.entries == "found":
        return masks
    return {
        name: confinement.random_mask(mask.shape, int(mask.sum()), seeded_generator("subnetwork", seed, name))
        for name, mask in masks.items()
    }


def snapshot_model(
    models: Path, trajectory: Trajectory, step: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student after `step` steps, and its tokenizer; config and tokenizer are its base's, in `models`."""
    model, tokenizer = load_model(models / (trajectory.config.get("base") or BASE))
    load_snapshot(model, trajectory, step)
    return model, tokenizer


def load_snapshot(model: PreTrainedModel, trajectory: Trajectory, step: int) -> None:
    """Give the model the weights after `step` steps; CompanionError where they are another model's."""
    path = trajectory.path(step)
    try:
        model.load_state_dict(load_checkpoint(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CompanionError(f"{path} does not fit the models here ({reason}): bring back its own") from error
