"""What a planned run starts from and learns from, out of the study's models and parents."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.checkpoints import load_checkpoint, step_path
from paper_lib.collection import Policy
from paper_lib.config import Profile, RunConfig, fingerprint
from paper_lib.errors import CompanionError
from paper_lib.manifest import Key
from paper_lib.models import as_stored, load_model, require_same_vocabulary, weights_fingerprint
from paper_lib.pretrain import models_directory
from paper_lib.rotations import HeadChange, change_layers, random_change
from paper_lib.run_place import RunPlace
from paper_lib.tasks import seeded_generator

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
        return [self.profile.run(name) for name in sorted(names)]

    def kept_states(self, run: RunConfig) -> tuple[int, ...]:
        """Steps of this run at which others branch off."""
        branches = [other.branch for other in self.profile.everything if other.branch]
        return tuple(sorted({step for name, step in branches if name == run.name}))

    def place(self, run: RunConfig, seed: int, models: dict[str, str]) -> RunPlace:
        """Where the run lives, with the fingerprint of all that decides its numbers, its parents included."""
        parts = [run, seed, self.profile.evaluation, [models[name] for name in models_of(run)]]
        parts += [self.place(parent, seed, models).fingerprint for parent in self.parents(run)]
        return RunPlace(
            directory=self.directory(run, seed),
            profile=self.profile.name,
            seed=seed,
            fingerprint=fingerprint(*parts),
        )

    def fingerprints(self, models: dict[str, str]) -> dict[Key, str]:
        """Of the planned runs, in planned order; not of those with a model behind them that is not known."""
        known = [(run, seed) for run, seed in self.profile.planned() if self._behind(run) <= models.keys()]
        return {(run.name, seed): self.place(run, seed, models).fingerprint for run, seed in known}

    def _behind(self, run: RunConfig) -> set[str]:
        """The pretrained models that a run and the runs it starts from are made from."""
        return set(models_of(run)).union(*(self._behind(parent) for parent in self.parents(run)))

    def model_names(self) -> set[str]:
        """The bases that its runs start from, and the teachers that they learn from."""
        return {BASE, *(name for run in self.profile.everything for name in models_of(run))}

    def models(self) -> dict[str, str]:
        """Fingerprint of every model of the profile, by name; a missing one raises CompanionError."""
        return {name: self._model_fingerprint(name) for name in sorted(self.model_names())}

    def known_models(self, recorded: dict[str, str]) -> dict[str, str]:
        """As `models`; of those not on disk, what was recorded with what was made from them, if it was."""
        place, known = models_directory(self.profile, self.data_dir), {}
        for name in sorted(self.model_names()):
            if (place / name / "config.json").is_file():
                known[name] = self._model_fingerprint(name)
            elif name in recorded:
                known[name] = recorded[name]
        return known

    def _model_fingerprint(self, name: str) -> str:
        place = models_directory(self.profile, self.data_dir)
        return weights_fingerprint(load_model(place / name)[0].state_dict())


def models_of(run: RunConfig) -> list[str]:
    """The pretrained models that decide a run's numbers: its base, and its teacher where it has one."""
    return [run.base or BASE] + ([run.teacher] if run.objective in ("opd", "mix") else [])


def load_policy(study: Study, run: RunConfig, seed: int) -> Policy:
    """The student at W_0, its tokenizer, and the teacher where the run has one."""
    place = models_directory(study.profile, study.data_dir)
    student, tokenizer = load_model(place / (run.base or BASE))
    if run.start == "anchor":
        student.load_state_dict(anchor_weights(study, seed, run.anchor or ANCHOR))
    if run.rotated_layers is not None:
        student.load_state_dict(rotated_weights(student, run.rotated_layers, seed))
    teacher: PreTrainedModel | None = None
    if run.objective in ("opd", "mix"):
        teacher, theirs = load_model(place / run.teacher)
        require_same_vocabulary(tokenizer, theirs, run.teacher)
        teacher.requires_grad_(False)
    return Policy(student=student, tokenizer=tokenizer, teacher=teacher)


def anchor_weights(study: Study, seed: int, name: str = ANCHOR) -> dict[str, Tensor]:
    """The end of the SFT run of this seed, as a bf16 checkpoint holds it.

    Returns, by parameter name, tensors of the model's shapes, float32 on bf16's grid. Raises CompanionError
    where the snapshot is missing or truncated.
    """
    anchor = study.profile.run(name)
    return as_stored(load_checkpoint(step_path(study.directory(anchor, seed), anchor.steps)))


def rotated_weights(student: PreTrainedModel, layers: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """The student's weights with the heads of these layers changed, as a bf16 checkpoint holds them.

    Returns, by parameter name, tensors of the student's shapes, float32 on bf16's grid. Raises CompanionError
    for a layer that the student lacks.
    """
    config = student.config
    if max(layers) >= config.num_hidden_layers:
        raise CompanionError(
            f"rotated_layers is {layers}, expected layers from 0 to {config.num_hidden_layers - 1}"
        )

    def change(layer: int) -> HeadChange:
        generator = seeded_generator("rotation", seed, layer)
        sizes = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        return random_change(*sizes, generator)

    return as_stored(change_layers(student.state_dict(), layers, change))
