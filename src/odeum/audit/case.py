"""A loss of a solve as a function of its inputs: differentiated by any gradient, or by differences.

Owns what the inputs are and how they are moved; judges nothing.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from odeum.api import solve
from odeum.eager.field import PerRow, RowField
from odeum.errors import InputError
from odeum.gradient.inputs import Args, captured_tensors, modules_read
from odeum.gradient.registry import Gradient
from odeum.solution import Solution
from odeum.tree import structure_of
from odeum.types import Field, PyTree, Tensor

N_COORDINATES = 12
"""Inputs of at most so many numbers are changed one by one, larger ones along random directions."""

Grads = list[list[Tensor | None]]
"""Gradients by group and tensor."""


@dataclass(frozen=True)
class Case:
    """A loss of a solve as a function of tensors without a history.

    Attributes:
        field: the user's.
        state: the tensors of ``y0`` and what puts them together.
        ts: output times.
        args: the user's.
        captured: the tensors the field reads by itself.
        loss: of the states.
        options: of the solve.
        seed: of the random numbers a field draws.
        wants_times: whether the gradient of ``ts`` is taken.
    """

    field: Field
    state: PyTree
    ts: Tensor
    args: Args
    captured: list[Tensor]
    loss: Callable[[PyTree], Tensor]
    options: dict[str, Any]
    seed: int
    wants_times: bool

    @staticmethod
    def of(
        field: Field,
        y0: PyTree,
        ts: Tensor,
        args: PyTree,
        loss: Callable[[PyTree], Tensor],
        options: dict[str, Any],
        seed: int,
    ) -> "Case":
        """The case of a user's arguments; evaluates the field once to see what it reads."""
        structure = structure_of(y0)
        ts = torch.as_tensor(ts, dtype=None if isinstance(ts, Tensor) else structure.dtype)
        state = pytree.tree_map(torch.Tensor.detach, y0)
        held = Args(args)
        joint = options.get("coupling") == "joint"
        y = structure.flatten(state)
        y = y.reshape(1, -1) if joint else y
        constant = held.replaced([x.detach() for x in held.tensors])
        t = ts.detach()[0].reshape(-1, 1).expand(len(y), 1).to(y)
        k0 = RowField(field, structure, constant, joint=joint)(t, y)
        captured = captured_tensors(field, k0)
        return Case(
            field, state, ts.detach(), held, captured, loss, options, seed, ts.requires_grad
        )

    @property
    def dtype(self) -> torch.dtype:
        """That of the states."""
        return pytree.tree_leaves(self.state)[0].dtype

    def groups(self) -> list[list[Tensor]]:
        """What the loss is a function of: states, times, args, what the field reads by itself."""
        times = [self.ts] if self.wants_times else []
        args = [x.detach() for x in self.args.tensors]
        return [pytree.tree_leaves(self.state), times, args, self.captured]

    def solved(
        self, groups: list[list[Tensor]], gradient: str | Gradient
    ) -> tuple[Tensor, Solution]:
        """The loss, and the solve it is of, with other tensors in place of all but the captured."""
        state, times, args, _ = groups
        _seed(self.seed)
        y0 = pytree.tree_unflatten(state, pytree.tree_structure(self.state))
        solution = solve(
            self.field,
            y0,
            times[0] if times else self.ts,
            self.args.replaced(args),
            gradient=gradient,
            **self.options,
        )
        loss = self.loss(solution.ys)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise InputError("loss must return one number: reduce with .sum() or .mean()")
        return loss.reshape(()), solution

    def gradient(self, gradient: str | Gradient) -> tuple["Grads", Solution]:
        """The gradient of each tensor of each group, None where the loss does not depend on it."""
        *own, captured = self.groups()
        groups = [*([x.detach().requires_grad_() for x in group] for group in own), captured]
        loss, solution = self.solved(groups, gradient)
        tensors = [x for group in groups for x in group]
        found = iter(torch.autograd.grad(loss, tensors, allow_unused=True))
        return [[next(found) for _ in group] for group in groups], solution

    def flat(self, grads: "Grads") -> list[Tensor]:
        """One vector for each group, in float64 on the CPU."""
        vectors = []
        for group, found in zip(self.groups(), grads, strict=True):
            parts = [
                torch.zeros_like(x) if g is None else g for x, g in zip(group, found, strict=True)
            ]
            parts = [x.detach().reshape(-1).double().cpu() for x in parts]
            vectors.append(torch.cat([torch.zeros(0, dtype=torch.float64), *parts]))
        return vectors

    def directions(self, n: int) -> list[list[Tensor]]:
        """Changes of all inputs, one vector a group: along coordinates where there are few."""
        groups = self.groups()
        none = torch.zeros(0, dtype=torch.float64)
        scales = [torch.cat([none, *map(_scale, group)]) for group in groups]
        if self.wants_times:
            # Less than the gap between two: their order must stay.
            scales[1] = self.ts.diff(dim=0).abs().min().double().cpu().expand(self.ts.numel())
        sizes = [len(scale) for scale in scales]
        n_numbers = sum(sizes)
        if n_numbers <= N_COORDINATES:
            unit = torch.eye(n_numbers, dtype=torch.float64)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            unit = torch.randn(n, n_numbers, generator=generator, dtype=torch.float64)
        return [
            [part * scale for part, scale in zip(v.split(sizes), scales, strict=True)] for v in unit
        ]

    def differences(
        self, directions: list[list[Tensor]], gradient: str | Gradient = "none"
    ) -> Tensor:
        """Derivatives along directions, by central differences of fourth order.

        Args:
            directions: from :meth:`directions`.
            gradient: whose forward solve is moved; its backward pass does not run.
        """
        step = max(1e-3, torch.finfo(self.dtype).eps ** 0.3)
        weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
        found = [
            sum(w * self._moved(direction, i * step, gradient) for i, w in weights.items()) / step
            for direction in directions
        ]
        return torch.tensor(found, dtype=torch.float64)

    def value(self, gradient: str | Gradient) -> float:
        """The loss, of the forward solve that goes with a gradient."""
        with torch.no_grad():
            return float(self.solved(self.groups(), gradient)[0])

    def _moved(self, direction: list[Tensor], size: float, gradient: str | Gradient) -> float:
        """The loss with all inputs moved along a direction."""
        *own, captured = self.groups()
        moved = [
            [x + size * d for x, d in zip(group, _split(vector, group), strict=True)]
            for group, vector in zip(own, direction, strict=False)
        ]
        before = [x.detach().clone() for x in captured]
        try:
            for x, d in zip(captured, _split(direction[-1], captured), strict=True):
                x.data.add_(d, alpha=size)
            with torch.no_grad():
                return float(self.solved([*moved, captured], gradient)[0])
        finally:
            for x, value in zip(captured, before, strict=True):
                x.data.copy_(value)


def in_double(case: Case) -> Case:
    """The same in float64, where a field can be copied to it."""
    if case.dtype == torch.float64 or not isinstance(case.field, nn.Module):
        return case
    try:
        field = copy.deepcopy(case.field).double()
        state = pytree.tree_map(_doubled, case.state)
        args = case.args.replaced(case.args.tensors)
        ts = case.ts.double().requires_grad_(case.wants_times)
        args = pytree.tree_map(_doubled, args)
        double = Case.of(field, state, ts, args, case.loss, case.options, case.seed)
    except RuntimeError:  # it meets tensors that are not its own
        return case
    same = [x.shape for x in double.captured] == [x.shape for x in case.captured]
    return double if same else case


def _doubled(x: Any) -> Any:
    if isinstance(x, PerRow):
        return PerRow(_doubled(x.tensor))
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return x.detach().double().requires_grad_(x.requires_grad)
    return x


def _scale(x: Tensor) -> Tensor:
    """How far a change of each of a tensor's numbers is small."""
    size = x.detach().double().square().mean().sqrt().cpu()
    return torch.where(size > 0, size, torch.ones_like(size)).expand(x.numel())


def _split(vector: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    parts = vector.split([x.numel() for x in tensors])
    return [part.view_as(x).to(x) for part, x in zip(parts, tensors, strict=True)]


def _seed(seed: int) -> None:
    """Seeds what a field may draw from; only devices that are in use, so as to touch no other."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def untouched(field: Field) -> Iterator[None]:
    """Puts the random states and the buffers of the field's modules back as they were."""
    buffers = [x for module in modules_read(field) for x in module.buffers()]
    before = [x.detach().clone() for x in buffers]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for x, value in zip(buffers, before, strict=True):
                x.data.copy_(value)
