"""Solves like one before, without looking at everything again: what a training loop does.

The first solve of a kind goes through every check there is. It leaves behind what the next one
needs, found by a few cheap properties of the arguments; the field's guard does the rest.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from odeum.compile.engine import Prepared, control_of
from odeum.compile.known import make_of
from odeum.compile.run import Run, recorded
from odeum.compile.runtime.kernels import Kernel
from odeum.solution import Solution
from odeum.types import Tensor

KINDS = 256
"""Kinds of solves that are remembered: those met last."""

OF_ONE_KIND = 16
"""Fields remembered of one kind."""


class _Remembered:
    """What a solve leaves behind for others like it.

    Args:
        prepared: the solve.
        gradient: whether it may be differentiated.
    """

    def __init__(self, prepared: Prepared, *, gradient: bool) -> None:
        compiled = prepared.compiled
        self.compiled = compiled
        self.matched = compiled.traced.guard.matched
        self.control = control_of(prepared.problem)
        self.gradient = gradient
        self.n_threads = prepared.n_threads
        self.kernels: dict[tuple[bool, ...] | None, Kernel] = {}
        self._dtype = prepared.problem.y0.dtype
        self._order: list[str] = []
        self._places: list[int] | None = None

    def add(self, kernel: Kernel, wants: tuple[bool, ...] | None) -> None:
        """Remembers the kernel for inputs of which these want gradients."""
        program = kernel.spec.program
        self._order = [node.name for node in (*program.shared, *program.row)]
        if self.compiled.is_read_as_found:
            self._places = [self.compiled.traced.inputs[name][0] for name in self._order]
        self.kernels[wants] = kernel

    def tensors(self, found: tuple[Tensor, ...]) -> list[Tensor]:
        """What a kernel reads, from what the guard found."""
        if self._places is not None:
            return [found[i] for i in self._places]
        inputs = self.compiled.inputs(self.compiled.traced.named(found, self._dtype))
        return [inputs[name] for name in self._order]


_remembered: OrderedDict[Any, list[_Remembered]] = OrderedDict()


def kind_of(field: Any, y0: Any, ts: Any, *options: Any) -> Any:
    """What solves alike have in common; None where there is too much to look at.

    Args:
        field: the user's field.
        y0: the user's initial state.
        ts: the user's output times.
        options: everything else, hashable.
    """
    if type(y0) is not Tensor or y0.ndim != 2 or type(ts) is not Tensor or ts.dtype is not y0.dtype:
        return None
    if y0.is_cuda or torch.is_autocast_enabled("cpu") or ts.ndim == 0 or ts.shape[0] < 2:
        return None
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return None
    n_rows, dim = y0.shape
    if ts.ndim == 2 and ts.shape[1] != n_rows:
        return None
    return (make_of(field), n_rows, dim, y0.dtype, ts.ndim, torch.get_num_threads(), options)


def solve(
    kind: Any,
    field: Any,
    y0: Tensor,
    ts: Tensor,
    args: Any,
    eagerly: Callable[[], Tensor],
    *,
    raises: bool,
) -> Solution | None:
    """Solves what is like a solve before; None where there is none, or where a row fails.

    Args:
        kind: from :func:`kind_of`.
        field: the user's field.
        y0: [batch, dim].
        ts: [time] or [time, batch].
        args: handed to the field.
        eagerly: the states at the output times by the eager engine, recorded by autograd.
        raises: whether a row that fails is an error, which is then left to others to explain.
    """
    try:
        entries = _remembered.get(kind, ())
    except TypeError:  # options that have no hash, as tolerances that are tensors
        return None
    for known in entries:
        found = known.matched(field, args, None)
        if not isinstance(found, int):
            break
    else:
        return None
    tensors = known.tensors(found)
    wants = None
    if known.gradient and torch.is_grad_enabled():
        wants = _wants(y0, ts, tensors)
    kernel = known.kernels.get(wants)
    if kernel is None or not y0.shape[0]:
        return None
    run = Run(kernel, known.control, known.n_threads, eagerly, None)
    ys = run.solve(y0, ts, tensors) if wants is None else recorded(run, y0, ts, tensors)
    if run.failed and (raises or not run.has_times):
        return None
    status, stats = run.status_and_stats()
    run.on_backward = stats.add_backward
    return Solution(ts, ys, status, stats, "fused", "the field is compiled")


def _wants(y0: Tensor, ts: Tensor, tensors: list[Tensor]) -> tuple[bool, ...] | None:
    """Which inputs want gradients; None where none does."""
    wants = (y0.requires_grad, ts.requires_grad, *[x.requires_grad for x in tensors])
    return wants if True in wants else None


def remember(kind: Any, prepared: Prepared, *, gradient: bool) -> None:
    """Keeps what a solve leaves behind for others like it."""
    try:
        entries = _remembered.setdefault(kind, [])
    except TypeError:
        return
    _remembered.move_to_end(kind)
    while len(_remembered) > KINDS:
        _remembered.popitem(last=False)
    known = next((x for x in entries if x.compiled is prepared.compiled), None)
    if known is None:
        known = _Remembered(prepared, gradient=gradient)
        entries.insert(0, known)
        del entries[OF_ONE_KIND:]
    wants = None
    if prepared.recorded:
        wants = _wants(prepared.problem.y0, prepared.problem.ts, prepared.tensors())
    known.add(prepared.kernel(), wants)
