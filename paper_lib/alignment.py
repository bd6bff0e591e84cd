"""Sim_K along a path of updates (Shen et al. 2026, §4.2, Fig. 5): one subspace a snapshot is kept."""

import math

from torch import Tensor

from paper_lib.certified import update_spectrum
from paper_lib.decompositions import Decomposition
from paper_lib.subspaces import subspace_alignment
from paper_lib.tables import Row


class AlignmentPath:
    """The V_K of an update at each snapshot and of each stretch between them; nothing larger is kept."""

    def __init__(self, K: int, *, exact: bool = False) -> None:
        self.K, self.exact = K, exact
        self.steps: list[int] = []
        self.spans: dict[str, list[Tensor | None]] = {"subspace_alignment": [], "increment_alignment": []}

    def follow(self, step: int, found: Decomposition, increment: Tensor | None) -> None:
        """The update found at `step`, and W_t − W_s since the snapshot before, None for the first."""
        self.steps.append(step)
        self.spans["subspace_alignment"].append(self._span(found))
        stretch = found if increment is None else update_spectrum(increment, self.K, exact=self.exact)
        self.spans["increment_alignment"].append(self._span(stretch))

    def _span(self, found: Decomposition) -> Tensor | None:
        """V_K, or None where there are fewer than K directions: the rest would be the solver's choice."""
        return found.v[:, : self.K] if found.sigma[self.K - 1] > 0 else None

    def alignment(self) -> list[Row]:
        """Sim_K to the end: of the cumulative updates (§4.2), and of the increments between snapshots.

        `subspace_alignment` at t compares ΔW_t with ΔW_T, which contains it: it rises to 1 for a random walk
        too. `increment_alignment` compares W_t − W_s, s the snapshot before t, with the last such increment.
        These are disjoint stretches of training, at chance K/n for a random walk; at the last step it is 1 by
        definition.
        """
        rows = []
        for metric, spans in self.spans.items():
            end = spans[-1]
            for step, span in zip(self.steps, spans, strict=True):
                if span is None or end is None:
                    rows.append(Row(step, metric, math.nan, self.K))
                else:
                    rows.append(Row(step, metric, subspace_alignment(span, end).item(), self.K))
        return rows
