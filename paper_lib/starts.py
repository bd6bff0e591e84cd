"""What a planned run starts from, learns from and is confined to, out of the study's models and parents."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.checkpoints import load_checkpoint, read_matrix, step_path
from paper_lib.config import Profile, RunConfig, fingerprint
from paper_lib.errors import CompanionError
from paper_lib.manifest import Key
from paper_lib.models import as_stored, load_model, require_same_vocabulary, weights_fingerprint
from paper_lib.pretrain import models_directory
from paper_lib.projection import is_projected, random_subspace
from paper_lib.runs import RunPlace
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

    @property
    def results(self) -> Path:
        """data/results/<profile>, where the tables are."""
        return self.data_dir / "results" / self.profile.name

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

    def fingerprints(self, models: dict[str, str]) -> dict[Key, str]:
        """Of every planned run, in planned order; none where the fingerprint of a model is not known."""
        if not self.model_names() <= models.keys():
            return {}
        planned = self.profile.planned()
        return {(run.name, seed): self.place(run, seed, models).fingerprint for run, seed in planned}

    def model_names(self) -> set[str]:
        """The base, and the teachers that its runs learn from."""
        return {"base", *(r.teacher for r in self.profile.runs if r.objective in ("opd", "mix"))}

    def models(self) -> dict[str, str]:
        """Fingerprint of every model of the profile, by name; a missing one raises CompanionError."""
        place, names = models_directory(self.profile, self.data_dir), sorted(self.model_names())
        return {name: weights_fingerprint(load_model(place / name)[0].state_dict()) for name in names}

    def known_models(self, recorded: dict[str, str]) -> dict[str, str]:
        """As `models`, or where one is not on disk those that were recorded with what was made from them."""
        place = models_directory(self.profile, self.data_dir)
        there = all((place / name / "config.json").is_file() for name in self.model_names())
        return self.models() if there else recorded


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
