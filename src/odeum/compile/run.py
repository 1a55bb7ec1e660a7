"""A kernel's solve under autograd."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from odeum.compile.emit.kernel import NO_TIMES
from odeum.compile.runtime.calls import Control, Solve
from odeum.compile.runtime.kernels import Kernel
from odeum.solution import Stats
from odeum.types import Tensor


class Run:
    """One solve by a kernel, and its way back.

    Args:
        kernel: the machine code.
        control: tolerances and bounds on steps.
        n_threads: how many threads share the rows.
        eagerly: solves the same by the eager engine, recorded by autograd: for second derivatives.
        on_backward: told the work of a backward pass, per row.
    """

    def __init__(
        self,
        kernel: Kernel,
        control: Control,
        n_threads: int,
        eagerly: Callable[[], Tensor],
        on_backward: Callable[[Stats], None] | None,
    ) -> None:
        self.kernel = kernel
        self.eagerly = eagerly
        self._control = control
        self._n_threads = n_threads
        self.on_backward = on_backward
        self.solved: Solve | None = None

    def solve(self, y0: Tensor, ts: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """States at the output times, [time, batch, dim].

        Args:
            y0: initial states, [batch, dim].
            ts: output times, [time] or [time, batch].
            tensors: what the kernel reads, in the order of its inputs.
        """
        y0, ts, *tensors = [
            x if x.is_contiguous() else x.detach().contiguous() for x in (y0, ts, *tensors)
        ]
        solved = Solve(self.kernel, self._control, y0, ts, tensors, self._n_threads)
        self.solved = solved
        return solved.forward()

    @property
    def has_times(self) -> bool:
        """Whether the output times of all rows are in order."""
        assert self.solved is not None
        return bool((self.solved.counts[0] != NO_TIMES).all())

    @property
    def failed(self) -> bool:
        """Whether a row did not arrive."""
        assert self.solved is not None
        return self.solved.n_failed > 0

    def status_and_stats(self) -> tuple[Tensor, Stats]:
        """How each row ended and the work it took."""
        assert self.solved is not None
        counts = self.solved.counts
        return counts[0], Stats(counts[1], counts[2], counts[3])

    def pull(self, g_ys: Tensor) -> list[Tensor | None]:
        """Gradients of initial states, times and tensors; None of those not wanted."""
        assert self.solved is not None
        found = self.solved.backward(g_ys if g_ys.is_contiguous() else g_ys.contiguous())
        if self.on_backward is not None:
            self.on_backward(self._work())
        tensors = [None if i is None else found.tensors[i] for i in self.kernel.places]
        return [found.y0, found.ts, *tensors]

    def _work(self) -> Stats:
        """That of the backward pass: every step is taken again, and the first evaluation."""
        assert self.solved is not None
        counts = self.solved.counts
        return Stats(counts[5], counts[2], counts[6])


class _Fused(torch.autograd.Function):
    """``(run, y0, ts, tensors) -> ys``."""

    @staticmethod
    def forward(ctx: Any, run: Run, *inputs: Tensor) -> Tensor:
        """Solves."""
        y0, ts, *tensors = inputs
        ctx.run = run
        # Saved so that autograd notices inputs changed in place before the backward pass.
        ctx.save_for_backward(*inputs)
        return run.solve(y0, ts, tensors)

    @staticmethod
    def backward(ctx: Any, g_ys: Tensor) -> tuple[Any, ...]:
        """Pulls back."""
        inputs = ctx.saved_tensors  # raises where one was changed
        if torch.is_grad_enabled():
            return (None, *_differentiable(ctx.run.eagerly(), inputs, g_ys))
        gradients = ctx.run.pull(g_ys)
        if gradients[1] is None and ctx.needs_input_grad[2]:
            gradients[1] = torch.zeros_like(inputs[1])
        return (None, *gradients)


# Without the look for torch.func transforms, inside which nothing is solved by kernels.
_apply: Callable[..., Tensor] = super(torch.autograd.Function, _Fused).apply


def recorded(run: Run, y0: Tensor, ts: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """States at the output times, recorded by autograd; see :meth:`Run.solve`."""
    return _apply(run, y0, ts, *tensors)


def _differentiable(ys: Tensor, inputs: Sequence[Tensor], g_ys: Tensor) -> list[Tensor | None]:
    """Gradients that can be differentiated again."""
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(ys, wanted, g_ys, create_graph=True, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]
