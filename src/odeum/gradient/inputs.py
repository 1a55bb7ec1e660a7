"""What a solve is differentiated with respect to, beyond states and times.

Tensors in ``args``, and those a field reads without being handed them: its parameters and
whatever it closes over. A backward pass must find all of them as the forward pass left them.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from odeum.eager.field import PerRow
from odeum.eager.problem import Problem
from odeum.types import Field, PyTree, Tensor


@dataclass(frozen=True)
class Start:
    """The field at the initial state, recorded by autograd on tensors that have no history.

    Attributes:
        t: where rows start, [batch, 1].
        y: their states, [batch, dim].
        k: the field there, [batch, dim].
    """

    t: Tensor
    y: Tensor
    k: Tensor


@dataclass(frozen=True)
class Isolated:
    """A problem cut off from where its tensors come from, to be differentiated by hand.

    Attributes:
        problem: the same with tensors that have no history.
        k0: the field at the initial state, [batch, dim].
        inputs: the tensors that may want gradients, as they were: the initial states, the output
            times, the times where rows start, those in ``args``, those the field reads by itself.
        leaves: what stands in for the last two in ``problem``.
        start: how ``k0`` came about; kept where that is asked for.
    """

    problem: Problem
    k0: Tensor
    inputs: tuple[Tensor | None, ...]
    leaves: list[Tensor]
    start: Start | None

    @property
    def wants_gradient(self) -> bool:
        """Whether any of the inputs wants a gradient."""
        return any(x is not None and x.requires_grad for x in self.inputs)

    @property
    def wants_times(self) -> bool:
        """Whether the output times, or the times where rows start, want a gradient."""
        return any(x is not None and x.requires_grad for x in self.inputs[1:3])


def isolate(problem: Problem, *, keep_start: bool = False) -> Isolated:
    """Cuts a problem off from where its tensors come from."""
    args = Args(problem.field.args)
    leaves = [x.detach().requires_grad_() for x in args.tensors]
    cut = replace(
        problem,
        field=problem.field.with_args(args.replaced(leaves)),
        y0=problem.y0.detach(),
        ts=problem.ts.detach(),
        start=None if problem.start is None else problem.start.detach(),
        end=None if problem.end is None else problem.end.detach(),
    )
    wants_times = any(x is not None and x.requires_grad for x in (problem.ts, problem.start))
    t0 = cut.times().start.clone().requires_grad_(wants_times)
    # A leaf that stands for the state: what it leads to is recorded whatever the field reads.
    y0 = cut.y0.clone().requires_grad_()
    k0 = cut.field(t0.to(y0.dtype), y0)
    own = {id(x) for x in (t0, y0, *leaves)}
    captured = [x for x in captured_tensors(problem.field.field, k0) if id(x) not in own]
    inputs = (problem.y0, problem.ts, problem.start, *args.tensors, *captured)
    start = Start(t0, y0, k0) if keep_start else None
    return Isolated(cut, k0.detach(), inputs, leaves + captured, start)


class Args:
    """The user's ``args`` with the tensors in them that want a gradient.

    Args:
        args: the user's.

    Attributes:
        tensors: those that want a gradient, in the order of the pytree.

    Example:
        >>> args = Args({"rate": torch.ones(1, requires_grad=True), "name": "decay"})
        >>> args.replaced([torch.zeros(1)])
        {'rate': tensor([0.]), 'name': 'decay'}
    """

    def __init__(self, args: PyTree) -> None:
        self._leaves, self._spec = pytree.tree_flatten(args)
        contents = [leaf.tensor if isinstance(leaf, PerRow) else leaf for leaf in self._leaves]
        self._wanting = [
            i for i, x in enumerate(contents) if isinstance(x, torch.Tensor) and x.requires_grad
        ]
        self.tensors: list[Tensor] = [contents[i] for i in self._wanting]

    def replaced(self, tensors: Sequence[Tensor]) -> PyTree:
        """``args`` with other tensors in the places of those that want a gradient."""
        leaves: list[Any] = list(self._leaves)
        for i, tensor in zip(self._wanting, tensors, strict=True):
            leaves[i] = PerRow(tensor) if isinstance(leaves[i], PerRow) else tensor
        return pytree.tree_unflatten(leaves, self._spec)


class Weights(nn.Module):
    """A field with the weights it has now, whatever its modules are given later.

    ``torch.func.functional_call`` lends a module other weights for the time of one call; a
    backward pass comes after that and must not meet the module's own.

    Args:
        field: the user's field; the modules it is, is a method of, or closes over are looked at.

    Example:
        >>> net, lent = nn.Linear(1, 1, bias=False), {"weight": torch.tensor([[3.0]])}
        >>> class Lent(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = net
        ...     def forward(self):
        ...         return Weights(self.net)
        >>> weights = torch.func.functional_call(Lent(), {"net.weight": lent["weight"]}, ())
        >>> weights.restored()(torch.ones(1, 1))
        tensor([[3.]])
    """

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._field = [field]  # in a list, that it is not registered as a module twice
        self.modules_read = nn.ModuleList(modules_read(field))
        self._tensors = self._now()

    def _now(self) -> dict[str, Tensor]:
        return {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }

    def forward(self, *args: PyTree) -> PyTree:
        """The field."""
        return self._field[0](*args)

    def restored(self) -> Field:
        """The field, reading the weights it had when this was made."""
        now = self._now()
        if all(now.get(name) is tensor for name, tensor in self._tensors.items()):
            return self._field[0]
        return lambda *args: torch.func.functional_call(self, self._tensors, args)


def modules_read(field: Field) -> list[nn.Module]:
    """The modules a field is, is a method of, or closes over.

    Example:
        >>> net = nn.Identity()
        >>> modules_read(net), modules_read(net.forward)
        ([Identity()], [Identity()])
    """
    candidates = [field, getattr(field, "__self__", None)]
    for cell in getattr(field, "__closure__", None) or ():
        candidates += [cell.cell_contents, getattr(cell.cell_contents, "__self__", None)]
    found = {id(x): x for x in candidates if isinstance(x, nn.Module)}
    return list(found.values())


def captured_tensors(field: Field, derivative: Tensor) -> list[Tensor]:
    """Leaf tensors that want a gradient and that a field reads by itself.

    Args:
        field: the user's field. The parameters of modules it reads count whether or not this
            evaluation used them: a field may use them at other times.
        derivative: the field's value, recorded by autograd on inputs that want no gradient.

    Returns:
        Each tensor once.

    Example:
        >>> rate = torch.tensor(2.0, requires_grad=True)
        >>> field = lambda t, y: -rate * y
        >>> captured_tensors(field, field(0.0, torch.ones(1, 1)))
        [tensor(2., requires_grad=True)]
    """
    found: dict[int, Tensor] = {}
    for module in modules_read(field):
        found.update((id(p), p) for p in module.parameters() if p.requires_grad)
    # What a weight came from gets its gradient through the weight.
    known = {p.grad_fn for p in found.values() if p.grad_fn is not None}
    leaves = [node.variable for node in _nodes(derivative, known) if hasattr(node, "variable")]
    found.update((id(leaf), leaf) for leaf in leaves)
    return list(found.values())


def stored_bytes(derivative: Tensor, leaves: Sequence[Tensor]) -> int:
    """What autograd stores of an evaluation of the field, beyond the tensors it was given.

    Args:
        derivative: the field's value, recorded by autograd.
        leaves: tensors that are there anyway.

    Example:
        >>> y = torch.ones(5, dtype=torch.float64, requires_grad=True)
        >>> stored_bytes(y.sin().cos(), []), stored_bytes(y.sin().cos(), [y])
        (80, 40)
    """
    elsewhere = {leaf.data_ptr() for leaf in leaves}
    sizes: dict[int, int] = {}
    for node in _nodes(derivative, set()):
        for tensor in _stored(node):
            # Operations share what they store: the output of one is the input of the next.
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(size for where, size in sizes.items() if where not in elsewhere)


def n_operations(derivative: Tensor) -> int:
    """Operations that autograd recorded on the way to a tensor.

    Example:
        >>> y = torch.ones(5, requires_grad=True)
        >>> n_operations(y.sin().cos())  # the leaf counts, too
        3
    """
    return sum(1 for _ in _nodes(derivative, set()))


def _stored(node: Any) -> Iterator[Tensor]:
    """Tensors that a node of an autograd graph stores."""
    kind: Any = type(node)
    for name in _names_of_stored(kind):
        value = getattr(node, name)
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, torch.Tensor):
                yield x


@cache
def _names_of_stored(kind: Hashable) -> tuple[str, ...]:
    """Attributes that hold what nodes of a kind store; operations of Python have one for all."""
    return tuple(
        name
        for name in dir(kind)
        if name == "saved_tensors" or (name.startswith("_saved_") and "sym" not in name)
    )


def _nodes(derivative: Tensor, known: set[Any]) -> Iterator[Any]:
    """The nodes of an autograd graph, but for those that are known and what lies behind them."""
    seen = set(known)
    queue: list[Any] = [derivative.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        queue.extend(function for function, _ in node.next_functions)
