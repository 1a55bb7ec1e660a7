"""``odeum.solve``: joins a field, a method, an engine and a gradient."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from odeum import engines, methods
from odeum.arguments import breaks_of, check_words, events_of, output_times, tolerance_of
from odeum.eager.autocast import Autocast
from odeum.eager.event import Event
from odeum.eager.failures import solve_error
from odeum.eager.field import RowField, per_row
from odeum.eager.integrals import Integrand, running_integrals
from odeum.eager.options import StepOptions
from odeum.eager.problem import Problem
from odeum.eager.recording import carries_tangents, is_transformed, n_transforms
from odeum.eager.records import Failure
from odeum.engines import Solved
from odeum.errors import InputError
from odeum.gradient.registry import Gradient, gradient_of, recorded_by_torch, without_gradient
from odeum.mapped import (
    Layout,
    lifted_event,
    lifted_method,
    map_to_solve,
    rows_explained,
    unlifted,
)
from odeum.phases import Firings, solve_in_phases
from odeum.progress import progress_bar
from odeum.results import event_record_of, integrals_of, interpolant_of, states_of
from odeum.solution import Solution, spread
from odeum.tree import structure_of
from odeum.types import Field, PyTree, Tensor


def solve(
    field: Field,
    y0: PyTree,
    ts: Tensor,
    args: PyTree = None,
    *,
    method: str | methods.Method = "tsit5",
    rtol: float | Tensor = 1e-4,
    atol: float | Tensor = 1e-6,
    gradient: str | Gradient = "discrete",
    engine: str = "auto",
    coupling: str = "independent",
    step: StepOptions | None = None,
    events: Event | Sequence[Event] | None = None,
    breaks: Tensor | Sequence[float] | None = None,
    integrals: Mapping[str, Integrand] | None = None,
    dense: bool = False,
    on_failure: str = "raise",
    progress: bool = False,
) -> Solution:
    """Solves ``dy/dt = f(t, y)`` from ``y0`` at ``ts[0]`` to ``ts[-1]``.

    Each row of the batch is a system of its own, with its own times, steps and failures.

    Args:
        field: ``f(t, y)`` or ``f(t, y, args)``, returning ``dy/dt`` in the structure of ``y``. Rows
            must not depend on one another: those that have finished are no longer evaluated.
        y0: [batch, *shape], or [dim] for one system, or a pytree of such tensors.
        ts: output times, [time] or [time, batch] per row; strictly monotone either way. ``y0``
            holds at the first.
        args: handed to the field unchanged, but for ``odeum.per_row(tensor)``, of which the field
            sees the entries of its rows.
        method: a name from ``odeum.methods.names()`` or an object from ``odeum.methods.get``.
            Methods without an error estimate step from output to output unless
            ``step=odeum.StepOptions(fixed=...)`` says otherwise.
        rtol: relative tolerance per step, > 0; or a tensor that broadcasts against one row.
        atol: absolute tolerance in units of ``y``, >= 0; likewise.
        gradient: how the solve is differentiated, a name or an object with options from
            :mod:`odeum.gradient`. Exact for the steps taken: "discrete" (stores one state a
            step), :class:`~odeum.gradient.Discrete` (a given number of states), "reversible" (of
            a reversible form of explicit Runge-Kutta methods: few states stored, twice the
            evaluations), "autograd" (backpropagation through all operations), "forward"
            (sensitivities carried along with the state, for few parameters). As accurate as the
            tolerance: "adjoint" (the adjoint equation, solved backwards beside the state: memory
            does not grow with the steps) and "interpolated" (the same over the stored solution,
            where that cannot be solved backwards). And "none". Gradients reach ``y0``, ``ts``,
            ``args`` and every tensor the field uses, its parameters above all. For SciPy's
            methods "discrete" means "adjoint". Inside ``torch.func`` transforms and forward-mode
            differentiation, "discrete" and "autograd" are the derivative of the same steps, by
            torch itself.
        engine: "fused" compiles the field and the whole solve into one kernel, forward and
            backward (about a second, once; kernels are kept on disk); "eager" runs torch's
            operations; "auto" takes the fused engine where it can, from a field's second solve
            on, and at once where a kernel is there or the solve is long.
        coupling: "independent", or "joint": the batch is one system with one step size.
        step: bounds on the steps.
        events: what to look for on the way: :class:`odeum.Event` or several.
        breaks: times, shared by all rows, at which the field jumps: a step ends on each, and the
            next one starts from the field on the other side.
        integrals: what to integrate along the solution, by name: functions ``g(field, t, y, f)`` of
            the field, a state and the field there, one number per row; see
            :mod:`odeum.regularisers`. The steps are those that they would be without.
        dense: keep the interpolant, so that the solution can be called at any time.
        on_failure: "raise" a SolveError as soon as a row fails, or "mask": NaN after its failure,
            the other rows unharmed.
        progress: show a progress bar.

    Returns:
        The states at ``ts``, [time, batch, *shape], with a status and statistics per row.

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: where a row fails, unless ``on_failure="mask"``.

    Example:
        >>> import odeum
        >>> ts = torch.linspace(0, 1, 3)
        >>> odeum.solve(lambda t, y: -y, torch.ones(1, 1), ts).ys[:, 0, 0]
        tensor([1.0000, 0.6065, 0.3679])
    """
    usual = not (events or breaks is not None or integrals or dense or progress)
    kind = None
    if usual and coupling == "independent":
        kind = engines.kind_of(engine, field, y0, ts, method, rtol, atol, gradient, step)
    if kind is not None:
        again = engines.solve_again(
            kind,
            field,
            y0,
            ts,
            args,
            lambda: (
                solve(
                    field,
                    y0,
                    ts,
                    args,
                    method=method,
                    rtol=rtol,
                    atol=atol,
                    gradient=gradient,
                    engine="eager",
                    step=step,
                    on_failure=on_failure,
                ).ys
            ),
            raises=on_failure == "raise",
        )
        if again is not None:
            return again
    check_words(engine=engine, coupling=coupling, on_failure=on_failure)
    solver = gradient_of(gradient)
    if not callable(field):
        raise InputError(
            f"field is a {type(field).__name__}: give a function f(t, y) or an nn.Module"
        )
    chosen_method = methods.get(method)
    looked_for = events_of(events)
    structure = structure_of(y0)
    ts = output_times(ts, structure)
    joint = coupling == "joint"
    if is_transformed() or carries_tangents():
        solver = recorded_by_torch(solver)
        if looked_for and n_transforms() > 1:
            raise InputError(
                "event times have first derivatives only: take second ones without events"
            )
        row_field = RowField(field, structure, args, joint=joint)
        found = map_to_solve(row_field, y0, ts, (rtol, atol, breaks))
        if found is not None:
            if integrals:
                raise InputError("vmap does not go with integrals=: give the rows one batch axis")
            layout = Layout.of(found, row_field, y0, ts)
            return _solved_as_rows(
                field,
                layout,
                ts,
                method=lifted_method(chosen_method, layout),
                rtol=rtol,
                atol=atol,
                gradient=solver,
                step=step,
                events=[lifted_event(event, layout) for event in looked_for],
                breaks=breaks,
                dense=dense,
                on_failure=on_failure,
                progress=progress,
            )
    flat = structure.flatten(y0)
    n_rows = len(flat)
    if joint:
        flat = flat.reshape(1, -1)
    running = running_integrals(integrals, y0, chosen_method)
    autocast = Autocast.now(flat.device)
    row_field = RowField(field, structure, args, joint=joint, integrals=running, autocast=autocast)
    tolerance = tolerance_of(rtol, atol, structure, copies=n_rows if joint else 1)
    if running is not None:
        none = flat.new_zeros(n_rows, len(running)).reshape(len(flat), -1)
        flat = torch.cat([flat, none], -1)
        tolerance = tolerance.padded(none.shape[1])
    with (
        progress_bar(ts, enabled=progress) as on_progress,
        autocast.solver() if autocast else nullcontext(),
    ):
        problem = Problem(
            field=row_field,
            y0=flat,
            ts=ts,
            method=chosen_method,
            tolerance=tolerance,
            steps=step or StepOptions(),
            dense=dense,
            on_failure=_raiser(len(flat)) if on_failure == "raise" else None,
            on_progress=on_progress,
            on_backward=lambda work: stats.add_backward(work.spread(structure.batch_shape)),
        )
        solved, firings = _solved(problem, solver, engine, looked_for, breaks_of(breaks))
    if kind is not None:
        engines.remember(kind, solved, solver)
    outcome = solved.outcome
    stats = outcome.stats.spread(structure.batch_shape)
    return Solution(
        ts=ts,
        ys=states_of(outcome.ys, row_field),
        status=spread(outcome.status, structure.batch_shape),
        stats=stats,
        engine=solved.engine,
        engine_reason=solved.reason,
        integrals=integrals_of(outcome.ys, row_field),
        events=[event_record_of(fired, problem) for fired in firings],
        interpolate=interpolant_of(outcome, problem) if dense else None,
    )


def _solved_as_rows(field: Field, layout: Layout, ts: Tensor, **options: Any) -> Solution:
    """A solve inside a vmap, by one of a larger batch."""
    rows = torch.arange(layout.ts.shape[1], device=ts.device)
    with rows_explained(layout):
        solution = solve(layout.lifted(field), layout.y0, layout.ts, per_row(rows), **options)
    return unlifted(solution, layout, ts)


def _solved(
    problem: Problem,
    gradient: Gradient,
    engine: str,
    events: list[Event],
    breaks: Tensor,
) -> tuple[Solved, list[Firings]]:
    if not events and not len(breaks):
        return engines.solve(problem, gradient, engine), []
    why = "events and breaks are the eager engine's"
    if engine == "fused":
        raise engines.refusal(why)
    with torch.set_grad_enabled(torch.is_grad_enabled() and gradient is not without_gradient):
        outcome, firings = solve_in_phases(problem, gradient, events, breaks)
    return Solved(outcome, "eager", why), firings


def _raiser(n_rows: int) -> Callable[[Failure], None]:
    def raise_error(failure: Failure) -> None:
        raise solve_error(failure, n_rows)

    return raise_error
