"""Noticing per row that a problem has become stiff, and that it no longer is.

Source:
    Hairer & Wanner, Solving Ordinary Differential Equations II (1996), IV.2: an explicit method
    on a stiff problem takes steps at the border of its stability region.
"""

import torch

from odeum.eager.control import norm
from odeum.eager.explicit import combine, weights_of
from odeum.eager.field import RowField
from odeum.eager.ledger import HANDED_OVER, RUNNING
from odeum.eager.outputs import Segments
from odeum.eager.records import Sighting
from odeum.eager.stepper import Step
from odeum.tableaus import RKTableau
from odeum.types import Tensor

BORDER = 2.5
"""``h |lambda|`` that says of an explicit step that stability limits it."""

SAFE = 1.0
"""``h |lambda|`` of a stiff method's step that an explicit method could take as well."""

PATIENCE = 15
"""Steps in a row, or nearly so, that must say the same before a row changes its method."""


class _Counter:
    """Counts, per row of the batch, how often something was the case lately."""

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self._counts = torch.zeros(n_rows, dtype=torch.int64, device=device)

    def count(self, rows: Tensor, accepted: Tensor, sign: Tensor) -> Tensor:
        """Which rows have had enough signs, [rows]: one against takes two back."""
        counts = self._counts[rows]
        changed = torch.where(sign, counts + 1, (counts - 2).clamp(min=0))
        counts = torch.where(accepted, changed, counts)
        enough = counts >= PATIENCE
        self._counts[rows] = counts.masked_fill(enough, 0)
        return enough


def _sighting(segments: Segments, status: Tensor, leaves: Tensor) -> Sighting:
    leaving = leaves & (status == RUNNING)
    return Sighting(segments.t1, status.masked_fill(leaving, HANDED_OVER), None)


class MeetsStiffness:
    """Hands rows over whose explicit steps are limited by stability.

    The last two stages of such a method are at the end of the step: the quotient of the
    differences of their derivatives and states estimates the largest eigenvalue.

    Args:
        n_rows: rows in the batch.
        tableau: the explicit method.
        like: a state, for its dtype and device.
    """

    looks_inside = False

    def __init__(self, n_rows: int, tableau: RKTableau, like: Tensor) -> None:
        like = like.detach().new_empty(0)
        last, before = tableau.matrix[-1], tableau.matrix[-2]
        difference = tuple(x - y for x, y in zip(last, before, strict=True))
        self._weights = weights_of(difference, like)
        self._counter = _Counter(n_rows, like.device)

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Counts steps at the border of stability."""
        with torch.no_grad():
            ks = [field.state(k.detach()) for k in step.ks]
            growth = norm(ks[-1] - ks[-2])
            stiff = growth > BORDER * norm(combine(ks, self._weights))
        accepted = (segments.t1 != step.t).squeeze(-1)
        leaves = self._counter.count(segments.rows, accepted, stiff.squeeze(-1))
        return _sighting(segments, status, leaves)


class LeavesStiffness:
    """Hands rows over whose steps an explicit method could take as well.

    Args:
        n_rows: rows in the batch.
        like: a state, for its device.
    """

    looks_inside = False

    def __init__(self, n_rows: int, like: Tensor) -> None:
        self._counter = _Counter(n_rows, like.device)

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Counts steps that are short against the fastest time scale."""
        jacobians = step.memory[0][:, : field.dim]
        # Any norm is at least as large as the largest eigenvalue.
        largest = torch.minimum(jacobians.abs().sum(1).amax(-1), jacobians.abs().sum(2).amax(-1))
        mild = step.h.detach().abs().squeeze(-1) * largest < SAFE
        accepted = (segments.t1 != step.t).squeeze(-1)
        return _sighting(segments, status, self._counter.count(segments.rows, accepted, mild))
