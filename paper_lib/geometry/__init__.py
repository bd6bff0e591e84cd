"""The equations: pure functions on tensors, with what chance would give, and their certified numerics."""

# fmt: off
# ruff: noqa: F401, I001
from paper_lib.geometry.metrics import METRICS, Metric, metrics_of
from paper_lib.geometry.nulls import random_walk, random_walk_explained_variance
from paper_lib.geometry.sparsity import half_ulp, low_magnitude_mask, mark_largest, mask_overlap
from paper_lib.geometry.sparsity import overlap_bounds, principal_mask, update_sparsity, visible_mask
from paper_lib.geometry.spectra import drift_ratio, hill_index, singular_values, stable_rank, top_energy
from paper_lib.geometry.subspaces import chance_alignment, principal_angles, subspace_alignment
from paper_lib.geometry.subspaces import top_right_singular_vectors
