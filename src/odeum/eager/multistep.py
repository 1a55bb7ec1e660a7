"""One step of an Adams method on every row, from derivatives at times the solve has passed.

The derivative is a polynomial through the times at hand, integrated over the step: the times of
each row give its weights, whatever its steps were (Hairer, Norsett & Wanner I, III.1 and III.5).
Which steps are taken is the loop's business.
"""

from dataclasses import replace

import torch

from odeum.eager import explicit
from odeum.eager.explicit import combine, weights_of
from odeum.eager.field import RowField
from odeum.eager.hermite import hermite
from odeum.eager.jacobian import jacobian
from odeum.eager.linear import Factorised
from odeum.eager.newton import Precision, Solved, solve_stages
from odeum.eager.recording import carries_tangents, is_recorded, n_derivatives, unrecorded
from odeum.eager.stepper import Memory, Step, Work
from odeum.methods import Adams
from odeum.tableaus import RK4
from odeum.types import Tensor


def quadrature(nodes: Tensor) -> Tensor:
    """Weights of integration from 0 to 1 that are exact for polynomials of degree below n.

    Args:
        nodes: where the integrand is known, [rows, n], those of a row distinct.

    Returns:
        [rows, n], the same bits whatever rows stand beside one.

    Example:
        >>> quadrature(torch.tensor([[0.0, -1.0]]))
        tensor([[ 1.5000, -0.5000]])
    """
    n = nodes.shape[1]
    is_other = ~torch.eye(n, dtype=torch.bool, device=nodes.device)
    # Per node, the product of (s - node) over the others: as coefficients of 1, s, s^2, ...
    product = torch.zeros(len(nodes), n, n, dtype=nodes.dtype, device=nodes.device)
    product[:, :, 0] = 1
    scale = torch.ones_like(nodes)
    for i, node in enumerate(nodes.unbind(1)):
        times_s = torch.nn.functional.pad(product[..., :-1], (1, 0))
        grown = times_s - node.view(-1, 1, 1) * product
        product = torch.where(is_other[i].unsqueeze(-1), grown, product)
        scale = torch.where(is_other[i], scale * (nodes - node.unsqueeze(-1)), scale)
    integral = torch.zeros_like(nodes)
    for power, coefficients in enumerate(product.unbind(-1)):
        integral = integral + coefficients / (power + 1)
    return integral / scale


class AdamsStepper:
    """Adams-Bashforth or Adams-Moulton; see :class:`~odeum.eager.stepper.Stepper`.

    A step's ``ks`` are its mean slope and the derivatives at its start and end. The memory holds
    times and derivatives before that of the start, the last first. While there are too few, steps
    are those of the classical Runge-Kutta method.

    Args:
        method: the method.
        like: the state, for its dtype and device.

    Example:
        >>> stepper = AdamsStepper(Adams(order=4, implicit=False), torch.ones(1, 1))
        >>> stepper.order, stepper.n_evaluations
        (4, 1)
    """

    error_order: int | None = None
    end_stage: int | None = 2
    n_extra = 0

    def __init__(self, method: Adams, like: Tensor) -> None:
        like = like.detach()
        self.order = method.order
        self.implicit = method.implicit
        self.n_evaluations = 0 if method.implicit else 1
        self.dense = hermite(like)
        self._given = method.jacobian
        self._precision = Precision.within(None, like.dtype)
        self._n_past = method.order - (2 if method.implicit else 1)
        self._starter = explicit.stepper(RK4, like.dtype, like.device)
        self._start_weights = weights_of(RK4.b, like)
        first = 1 if method.implicit else 0
        nodes = torch.arange(first, first - method.order, -1, device=like.device)
        self._even_nodes = nodes.double().unsqueeze(0)
        self._even_weights = quadrature(self._even_nodes)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Takes one step."""
        step = self._take(field, t, h, y, k0, memory)
        if not is_recorded():
            return step
        fine = field.state(step.y1).isfinite().all(-1)
        if step.solved is not None:
            fine = fine & step.solved.squeeze(-1)
        if bool(fine.all()):
            return step
        # Backpropagation through rows that fail would turn the zeros that come in into NaN.
        at = fine.nonzero().squeeze(-1)
        y1, *ks = (x.detach() for x in (step.y1, *step.ks))
        if len(at):
            past = tuple(x[at] for x in memory)
            again = self._take(field.part(at), t[at], h[at], y[at], k0[at], past)
            new = (again.y1, *again.ks)
            y1, *ks = (old.index_copy(0, at, x) for old, x in zip((y1, *ks), new, strict=True))
        return replace(step, y1=y1, ks=ks)

    def _take(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        if len(memory) < 2 * self._n_past:
            step = self._start(field, t, h, y, k0)
        elif self.implicit:
            step = self._moulton(field, t, h, y, k0, memory)
        else:
            weights = self._weights(t, h, [t, *memory[::2]]).to(y.dtype)
            slope = _weighted([k0, *memory[1::2]], weights)
            step = _ended(field, t, h, y, k0, slope)
        return replace(step, memory=(t, k0, *memory)[: 2 * self._n_past])

    def _start(self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor) -> Step:
        taken = self._starter.step(field, t, h, y, k0)
        slope = combine(taken.ks, self._start_weights)
        none = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        n_evaluations = none + self._starter.n_evaluations + 1 - self.n_evaluations
        work = Work(n_evaluations, none, none)
        return replace(_ended(field, t, h, y, k0, slope), work=work)

    def _moulton(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Solves ``k1 = f(t1, base + h beta k1)`` for the derivative at the end.

        Recorded by autograd it is one step of Newton's iteration from the solution, with the
        Jacobian there: this leaves it where it is, and differentiates it as the implicit function
        theorem does.
        """
        hy = h.to(y.dtype)
        t1 = (t + h).to(y.dtype)
        weights = self._weights(t, h, [t + h, t, *memory[::2]]).to(y.dtype)
        slope = _weighted([k0, *memory[1::2]], weights[:, 1:])
        reach = hy * weights[:, :1]
        alone = field.without_integrals()
        base, state, guess = (field.state(x) for x in (torch.addcmul(y, hy, slope), y, k0))

        def residual(k: Tensor, at: Tensor | None) -> Tensor:
            if at is None:
                return alone(t1, torch.addcmul(base, reach, k)) - k
            return alone.part(at)(t1[at], torch.addcmul(base[at], reach[at], k)) - k

        with unrecorded():
            matrix = self._matrix(alone, t1, reach, base, guess)
            found: Solved = solve_stages(residual, matrix, guess, reach, state, self._precision)
        k1 = found.k
        if is_recorded():
            with unrecorded():
                matrix = self._matrix(alone, t1, reach, base, k1)
            for _ in range(max(n_derivatives(), 1)):
                k1 = k1 + matrix.solve(residual(k1, None))
        k1 = field.completed(t1, torch.addcmul(base, reach, k1), k1)
        slope = torch.addcmul(slope, weights[:, :1], k1)
        one = torch.ones_like(found.n_iterations)
        return Step(
            t,
            h,
            y,
            torch.addcmul(y, hy, slope),
            [slope, k0, k1],
            solved=found.converged,
            work=Work(found.n_iterations, one, one),
        )

    def _matrix(
        self, field: RowField, t1: Tensor, reach: Tensor, base: Tensor, k: Tensor
    ) -> Factorised:
        """``1 - h beta J`` at the state that a derivative ``k`` leads to."""
        found = jacobian(field, t1, torch.addcmul(base, reach, k), self._given)
        return Factorised.shifted(reach, found)

    def _weights(self, t: Tensor, h: Tensor, times: list[Tensor]) -> Tensor:
        """Weights of the derivatives at ``times`` in the mean slope, [rows, times], float64."""
        past = torch.cat(times, 1)
        nodes = ((past - t) / h).double()
        if carries_tangents() or (torch.is_grad_enabled() and nodes.requires_grad):
            return quadrature(nodes)
        # Where steps are equal but for the rounding of times, so are the weights.
        rounding = 16 * torch.finfo(t.dtype).eps * past.abs().amax(1, keepdim=True) / h.abs()
        even = ((nodes - self._even_nodes).abs() <= rounding).all(1, keepdim=True)
        if bool(even.all()):
            return self._even_weights.expand(len(t), -1)
        return torch.where(even, self._even_weights, quadrature(nodes))

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
        """The same step: its derivatives are recorded with all they came from."""
        return Step(t, h, y, torch.addcmul(y, h.to(y.dtype), ks[0]), ks)

    def errors(self, step: Step) -> list[Tensor]:
        """None: there is no estimate."""
        return []

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """The mean slope and the derivatives at both ends."""
        return ks

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """None."""
        return []


def _ended(field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, slope: Tensor) -> Step:
    """The step of that mean slope, with the derivative at its end."""
    t1, y1 = (t + h).to(y.dtype), torch.addcmul(y, h.to(y.dtype), slope)
    k1 = field(t1, y1)
    if is_recorded():
        fine = field.state(k1).isfinite().all(-1)
        if not bool(fine.all()):
            # As in a row that fails: the next step of this one will.
            at = fine.nonzero().squeeze(-1)
            k1 = k1.detach()
            if len(at):
                k1 = k1.index_copy(0, at, field.part(at)(t1[at], y1[at]))
    return Step(t, h, y, y1, [slope, k0, k1])


def _weighted(ks: list[Tensor], weights: Tensor) -> Tensor:
    """``sum_j w_j k_j`` with weights of each row's own, [rows, n]."""
    first, *others = zip(ks, weights.split(1, 1), strict=True)
    total = first[0] * first[1]
    for k, weight in others:
        total = torch.addcmul(total, weight, k)
    return total
