"""What confines a planned run: its subspaces or its subnetwork, out of the snapshots of its parents."""

from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.checkpoints import load_checkpoint, read_matrix, step_path
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.projection import SubspaceConstraint, is_projected, random_subspace
from paper_lib.sparsity import visible_mask
from paper_lib.starts import Study
from paper_lib.subnetworks import SubnetworkConstraint, random_mask
from paper_lib.subspaces import top_right_singular_vectors
from paper_lib.tasks import seeded_generator
from paper_lib.train import Constraint


def constraint_of(study: Study, run: RunConfig, seed: int, student: PreTrainedModel) -> Constraint | None:
    """What confines the run: a subspace, a subnetwork or nothing."""
    if run.projection is not None:
        bases = projection_bases(study, run, seed, student)
        return SubspaceConstraint(student, bases or {}, run.projection.constrain)
    if run.subnetwork is not None:
        return SubnetworkConstraint(student, subnetwork_masks(study, run, seed))
    return None


def projection_bases(
    study: Study, run: RunConfig, seed: int, student: PreTrainedModel
) -> dict[str, Tensor] | None:
    """V_K (n, K) of every projection matrix (m, n) for a projected run, None for a free one (§4.2).

    Returns, by parameter name, float64 with orthonormal columns. Raises CompanionError where K exceeds the
    smaller side of a matrix and where a snapshot is missing or truncated, ValueError where an update has no
    K directions.
    """
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


def subnetwork_masks(study: Study, run: RunConfig, seed: int) -> dict[str, Tensor]:
    """The entries of every projection matrix that the run trains: what its source visibly changed in bf16
    from W_0 to its end, or a random set of that size.

    Returns, by parameter name, bool masks of the matrices' shapes (m, n). Raises CompanionError where a
    snapshot of the source is missing or truncated.
    """
    assert run.subnetwork is not None
    source = study.profile.run(run.subnetwork.source)
    folder = study.directory(source, seed)
    w_0, w_t = (load_checkpoint(step_path(folder, step)) for step in (0, source.steps))
    masks = {name: visible_mask(w_0[name], w_t[name]) for name in w_0 if is_projected(name)}
    if run.subnetwork.entries == "found":
        return masks
    return {
        name: random_mask(mask.shape, int(mask.sum()), seeded_generator("subnetwork", seed, name))
        for name, mask in masks.items()
    }
