"""One step of a symplectic method on every row: kicks of ``p`` and drifts of ``q`` by turns.

Reads a tableau and which numbers of a state are q and which are p; whether the field is separable
is the user's word.
"""

import torch

from odeum.eager.field import RowField
from odeum.eager.hermite import hermite
from odeum.eager.stepper import Memory, Step
from odeum.errors import InputError
from odeum.tableaus import SymplecticTableau
from odeum.types import Tensor


def positions(field: RowField, name: str, like: Tensor) -> Tensor:
    """Which numbers of a row are q rather than p, [dim].

    Args:
        field: the field, for the structure of the state.
        name: the method's.
        like: states, [rows, dim].

    Raises:
        InputError: where the state is no pair of q and p.
    """
    structure = field.structure
    shapes, sizes = structure.shapes, structure.sizes
    if structure.spec.is_leaf():
        fits = sizes[0] % 2 == 0
    else:
        fits = len(shapes) == 2 and shapes[0] == shapes[1]
    if not fits:
        raise InputError(
            f"{name} solves systems of q and p, and y0 is {structure.describe()}: give a pair "
            "(q, p) of one shape, or one tensor whose rows hold q and then as many numbers p"
        )
    size = sum(sizes)
    first_half = torch.arange(size, device=like.device) < size // 2
    # Solved jointly, a row holds the whole batch, one of the user's rows after the other.
    return first_half.repeat(like.shape[1] // size)


class SymplecticStepper:
    """A splitting method on states of one structure; see :class:`~odeum.eager.stepper.Stepper`.

    A step's ``ks`` are its mean slope and then every evaluation it makes. Of the derivative at
    its start only the half that moves ``p`` is read, so that the last kick's evaluation can be
    handed on as it is, although ``p`` has moved since.

    Args:
        tableau: the method.
        like: states, [rows, dim].
        field: the field, for the structure of the state.

    Raises:
        InputError: where the state is no pair of q and p.

    Example:
        >>> from odeum.tableaus import LEAPFROG
        >>> from odeum.tree import structure_of
        >>> y, t, h = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1), torch.full((1, 1), 0.1)
        >>> spring = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)
        >>> field = RowField(spring, structure_of(y), None, joint=False)
        >>> stepper = SymplecticStepper(LEAPFROG, y, field)
        >>> stepper.step(field, t, h, y, field(t, y), ()).y1  # q = 1 - h^2 / 2
        tensor([[ 0.9950, -0.0998]])
    """

    implicit = False
    error_order: int | None = None
    n_extra = 2

    def __init__(self, tableau: SymplecticTableau, like: Tensor, field: RowField) -> None:
        like = like.detach()
        is_q = positions(field, tableau.name, like).to(like.dtype)
        kicks = [
            (float(weight) * (1 - is_q), float(node))
            for weight, node in zip(tableau.kicks, tableau.kick_nodes, strict=True)
        ]
        drifts = [
            (float(weight) * is_q, float(node))
            for weight, node in zip(tableau.drifts, tableau.drift_nodes, strict=True)
        ]
        moves = [*kicks, *drifts]
        moves[::2], moves[1::2] = kicks, drifts
        self.order = tableau.order
        self.n_evaluations = len(moves) - 1
        self.end_stage = len(moves) - 1 if tableau.first_same_as_last else None
        self.dense = hermite(like)
        self._weights = [weights for weights, _ in moves]
        self._nodes = like.new_tensor([node for _, node in moves[1:]]).view(-1, 1, 1)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Takes one step."""
        return self.record(field, t, h, y, k0, [], with_end=True)

    def record(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        ks: list[Tensor],
        *,
        with_end: bool,
    ) -> Step:
        """Takes one step; what was found before is not needed, the last stage always is."""
        hy = h.to(y.dtype)
        first, *others = self._weights
        times = (t + self._nodes.to(t.dtype) * h).to(y.dtype).unbind(0)
        slope = k0 * first
        evaluations = []
        for weights, t_stage in zip(others, times, strict=True):
            evaluations.append(field(t_stage, torch.addcmul(y, hy, slope)))
            slope = torch.addcmul(slope, evaluations[-1], weights)
        return Step(t, h, y, torch.addcmul(y, hy, slope), [slope, *evaluations])

    def errors(self, step: Step) -> list[Tensor]:
        """None: there is no estimate."""
        return []

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """The mean slope: no stage is the field at an end."""
        return ks[:1]

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """The field at both ends."""
        y1 = torch.addcmul(y, h.to(y.dtype), derivatives[0])
        return [field(t.to(y.dtype), y), field((t + h).to(y.dtype), y1)]
