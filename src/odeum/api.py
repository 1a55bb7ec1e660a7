"""``odeum.solve``: checks what it is given, and joins a method, an engine and a gradient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum import methods
from odeum.eager.autocast import Autocast
from odeum.eager.control import Tolerance
from odeum.eager.event import Event
from odeum.eager.failures import solve_error
from odeum.eager.field import RowField, per_row
from odeum.eager.integrals import Integrand, running_integrals
from odeum.eager.options import StepOptions
from odeum.eager.outputs import Interpolant
from odeum.eager.problem import Outcome, Problem
from odeum.eager.recording import (
    carries_tangents,
    is_transformed,
    n_transforms,
    unrecorded,
)
from odeum.eager.records import Failure
from odeum.errors import InputError, unknown_name
from odeum.gradient import adjoint, discrete, forward, interpolated, reversible
from odeum.mapped import (
    Layout,
    lifted_event,
    lifted_method,
    map_to_solve,
    rows_explained,
    unlifted,
)
from odeum.phases import Firings, solve_in_phases
from odeum.solution import EventRecord, Solution, spread
from odeum.tree import Structure, structure_of
from odeum.types import Field, PyTree, Tensor


def _without_gradient(problem: Problem) -> Outcome:
    with unrecorded():
        return problem.solve()


Gradient = Callable[[Problem], Outcome]
"""Solves a problem so that backpropagation through its outcome gives the gradient."""

GRADIENTS: dict[str, Gradient] = {
    "discrete": discrete.solve,
    "adjoint": adjoint.solve,
    "interpolated": interpolated.solve,
    "reversible": reversible.Reversible(),
    "forward": forward.Forward(),
    "autograd": Problem.solve,
    "none": _without_gradient,
}
COUPLINGS = ("independent", "joint")
ENGINES = ("auto", "eager")
ON_FAILURE = ("raise", "mask")


def solve(
    field: Field,
    y0: PyTree,
    ts: Tensor,
    args: PyTree = None,
    *,
    method: str | methods.ExplicitRungeKutta = "tsit5",
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
        gradient: "discrete" (the exact gradient of the steps taken; stores one state a step),
            "adjoint" (the adjoint equation, solved backwards in time: memory does not grow with
            the steps, and for SciPy's methods "discrete" means it too) or
            :class:`odeum.gradient.Adjoint` with options, "reversible" (exact too, of a reversible
            form of explicit Runge-Kutta methods: few states stored, twice the evaluations),
            "forward" (sensitivities carried along with the state, for few parameters),
            "autograd" (backpropagation through all operations) or "none". Gradients reach
            ``y0``, ``ts``, ``args`` and every tensor the field uses, its parameters above all.
            Inside ``torch.func`` transforms and forward-mode differentiation, "discrete" and
            "autograd" are the derivative of the same steps, by torch itself.
        engine: "auto" or "eager".
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
    for kind, given, known in (
        ("gradient", gradient, GRADIENTS),
        ("engine", engine, ENGINES),
        ("coupling", coupling, COUPLINGS),
        ("on_failure", on_failure, ON_FAILURE),
    ):
        if given not in known and not (kind == "gradient" and callable(given)):
            raise unknown_name(kind, str(given), known)
    if not callable(field):
        raise InputError(
            f"field is a {type(field).__name__}: give a function f(t, y) or an nn.Module"
        )
    solver = GRADIENTS[gradient] if isinstance(gradient, str) else gradient
    structure = structure_of(y0)
    ts = _times(ts, structure)
    joint = coupling == "joint"
    if is_transformed() or carries_tangents():
        solver = _torch_records(solver)
        if events and n_transforms() > 1:
            raise InputError(
                "event times have first derivatives only: take second ones without events"
            )
        row_field = RowField(field, structure, args, joint=joint)
        found = map_to_solve(row_field, y0, ts, (rtol, atol, breaks))
        if found is not None:
            if integrals:
                raise InputError("vmap does not go with integrals=: give the rows one batch axis")
            layout = Layout.of(found, row_field, y0, ts)
            with rows_explained(layout):
                solution = solve(
                    layout.lifted(field),
                    layout.y0,
                    layout.ts,
                    per_row(torch.arange(layout.ts.shape[1], device=structure.device)),
                    method=lifted_method(methods.get(method), layout),
                    rtol=rtol,
                    atol=atol,
                    gradient=solver,
                    step=step,
                    events=[lifted_event(event, layout) for event in _events(events)],
                    breaks=breaks,
                    dense=dense,
                    on_failure=on_failure,
                    progress=progress,
                )
            return unlifted(solution, layout, ts)
    flat = structure.flatten(y0)
    n_rows = len(flat)
    if joint:
        flat = flat.reshape(1, -1)
    running = running_integrals(integrals, y0, methods.get(method))
    autocast = Autocast.now(flat.device)
    row_field = RowField(field, structure, args, joint=joint, integrals=running, autocast=autocast)
    tolerance = _tolerance(rtol, atol, structure, copies=n_rows if joint else 1)
    if running is not None:
        none = flat.new_zeros(n_rows, len(running)).reshape(len(flat), -1)
        flat = torch.cat([flat, none], -1)
        tolerance = tolerance.padded(none.shape[1])
    with (
        _progress_bar(ts, enabled=progress) as on_progress,
        autocast.solver() if autocast else nullcontext(),
    ):
        problem = Problem(
            field=row_field,
            y0=flat,
            ts=ts,
            method=methods.get(method),
            tolerance=tolerance,
            steps=step or StepOptions(),
            dense=dense,
            on_failure=_raiser(len(flat)) if on_failure == "raise" else None,
            on_progress=on_progress,
            on_backward=lambda work: stats.add_backward(work.spread(structure.batch_shape)),
        )
        outcome, firings = _solved(problem, solver, _events(events), _breaks(breaks))
    stats = outcome.stats.spread(structure.batch_shape)
    return Solution(
        ts=ts,
        ys=_restored(row_field.state(outcome.ys), structure, joint=joint),
        status=spread(outcome.status, structure.batch_shape),
        stats=stats,
        engine="eager",
        engine_reason="the eager engine is the only one so far",
        integrals=_integrals(outcome.ys, row_field),
        events=[_event_record(fired, problem, structure, joint=joint) for fired in firings],
        interpolate=_interpolant(problem, outcome, structure, joint=joint) if dense else None,
    )


def _torch_records(gradient: Gradient) -> Gradient:
    """How the same gradient is had inside a transform, where torch itself differentiates."""
    if gradient in (_without_gradient, GRADIENTS["autograd"]):
        return gradient
    if gradient is GRADIENTS["discrete"] or isinstance(gradient, discrete.Discrete):
        return GRADIENTS["autograd"]
    names = [name for name, known in GRADIENTS.items() if known is gradient]
    raise InputError(
        f"gradient={names[0] if names else gradient!r} has a backward pass of its own, which "
        "torch.func and forward-mode differentiation do not see: inside of them give "
        'gradient="discrete" (then torch records the steps), or differentiate with .backward()'
    )


def _solved(
    problem: Problem,
    gradient: Gradient,
    events: list[Event],
    breaks: Tensor,
) -> tuple[Outcome, list[Firings]]:
    if not events and not len(breaks):
        return gradient(problem), []
    with torch.set_grad_enabled(torch.is_grad_enabled() and gradient is not _without_gradient):
        return solve_in_phases(problem, gradient, events, breaks)


def _events(events: Any) -> list[Event]:
    given = list(events) if isinstance(events, list | tuple) else [events]
    for event in given if events is not None else ():
        if not isinstance(event, Event):
            raise InputError(
                f"events holds a {type(event).__name__}: give odeum.Event(fn, ...) or a list"
            )
    return given if events is not None else []


def _breaks(breaks: Any) -> Tensor:
    try:
        times = torch.as_tensor([] if breaks is None else breaks, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"breaks is a {type(breaks).__name__}: give a list of times") from None
    if times.ndim != 1 or not bool(times.isfinite().all()):
        raise InputError("breaks must be finite times, [breaks], shared by all rows")
    return times.detach().unique()


def _event_record(
    fired: Firings, problem: Problem, structure: Structure, *, joint: bool
) -> EventRecord:
    n_rows = len(problem.y0)
    count = torch.bincount(fired.rows, minlength=n_rows)
    # Chronological within a row: the order of a stable sort by rows.
    order = fired.rows.argsort(stable=True)
    first = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first[fired.rows[order]]
    depth = max(int(count.max()), 1)
    times = fired.t.new_full((depth, n_rows), torch.nan)
    times = times.index_put((rank, fired.rows), fired.t)
    states = fired.y.new_full((depth, n_rows, problem.y0.shape[1]), torch.nan)
    states = states.index_put((rank, fired.rows), fired.y)
    batch = structure.batch_shape
    times = times.expand(-1, *batch) if batch else times[:, 0]
    states = problem.field.state(states)
    return EventRecord(
        times=times, states=_restored(states, structure, joint=joint), count=spread(count, batch)
    )


def _times(ts: Tensor, structure: Structure) -> Tensor:
    """Times no less precise than the state: their rounding would be an error of the solve."""
    if not isinstance(ts, torch.Tensor):
        ts = torch.as_tensor(ts, dtype=structure.dtype)
    return ts.to(structure.device, torch.promote_types(ts.dtype, structure.dtype))


def _tolerance(
    rtol: float | Tensor, atol: float | Tensor, structure: Structure, copies: int
) -> Tolerance:
    """Tolerances checked and spread over a row's numbers."""
    tiny = torch.finfo(structure.dtype).tiny
    spread = [_spread(name, value, structure) for name, value in (("rtol", rtol), ("atol", atol))]
    for name, value, lowest in zip(("rtol", "atol"), spread, (tiny, 0.0), strict=True):
        smallest = float(torch.as_tensor(value).min())
        if not lowest <= smallest < math.inf:
            allowed = "positive" if name == "rtol" else "zero or positive"
            raise InputError(
                f"{name} = {smallest:g}: give a {allowed} number; 1e-3 is loose, 1e-9 tight"
            )
    relative, absolute = (x.repeat(copies) if isinstance(x, Tensor) else x for x in spread)
    # An absolute tolerance of zero must not divide an error of zero by zero.
    if isinstance(absolute, Tensor):
        return Tolerance(relative, absolute.clamp(min=tiny))
    return Tolerance(relative, max(absolute, tiny))


def _spread(name: str, value: Any, structure: Structure) -> float | Tensor:
    if not isinstance(value, torch.Tensor):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{name} is a {type(value).__name__}: give a number or a tensor"
            ) from None
    value = value.detach().to(structure.dtype).to(structure.device)
    try:
        return torch.cat([value.expand(shape).reshape(-1) for shape in structure.shapes])
    except RuntimeError:
        shapes = " and ".join(str(list(shape)) for shape in structure.shapes)
        raise InputError(
            f"{name} has shape {list(value.shape)}: it must broadcast against one row of the "
            f"state, {shapes}"
        ) from None


def _raiser(n_rows: int) -> Callable[[Failure], None]:
    def raise_error(failure: Failure) -> None:
        raise solve_error(failure, n_rows)

    return raise_error


def _restored(flat: Tensor, structure: Structure, *, joint: bool) -> PyTree:
    """States [time, rows, dim] in the user's structure."""
    if joint and structure.batch_shape:
        flat = flat.reshape(len(flat), structure.batch_shape[0], -1)
    return structure.unflatten(flat)


def _integrals(flat: Tensor, field: RowField) -> dict[str, Tensor]:
    """The integrals in rows [time, rows, dim], by name: [time, batch] each."""
    if field.integrals is None:
        return {}
    batch = field.structure.batch_shape
    values = flat[..., field.dim :].reshape(len(flat), *batch, len(field.integrals))
    return dict(zip(field.integrals.integrands, values.unbind(-1), strict=True))


def _interpolant(
    problem: Problem, outcome: Outcome, structure: Structure, *, joint: bool
) -> Callable[[Tensor], PyTree]:
    n_rows = len(problem.y0)
    interpolant = Interpolant(outcome.segments, problem.times().direction, problem.y0.detach())

    def evaluate(t: Tensor) -> PyTree:
        if t.ndim > 2 or (t.ndim == 2 and t.shape[1] != n_rows):
            raise InputError(
                f"a solution was called with times of shape {list(t.shape)}: give a number, [k] "
                f"times, or [k, batch] with one column for each of its {n_rows} rows"
            )
        columns = t.reshape(-1, 1).expand(-1, n_rows) if t.ndim < 2 else t
        flat = problem.field.state(interpolant(columns))
        states = _restored(flat, structure, joint=joint)
        return pytree.tree_map(lambda x: x[0], states) if t.ndim == 0 else states

    return evaluate


@contextmanager
def _progress_bar(
    ts: Tensor, *, enabled: bool
) -> Iterator[Callable[[Tensor, Tensor], None] | None]:
    """A bar that follows the slowest row through its span."""
    if not enabled:
        yield None
        return
    from rich.progress import Progress  # imported where shown: it costs a tenth of a second

    start, end = ts[0].detach(), ts[-1].detach()
    with Progress(transient=True) as bar:
        task = bar.add_task("solving", total=1.0)

        def advance(rows: Tensor, t: Tensor) -> None:
            begin, stop = (x if x.ndim == 0 else x[rows] for x in (start, end))
            bar.update(task, completed=float(((t.squeeze(-1) - begin) / (stop - begin)).min()))

        yield advance
        bar.update(task, completed=1.0)
