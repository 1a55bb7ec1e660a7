"""One implicit Runge-Kutta step on every row.

Each row has its own Jacobian, its own factorisation and its own iteration. Backpropagation goes
through the solution of the stage equations by the implicit function theorem, not through the
iteration that found it.
"""

from dataclasses import dataclass, replace

import torch

from odeum.eager.control import Tolerance
from odeum.eager.dense import Interpolation
from odeum.eager.explicit import Weights, combine, weights_of
from odeum.eager.field import RowField
from odeum.eager.jacobian import JacobianFunction, jacobian
from odeum.eager.newton import SLOW_RATE, Factorised, Precision, solve_stages
from odeum.eager.recording import is_recorded, n_derivatives, unrecorded
from odeum.eager.stepper import Memory, Step, Work
from odeum.tableaus import RKTableau
from odeum.types import Tensor


@dataclass(frozen=True)
class Block:
    """Stages that are solved for together: one of a diagonally implicit method, or all.

    Attributes:
        nodes: of each stage.
        earlier: weights of the stages before the block, per stage; None where there are none.
        coupling: weights of the block's own stages, [stages, stages].
        implicit: whether there is anything to solve.
    """

    nodes: list[float]
    earlier: list[Weights | None]
    coupling: Tensor
    implicit: bool

    def bases(self, y: Tensor, hy: Tensor, ks: list[Tensor]) -> Tensor:
        """What the stages before contribute to the block's states, [rows, stages, dim]."""
        return torch.stack(
            [
                y if weights is None else torch.addcmul(y, hy, combine(ks, weights))
                for weights in self.earlier
            ],
            1,
        )

    def states(self, bases: Tensor, hy: Tensor, ks: Tensor) -> Tensor:
        """The stages' states, [rows, stages, dim], for derivatives of the same shape."""
        return bases + hy.unsqueeze(-1) * (self.coupling @ ks)

    def times(self, t: Tensor, h: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The stages' times, [rows, 1] each."""
        return [(t + node * h).to(dtype) for node in self.nodes]

    def matrix(self, hy: Tensor, jacobians: Tensor) -> Tensor:
        """``1 - h a_ij J_i``, [rows, stages * dim, stages * dim].

        Args:
            hy: step sizes in the state's dtype, [rows, 1].
            jacobians: per stage, [rows, stages, dim, dim]; or one for all, [rows, 1, dim, dim].
        """
        n_rows, _, dim, _ = jacobians.shape
        n = len(self.nodes)
        coupled = torch.einsum("ij,rimn->rimjn", self.coupling, jacobians.expand(-1, n, -1, -1))
        eye = torch.eye(n * dim, dtype=hy.dtype, device=hy.device)
        return eye - hy.unsqueeze(-1) * coupled.reshape(n_rows, n * dim, n * dim)


def _blocks(tableau: RKTableau, like: Tensor) -> list[Block]:
    if tableau.fully_implicit:
        coupling = like.new_tensor([[float(x) for x in row] for row in tableau.a])
        return [Block([float(c) for c in tableau.c], [None] * len(tableau.c), coupling, True)]
    blocks = []
    for i, (row, node) in enumerate(zip(tableau.a, tableau.c, strict=True)):
        earlier = weights_of(row[:i], like) if any(row[:i]) else None
        coupling = like.new_tensor([[float(tableau.diagonal[i])]])
        blocks.append(Block([float(node)], [earlier], coupling, bool(tableau.diagonal[i])))
    return blocks


class ImplicitStepper:
    """A tableau with implicit stages, in the dtype and on the device of a state.

    Its memory holds each row's Jacobian, the time it was evaluated at, and whether convergence
    was slow with it.

    Args:
        tableau: the method.
        like: the state.
        tolerance: the error allowed in a step; None for stages that are right to rounding.
        given: the user's Jacobian, where there is one.
    """

    implicit = True

    def __init__(
        self,
        tableau: RKTableau,
        like: Tensor,
        tolerance: Tolerance | None,
        given: JacobianFunction | None,
    ) -> None:
        like = like.detach().new_empty(0)
        interpolant = tableau.interpolant
        self.order = tableau.order
        self.error_order = tableau.error_order if tableau.adaptive else None
        self.n_evaluations = 0
        self.end_stage = tableau.end_stage
        self.n_extra = 0
        self.dense = Interpolation(interpolant.weights, tableau.end_weights, like)
        self._weighs_end = tableau.n_derivatives > tableau.n_stages
        self._given = given
        self._precision = Precision.within(tolerance, like.dtype)
        self._keeps_jacobians = tolerance is not None
        self._b = weights_of(tableau.b, like)
        self._b_error = [weights_of(weights, like) for weights in tableau.b_error or ()]
        self._blocks = _blocks(tableau, like)
        self._nodes = [float(c) for c in tableau.c]
        self._a = [weights_of(row, like) for row in tableau.a]
        self._starts_with_k0 = not self._blocks[0].implicit
        self._couples_all = tableau.fully_implicit
        self._filter_gamma = float(tableau.filter_gamma) if tolerance is not None else 0.0

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Tries one step; with autograd on, records it."""
        with unrecorded():
            alone = field.without_integrals()
            step = self._find(alone, t, h, field.state(y), field.state(k0), memory)
        if not is_recorded():
            return self._with_integrals(field, step, y, k0)
        again = self.record(field, t, h, y, k0, step.ks, with_end=True)
        return replace(step, t=t, h=h, y=y, y1=again.y1, ks=again.ks, k0=k0)

    def _with_integrals(self, field: RowField, step: Step, y: Tensor, k0: Tensor) -> Step:
        """The step of a state with the integrals along it: nothing has to be solved for those.

        Args:
            field: the field with its integrals.
            step: the step of the state alone.
            y: the state and the integrals at its start.
            k0: their derivatives there.
        """
        if field.integrals is None:
            return step
        hy = step.h.to(y.dtype)
        ks = [k0] if self._starts_with_k0 else []
        for node, weights, k in list(zip(self._nodes, self._a, step.ks, strict=True))[len(ks) :]:
            stage = torch.addcmul(step.y, hy, combine(step.ks, weights))
            ks.append(field.completed((step.t + node * step.h).to(y.dtype), stage, k))
        integrals = torch.addcmul(y, hy, combine(ks, self._b))[:, field.dim :]
        return replace(step, y=y, y1=torch.cat([step.y1, integrals], -1), ks=ks, k0=k0)

    def _find(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        n_jacobians = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        if memory and self._keeps_jacobians:
            jacobians, evaluated, slow = memory[:3]
            at = (slow & (evaluated != t)).squeeze(-1).nonzero().squeeze(-1)
        else:
            jacobians = y.new_empty(len(y), y.shape[1], y.shape[1])
            evaluated = t
            at = torch.arange(len(y), device=y.device)
        if len(at):
            part = field if len(at) == len(y) else field.part(at)
            new = jacobian(part, t[at].to(y.dtype), y[at], self._given)
            jacobians = jacobians.index_copy(0, at, new)
            evaluated = evaluated.index_copy(0, at, t[at])
            n_jacobians[at] += 1
        guess = _Guess(self.dense, *memory[3:]) if memory else None
        step = self._with_jacobians(field, t, h, y, k0, guess, jacobians, evaluated, n_jacobians)
        assert step.solved is not None
        # Where the iteration fails, the Jacobian may be too old rather than the step too large.
        again = (~step.solved & (evaluated != t)).squeeze(-1).nonzero().squeeze(-1)
        if len(again):
            rows = (t[again], h[again], y[again], k0[again])
            step = _replaced(step, again, self._find(field.part(again), *rows, ()))
        return step

    def _with_jacobians(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        guess: "_Guess | None",
        jacobians: Tensor,
        evaluated: Tensor,
        n_jacobians: Tensor,
    ) -> Step:
        hy = h.to(y.dtype)
        ks: list[Tensor] = []
        solved = torch.ones_like(t, dtype=torch.bool)
        rate = torch.zeros_like(hy)
        n_evaluations = torch.zeros_like(n_jacobians)
        matrices: dict[float, Factorised] = {}
        for block in self._blocks:
            if not ks and self._starts_with_k0:
                ks.append(k0)
                continue
            bases = block.bases(y, hy, ks)
            times = block.times(t, h, y.dtype)
            if not block.implicit:
                ks.append(field(times[0], bases[:, 0]))
                n_evaluations += 1
                continue
            key = float(block.coupling[0, 0])
            if key not in matrices:
                matrices[key] = Factorised(block.matrix(hy, jacobians.unsqueeze(1)))
            matrix = matrices[key]
            found = solve_stages(
                _Residual(block, field, times, bases, hy),
                matrix,
                self._first_guess(block, t, h, guess, ks[-1] if ks else k0),
                hy,
                y,
                self._precision,
            )
            ks += found.k.split(y.shape[1], -1)
            solved = solved & found.converged
            rate = torch.maximum(rate, found.rate)
            n_evaluations += found.n_iterations * len(block.nodes)
        smoother: Factorised | None = None
        if self._filter_gamma and not self._couples_all:
            smoother = matrices[self._filter_gamma]
        elif self._filter_gamma:
            smoother = Factorised.shifted(self._filter_gamma * hy, jacobians)
        n_factorisations = len(matrices) + (smoother is not None and self._couples_all)
        return Step(
            t,
            h,
            y,
            torch.addcmul(y, hy, combine(ks, self._b)),
            ks,
            k0,
            solved,
            smoother,
            Work(n_evaluations, n_jacobians, torch.full_like(n_jacobians, n_factorisations)),
            (jacobians, evaluated, rate > SLOW_RATE, t, h, torch.stack(ks, 1)),
        )

    def _first_guess(
        self, block: Block, t: Tensor, h: Tensor, guess: "_Guess | None", nearest: Tensor
    ) -> Tensor:
        """Where the iteration for a block's derivatives begins, [rows, stages * dim]."""
        if guess is None or self._weighs_end:
            return torch.cat([nearest] * len(block.nodes), -1)
        return torch.cat([guess(t + node * h, nearest) for node in block.nodes], -1)

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
        """A step whose derivatives have been found, for autograd to record.

        One step of Newton's iteration with the exact Jacobians leaves the derivatives where they
        are, and its derivative is the one of the implicit function theorem. Each further step
        makes the next higher derivative right.
        """
        whole, whole_y, whole_k0 = field, y, k0
        field, y, k0 = field.without_integrals(), field.state(y), field.state(k0)
        hy = h.to(y.dtype)
        found, ks = [whole.state(k) for k in ks], []
        for block in self._blocks:
            if not ks and self._starts_with_k0:
                ks.append(k0)
                continue
            bases = block.bases(y, hy, ks)
            times = block.times(t, h, y.dtype)
            if not block.implicit:
                ks.append(field(times[0], bases[:, 0]))
                continue
            k = torch.cat([x.detach() for x in found[len(ks) : len(ks) + len(times)]], -1)
            residual = _Residual(block, field, times, bases, hy)
            with unrecorded():
                states = residual.states(k, None)
                jacobians = [
                    jacobian(field, t, y, self._given)
                    for t, y in zip(times, states.unbind(1), strict=True)
                ]
                matrix = Factorised(block.matrix(hy, torch.stack(jacobians, 1)))
            for _ in range(max(n_derivatives(), 1)):
                k = k + matrix.solve(residual(k, None))
            ks += k.split(y.shape[1], -1)
        step = Step(t, h, y, torch.addcmul(y, hy, combine(ks, self._b)), ks)
        return self._with_integrals(whole, step, whole_y, whole_k0)

    def errors(self, step: Step) -> list[Tensor]:
        """The difference from the embedded solution, without its stiff components.

        Source:
            Hosea & Shampine, Analysis and implementation of TR-BDF2, Appl. Numer. Math. 20 (1996).
        """
        assert step.k0 is not None
        ks = [step.k0, *step.ks] if self._couples_all else step.ks
        errors = [combine(ks, weights) * step.h.to(step.y.dtype) for weights in self._b_error]
        if step.matrix is None:
            return errors
        return [step.matrix.solve(error[:, : step.matrix.size]) for error in errors]

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """The stages, and the derivative at the end where the interpolant weighs it."""
        return [*ks, k1] if self._weighs_end and k1 is not None else ks

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """None: the stages are enough."""
        return []


MAX_EXTRAPOLATION = 3.0
"""Fraction of the last try's step up to which its polynomial is a good guess."""


@dataclass(frozen=True)
class _Guess:
    """The polynomial of each row's last try, wherever it came to."""

    dense: Interpolation
    t: Tensor
    h: Tensor
    ks: Tensor

    def __call__(self, t: Tensor, nearest: Tensor) -> Tensor:
        """Derivatives at times ``t``, or ``nearest`` where those are too far away."""
        theta = ((t - self.t) / self.h).squeeze(-1)
        found = self.dense.derivative(theta, self.ks.unbind(1))
        useful = found.isfinite().all(-1) & (theta <= MAX_EXTRAPOLATION)
        return torch.where(useful.unsqueeze(-1), found, nearest)


@dataclass(frozen=True)
class _Residual:
    """``f(t_i, base_i + h sum_j a_ij k_j) - k_i`` of a block's stages, [rows, stages * dim]."""

    block: Block
    field: RowField
    times: list[Tensor]
    bases: Tensor
    hy: Tensor

    def states(self, k: Tensor, at: Tensor | None) -> Tensor:
        """The stages' states, [rows, stages, dim]."""
        bases, hy = (x if at is None else x[at] for x in (self.bases, self.hy))
        return self.block.states(bases, hy, k.view(bases.shape))

    def __call__(self, k: Tensor, at: Tensor | None) -> Tensor:
        """The residual, of rows at positions ``at`` where given."""
        field = self.field if at is None else self.field.part(at)
        states = self.states(k, at).unbind(1)
        times = self.times if at is None else [t[at] for t in self.times]
        return torch.cat([field(t, y) for t, y in zip(times, states, strict=True)], -1) - k


def _replaced(step: Step, at: Tensor, other: Step) -> Step:
    """A step with the rows at ``at`` from another one, the work of both added up."""
    assert step.work is not None
    assert other.work is not None
    assert step.solved is not None
    assert other.solved is not None
    work = Work(
        step.work.n_evaluations.index_add(0, at, other.work.n_evaluations),
        step.work.n_jacobians.index_add(0, at, other.work.n_jacobians),
        step.work.n_factorisations.index_add(0, at, other.work.n_factorisations),
    )
    return replace(
        step,
        y1=step.y1.index_copy(0, at, other.y1),
        ks=[k.index_copy(0, at, new) for k, new in zip(step.ks, other.ks, strict=True)],
        solved=step.solved.index_copy(0, at, other.solved),
        matrix=None if step.matrix is None else step.matrix.replaced(at, other.matrix),
        work=work,
        memory=tuple(
            old.index_copy(0, at, new) for old, new in zip(step.memory, other.memory, strict=True)
        ),
    )
