"""Many fields of one architecture, each with weights of its own, as one module solved at once."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from odeum.api import solve
from odeum.eager.field import per_row
from odeum.errors import InputError
from odeum.solution import Solution
from odeum.types import Tensor


class Ensemble(nn.Module):
    """Solves many fields that differ in their weights alone: ``ensemble(y0, ts) -> ys``.

    All rows of all members are one batch of one solve, each with steps of its own. The weights are
    stacked: parameter ``i`` of every member is one parameter, [members, *shape], so that one
    optimiser trains them all. (An optimiser that looks at each number by itself, as SGD and Adam
    do, trains them as if each were alone; their losses are to be summed, not averaged.)

    Args:
        fields: the members: modules of one architecture, ``f(t, y) -> dy/dt``. They are copied.
        options: those of :func:`odeum.solve`, for every solve.

    Raises:
        InputError: for no members, or members whose weights do not have the same shapes.

    Example:
        >>> from odeum.models import LinearField
        >>> ensemble = Ensemble([LinearField(2) for _ in range(3)], method="dopri5")
        >>> ensemble(torch.ones(3, 4, 2), torch.linspace(0, 1, 5)).shape
        torch.Size([5, 3, 4, 2])
    """

    def __init__(self, fields: Sequence[nn.Module], **options: Any) -> None:
        super().__init__()
        fields = list(fields)
        if not fields or not all(isinstance(field, nn.Module) for field in fields):
            raise InputError("an Ensemble takes a list of modules, at least one")
        self._check_alike(fields)
        parameters, buffers = stack_module_state(fields)
        self.options = options
        self.n_members = len(fields)
        # In a list, that its own weights are not registered beside the stacked ones.
        self._architecture = [deepcopy(fields[0]).to("meta")]
        self._names = {"parameters": tuple(parameters), "buffers": tuple(buffers)}
        for kind, stacked in (("parameters", parameters), ("buffers", buffers)):
            for i, tensor in enumerate(stacked.values()):
                if kind == "parameters":
                    wants = dict(fields[0].named_parameters())[self._names[kind][i]].requires_grad
                    parameter = nn.Parameter(tensor.detach().clone(), requires_grad=wants)
                    self.register_parameter(f"parameter{i}", parameter)
                else:
                    self.register_buffer(f"buffer{i}", tensor)

    def _check_alike(self, fields: list[nn.Module]) -> None:
        first = {name: x.shape for name, x in fields[0].state_dict().items()}
        for i, member in enumerate(fields):
            own = {name: x.shape for name, x in member.state_dict().items()}
            if own != first or type(member) is not type(fields[0]):
                raise InputError(
                    f"member {i} of the Ensemble differs from member 0 in its weights' names or "
                    "shapes: give modules of one architecture"
                )

    def stacked(self) -> dict[str, Tensor]:
        """Weights and buffers by the names that a member has for them, [members, *shape]."""
        return {
            name: getattr(self, f"{prefix}{i}")
            for prefix, kind in (("parameter", "parameters"), ("buffer", "buffers"))
            for i, name in enumerate(self._names[kind])
        }

    def member(self, index: int) -> nn.Module:
        """A copy of one member, with the weights it has now."""
        member = deepcopy(self._architecture[0]).to_empty(device=self._device)
        with torch.no_grad():
            member.load_state_dict({name: x[index] for name, x in self.stacked().items()})
        return member

    @property
    def _device(self) -> torch.device:
        return next((x.device for x in self.stacked().values()), torch.device("cpu"))

    def forward(self, y0: Tensor, ts: Tensor) -> Tensor:
        """The states at ``ts`` [time], [time, members, rows, *shape]."""
        solution = self.solve(y0, ts)
        return solution.ys.unflatten(1, y0.shape[:2])

    def solve(self, y0: Tensor, ts: Tensor, **changes: Any) -> Solution:
        """The whole solution, with statuses and statistics.

        Args:
            y0: states at ``ts[0]``, [members, rows, *shape].
            ts: [time] shared, or [time, members * rows].
            changes: options of :func:`odeum.solve` to use in place of the ensemble's own.

        Returns:
            What :func:`odeum.solve` returns for a batch of ``members * rows``, member by member.

        Raises:
            InputError: where ``y0`` has another first axis than one entry per member.
        """
        if y0.ndim < 3 or len(y0) != self.n_members:
            raise InputError(
                f"y0 has shape {list(y0.shape)}: give [members, rows, *shape] with "
                f"{self.n_members} members"
            )
        own = torch.arange(self.n_members, device=y0.device).repeat_interleave(y0.shape[1])
        weights = {name: per_row(tensor[own]) for name, tensor in self.stacked().items()}
        return solve(self._field, y0.flatten(0, 1), ts, weights, **{**self.options, **changes})

    def _field(self, t: Tensor, y: Tensor, weights: dict[str, Tensor]) -> Tensor:
        architecture = self._architecture[0]

        def one_row(weights: dict[str, Tensor], t: Tensor, y: Tensor) -> Tensor:
            return functional_call(architecture, weights, (t.unsqueeze(0), y.unsqueeze(0)))[0]

        return vmap(one_row)(weights, t, y)
