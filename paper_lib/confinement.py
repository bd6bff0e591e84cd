"""What confines training: the settings of a projection and of a subnetwork."""

from dataclasses import dataclass
from typing import Literal

from paper_lib.errors import require, require_choices, require_counts


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Which subspace confines training, and what it confines (Shen et al. 2026, §4.2).

    basis: V_K of the parent run's update at the branch ("early"), of a run with other rollouts
    ("other_seed"), a random one ("random"), or the top-K right singular vectors of W_0 ("principal").
    source: the run whose update gives V_K, where it is not the parent.
    """

    basis: Literal["early", "other_seed", "random", "principal"]
    K: int
    constrain: Literal["gradient", "update", "both"] = "gradient"
    source: str | None = None

    def __post_init__(self) -> None:
        require_choices(self)
        require_counts(self, "K")


@dataclass(frozen=True, kw_only=True)
class Subnetwork:
    """Which entries of the projection matrices are trained (Yu et al. 2026, arXiv 2606.13657).

    entries: those that the run `source` of the same seed visibly changed between its W_0 and its end
    ("found"), or as many of each matrix, drawn uniformly ("random").
    """

    source: str
    entries: Literal["found", "random"] = "found"

    def __post_init__(self) -> None:
        require_choices(self)
        require("source", self.source, bool(self.source), "the name of a run")
