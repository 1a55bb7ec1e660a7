"""Gradients as they add up on the way back through a solve: of its times, and of what steps share.

Owns how a step's times depend on one another. Knows no method and no kind of step.
"""

import torch

from odeum.eager.records import NOT_CUT, Record
from odeum.eager.times import Times
from odeum.types import Tensor


class TimeGradients:
    """Gradients of the output times and of the times where rows start.

    Args:
        times: the output times.
        wanted: whether they are; everything is a no-op where they are not.

    Attributes:
        wanted: whether they are wanted.
        ts: of the output times, laid out as those; None where they are not wanted.
        start: of the times where rows start, [batch, 1]; None where those are output times.
    """

    def __init__(self, times: Times, *, wanted: bool) -> None:
        self.wanted = wanted
        self.ts = torch.zeros_like(times.ts) if wanted else None
        self.start: Tensor | None = None
        self._times = times

    def add(self, index: Tensor, rows: Tensor, g: Tensor) -> None:
        """Adds cotangents [k] of the output times of indices and rows."""
        if self.ts is not None:
            self._times.add_to(self.ts, index, rows, g)

    def pull_step(self, record: Record, g_t: Tensor, g_h: Tensor, g_t1: Tensor) -> Tensor:
        """The cotangent of where steps start, [steps, 1], from those of what depends on it.

        ``t1 = t + h`` with ``h`` a constant, or, for a step cut to land on an output time,
        ``h = output - t`` and ``t1`` that output time; likewise on an end that is none.

        Args:
            record: the steps.
            g_t: cotangents of where they start but for what comes through where they end, and
                how long they are.
            g_h: of how long they are.
            g_t1: of where they end.
        """
        if not self.wanted:
            return g_t
        if record.stops is None:
            return g_t + g_t1
        landed = (record.stops != NOT_CUT).unsqueeze(-1)
        at_output = torch.where((record.stops >= 0).unsqueeze(-1), g_t1 + g_h, 0.0)
        self.add(record.stops.clamp(min=0), record.rows, at_output.squeeze(-1))
        return g_t + torch.where(landed, -g_h, g_t1)

    def arrive(self, g_t: Tensor) -> None:
        """Adds cotangents [batch] of the times where all rows start."""
        if self._times.starts_at_output:
            rows = torch.arange(len(g_t), device=g_t.device)
            self.add(torch.zeros_like(rows), rows, g_t)
        elif self.wanted:
            self.start = g_t.unsqueeze(-1)


class LeafGradients:
    """Gradients of tensors that steps share.

    Args:
        leaves: tensors that want gradients and that the field uses.

    Attributes:
        gradients: None for a tensor that nothing depends on.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        self.gradients: list[Tensor | None] = [None] * len(leaves)
        self._leaves = leaves

    def pull(
        self, outputs: list[Tensor], g_outputs: list[Tensor], inputs: list[Tensor]
    ) -> list[Tensor]:
        """Cotangents of ``inputs``, zero where nothing depends on one; those of leaves add up.

        Args:
            outputs: recorded by autograd, but for those that are constant.
            g_outputs: their cotangents.
            inputs: leaves of that record, and others that want no gradient.
        """
        pairs = [(x, g) for x, g in zip(outputs, g_outputs, strict=True) if x.requires_grad]
        found: dict[int, Tensor | None] = {}
        if pairs:
            wanted = [x for x in (*inputs, *self._leaves) if x.requires_grad]
            # A graph the field closes over belongs to the user: it is not ours to free.
            gradients = torch.autograd.grad(
                [x for x, _ in pairs],
                wanted,
                [g for _, g in pairs],
                retain_graph=True,
                allow_unused=True,
            )
            found = dict(zip(map(id, wanted), gradients, strict=True))
        for i, leaf in enumerate(self._leaves):
            g = found.get(id(leaf))
            if g is not None:
                total = self.gradients[i]
                # The first one may share its memory with something else.
                self.gradients[i] = g.clone() if total is None else total.add_(g)
        return [torch.zeros_like(x) if (g := found.get(id(x))) is None else g for x in inputs]
