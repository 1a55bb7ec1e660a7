"""Forward sensitivities: the derivatives of the states, carried along with them.

The variational equations ``dS/dt = df/dy S + df/dtheta`` are solved by the steps that solve for
the state: torch's forward mode takes both through the same operations, so that nothing but the
steps' own rounding parts them from the exact gradient of the steps taken.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from odeum.eager.captured import Reading, Replacing
from odeum.eager.field import PerRow, RowField
from odeum.eager.jacobian import FORWARD_MODE, load_forward_mode
from odeum.eager.problem import Outcome, Problem
from odeum.eager.recording import unrecorded
from odeum.eager.records import Watch
from odeum.eager.tangents import ExplicitZeros, OnLeaves
from odeum.errors import InputError
from odeum.gradient.inputs import Args, Isolated, isolate, modules_read
from odeum.gradient.operation import Inputs, recorded
from odeum.methods import SciPy
from odeum.types import Tensor


@dataclass(frozen=True)
class Forward:
    """Forward sensitivities: every derivative is known when the solve ends.

    There is no backward solve, and what is stored does not grow with the steps but with the
    outputs: a copy of them for each seed. The initial state takes one seed per component and
    ``odeum.per_row`` arguments one per entry of a row, as rows do not depend on one another; the
    output times take one each; parameters, and other tensors that rows share, one per number.
    This is for few parameters: all seeds of a chunk go through one solve, whose operations cost
    some ten times those of a plain one. Fields that ``torch.func`` does not get through (those that
    decide in Python by values, or differentiate inside by ``torch.autograd``) take a solve a seed.

    Attributes:
        chunk: seeds carried along at a time; each further chunk is another solve.

    Raises:
        InputError: for a chunk below 1, with SciPy's methods, for states between the outputs of a
            solution kept dense, and for fields with operations that have no forward mode.

    Source:
        Dickinson & Gelinas, Sensitivity analysis of ordinary differential equation systems,
        J. Comput. Phys. 21 (1976); Hairer, Norsett & Wanner I (1993), II.6.

    Example:
        >>> import odeum
        >>> y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        >>> ts = torch.tensor([0.0, 1.0])
        >>> sol = odeum.solve(lambda t, y: -y, y0, ts, gradient="forward")
        >>> sol.ys[-1].sum().backward()
        >>> y0.grad
        tensor([[0.3679]], dtype=torch.float64)
    """

    chunk: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.chunk, int) or isinstance(self.chunk, bool) or self.chunk < 1:
            raise InputError(f"Forward(chunk={self.chunk!r}): give a whole number of at least 1")

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem together with its sensitivities."""
        if not torch.is_grad_enabled():
            return problem.solve()
        if isinstance(problem.method, SciPy):
            raise InputError(
                f"scipy:{problem.method.solver} takes steps that torch does not see: use "
                'gradient="adjoint", or a method of odeum with gradient="forward"'
            )
        args = problem.field.args
        known = [problem.y0, problem.ts, problem.start, problem.end, *pytree.tree_leaves(args)]
        # What the field reads, not what that was made of outside, as the weights of a replica
        # are: tangents begin at the solve.
        with Reading(known) as reading:
            cut = isolate(problem)
        read = {id(p): p for m in modules_read(problem.field.field) for p in m.parameters()}
        read.update(reading.read)
        given = cut.inputs[: 3 + len(Args(args).tensors)]
        cut = replace(cut, inputs=(*given, *(p for p in read.values() if p.requires_grad)))
        if not cut.wants_gradient:
            with unrecorded():
                return cut.problem.solve(cut.k0)
        if problem.dense:
            raise InputError(
                'gradient="forward" knows no sensitivities between the outputs: put the times in '
                'ts, or use gradient="discrete" with dense=True'
            )
        return recorded(_Run(cut, _seeds(problem, cut.inputs), self.chunk), cut.inputs)


@dataclass(frozen=True)
class _Seeds:
    """Unit directions in which one input moves; those of rows are the same in all of them.

    Attributes:
        like: the input.
        row_axis: the axis of its rows, which do not depend on one another; None where it has none.
        rows: which of its rows the problem's are; None where they are all.
    """

    like: Tensor
    row_axis: int | None = None
    rows: Tensor | None = None

    @property
    def n(self) -> int:
        """How many."""
        if self.row_axis is None:
            return self.like.numel()
        return self.like.numel() // self.like.shape[self.row_axis]

    def tangents(self, numbers: Tensor) -> Tensor:
        """The directions of those numbers, [k, *shape]; zero for numbers that are none of these."""
        directions = self.like.new_zeros(len(numbers), self.n)
        at = ((numbers >= 0) & (numbers < self.n)).nonzero().squeeze(-1)
        directions[at, numbers[at]] = 1.0
        if self.row_axis is None:
            return directions.view(-1, *self.like.shape)
        rows = self.like.movedim(self.row_axis, -1)
        return (
            directions.view(-1, *rows.shape[:-1], 1)
            .expand(-1, *rows.shape)
            .movedim(-1, self.row_axis + 1)
        )

    def gradient(self, by_row: Tensor) -> Tensor:
        """The input's gradient from what each direction does in each row, [seeds, rows]."""
        if self.row_axis is None:
            return by_row.sum(1).view_as(self.like)
        rows = self.like.movedim(self.row_axis, -1)
        if self.rows is not None:
            whole = by_row.new_zeros(len(by_row), rows.shape[-1])
            by_row = whole.index_add(1, self.rows, by_row)
        return by_row.reshape(rows.shape).movedim(-1, self.row_axis)


def _seeds(problem: Problem, inputs: Sequence[Tensor | None]) -> list[_Seeds | None]:
    """Of every input; None for those that want no gradient."""
    field = problem.field
    leaves = pytree.tree_leaves(field.args)
    per_row = {id(x.tensor) for x in leaves if isinstance(x, PerRow) and not field.scalar_time}
    axes = (0, problem.ts.ndim - 1 or None, 0)
    found: list[_Seeds | None] = []
    for i, x in enumerate(inputs):
        if x is None or not x.requires_grad:
            found.append(None)
        elif i < len(axes):
            found.append(_Seeds(x.detach(), axes[i]))
        elif id(x) in per_row:
            found.append(_Seeds(x.detach(), 0, field.batch))
        else:
            found.append(_Seeds(x.detach()))
    return found


class _Run:
    """A solve with its sensitivities; see :class:`odeum.gradient.operation.Run`.

    Args:
        cut: the problem.
        seeds: of every input.
        chunk: seeds carried along at a time.
    """

    gradient = "forward"
    needs_outputs = False

    def __init__(self, cut: Isolated, seeds: list[_Seeds | None], chunk: int) -> None:
        self._cut = cut
        self._seeds = seeds
        self._chunk = chunk
        # The row of each mark.
        self._rows: Tensor | None = None
        # Of the states at outputs and at marks, a pair for each chunk of seeds,
        # [seeds, time, batch, dim] and [seeds, marks, dim].
        self._sensitivities: list[tuple[Tensor, Tensor]] = []
        # Inputs that the field could read by itself and did not.
        self._unread: set[int] = set()

    def solve(self) -> Outcome:
        """Solves it, and its sensitivities."""
        watches = tuple(_copied(watch) for watch in self._cut.problem.watches)
        outcome = self._cut.problem.solve(self._cut.k0)
        self._rows = outcome.marked.rows
        wanted = [(i, seeds) for i, seeds in enumerate(self._seeds) if seeds is not None]
        primals = tuple(seeds.like for _, seeds in wanted)
        problem = replace(self._cut.problem, on_failure=None, on_progress=None)

        def states(field: RowField, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            again = replace(
                problem, field=field, watches=tuple(_copied(watch) for watch in watches)
            )
            moved = dict(zip((i for i, _ in wanted), inputs, strict=True))
            return self._moved(again, moved)

        n = [seeds.n for _, seeds in wanted]
        for numbers in torch.arange(sum(n), device=problem.y0.device).split(self._chunk):
            tangents = [seeds.tangents(numbers - sum(n[:i])) for i, (_, seeds) in enumerate(wanted)]
            with FORWARD_MODE:
                ys, marked = _derivatives(states, problem.field, primals, tangents)
            # What a row that fails leaves behind has no derivative.
            ys = ys.masked_fill(~outcome.ys.isfinite(), 0.0)
            self._sensitivities.append((ys, marked))
        return outcome

    def _moved(self, problem: Problem, moved: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """States at outputs and at marks, with other tensors for some of the inputs."""
        args = Args(problem.field.args)
        first_captured = 3 + len(args.tensors)
        leaves = [moved.get(i, x) for i, x in enumerate(args.tensors, start=3)]
        ts, end = moved.get(1, problem.ts), problem.end
        if end is not None:
            last = ts[-1].reshape(-1, 1)
            end = torch.where(end == last.detach(), last, end)
        problem = replace(
            problem,
            y0=moved.get(0, problem.y0),
            ts=ts,
            end=end,
            start=moved.get(2, problem.start),
            field=problem.field.with_args(args.replaced(leaves)),
        )
        captured = {id(self._cut.inputs[i]): x for i, x in moved.items() if i >= first_captured}
        unread = set(captured)

        def replaced(given: Tensor) -> Tensor:
            unread.discard(id(given))
            return captured.get(id(given), given)

        with ExplicitZeros(), Replacing(replaced):
            outcome = problem.solve()
        self._unread = {i for i in moved if id(self._cut.inputs[i]) in unread}
        return outcome.ys, outcome.marked.y

    def pull(
        self,
        outputs: Sequence[Tensor],
        g_ys: Tensor | None,
        g_marked: Tensor | None,
        *,
        wants_times: bool,
    ) -> Inputs:
        """Contracts the sensitivities with cotangents."""
        parts = []
        for ys, marked in self._sensitivities:
            by_row = ys.new_zeros(len(ys), ys.shape[2])
            if g_ys is not None:
                # Where the state is lost, so is its gradient: it must not spoil the other rows'.
                by_row = by_row + (ys * torch.where(ys != 0, g_ys, 0.0)).sum((1, 3))
            if g_marked is not None and self._rows is not None:
                by_row = by_row.index_add(1, self._rows, (marked * g_marked).sum(2))
            parts.append(by_row)
        by_row = torch.cat(parts)
        gradients: list[Tensor | None] = []
        for i, seeds in enumerate(self._seeds):
            if seeds is None:
                gradients.append(None)
                continue
            gradient = seeds.gradient(by_row[: seeds.n])
            gradients.append(None if i in self._unread else gradient)
            by_row = by_row[seeds.n :]
        return gradients


States = Callable[..., tuple[Tensor, Tensor]]
"""``(field, *inputs) -> (states at outputs, states at marks)``."""


def _derivatives(
    states: States, field: RowField, primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Of the states in each of some directions, [k, time, batch, dim] and [k, marks, dim].

    Raises:
        InputError: where torch does not get through the field.
    """
    load_forward_mode()
    try:
        return torch.func.vmap(
            lambda *along: torch.func.jvp(partial(states, field), tuple(primals), along)[1],
            randomness="same",
        )(*tangents)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = error
    # Numbers decided on, own backward passes: without a transform a field may do more.
    field = field.with_field(OnLeaves(field.field))
    try:
        each = [_derivative(states, field, primals, along) for along in zip(*tangents, strict=True)]
    except RuntimeError as error:
        raise InputError(
            f'gradient="forward" does not get through the field ({str(error).splitlines()[0]}): '
            'differentiate inside it by torch.func.grad, or use gradient="discrete"'
        ) from reason
    ys, marked = zip(*each, strict=True)
    return torch.stack(ys), torch.stack(marked)


def _derivative(
    states: States, field: RowField, primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Of the states in one direction, by dual numbers."""
    # Torch switches tangents off while it runs the forward pass of a Function.
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(primal.contiguous(), tangent.contiguous())
            for primal, tangent in zip(primals, tangents, strict=True)
        ]
        outputs = [forward_ad.unpack_dual(x) for x in states(field, *duals)]
        ys, marked = (
            torch.zeros_like(x.primal) if x.tangent is None else x.tangent for x in outputs
        )
    return ys, marked


def _copied(watch: Watch) -> Watch:
    """A watch that looks on from where this one stands, and leaves it there."""
    other = copy(watch)
    for name, value in vars(watch).items():
        if isinstance(value, torch.Tensor):
            setattr(other, name, value.clone())
    return other
