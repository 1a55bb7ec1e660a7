"""SciPy's solvers: each row solved by itself, one step at a time, in float64 numpy.

Owns how a row's field, bounds and failures look to SciPy, and how its steps come back. Nothing in
here is recorded by autograd: gradients are those of odeum.gradient.adjoint.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from odeum.eager.dense import Interpolation
from odeum.eager.field import RowField
from odeum.eager.jacobian import JacobianFunction, jacobian
from odeum.eager.options import MAX_STEPS
from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import END, Failure, Marked
from odeum.errors import InputError
from odeum.methods import SCIPY, SciPy
from odeum.solution import Stats, Status
from odeum.types import Tensor

EVALUATIONS_PER_STEP = 30
"""A row is given up after this many evaluations for each step that it may take."""

PROGRESS_INTERVAL = 64
"""Steps between reports of progress."""

Array = np.ndarray[Any, Any]


def solve(problem: Problem) -> Outcome:
    """Solves a problem by the SciPy solver that is its method.

    Rejected steps are reported as zero: SciPy does not tell of them.

    Args:
        problem: its method is a :class:`odeum.methods.SciPy`.

    Raises:
        InputError: where autograd records, and for events and bounds that the solver does not have.
    """
    method, y0, times = problem.method, problem.y0, problem.times()
    assert isinstance(method, SciPy)
    _refuse(problem, method)
    ys = y0.new_full((times.n_times, *y0.shape), torch.nan)
    if times.starts_at_output:
        ys[0] = y0
    every = torch.arange(len(y0), device=y0.device)
    firsts, counts = (x.tolist() for x in times.counts(every, times.start, times.end))
    courses = []
    for row, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        index, here = slice(first, first + count), every[row : row + 1]
        course = _Course(
            _Function(
                problem.field if len(y0) == 1 else problem.field.select(here),
                method.jacobian,
                y0[here],
                EVALUATIONS_PER_STEP * _max_steps(problem, row),
            ),
            start=float(times.start[row]),
            end=float(times.end[row]),
            y=_array(y0[row]),
            outputs=_array(times.ts[index, row] if times.per_row else times.ts[index]),
            degree=SCIPY[method.solver].dense_order if problem.dense else None,
        )
        with _quiet():
            course.run(problem, row)
        if course.states:
            ys[first : first + len(course.states), row] = _tensor(course.states, y0)
        courses.append(course)
        if course.status != Status.SUCCESS and problem.on_failure is not None:
            problem.on_failure(course.failure(row))
    status, stats = _totals(courses, every, implicit=method.implicit)
    return Outcome(
        ys, status, stats, _segments(problem, courses), _marked(problem, status, courses)
    )


def _refuse(problem: Problem, method: SciPy) -> None:
    if torch.is_grad_enabled():
        raise InputError(
            f'autograd cannot see into scipy:{method.solver}: use gradient="adjoint" (which '
            '"discrete" means for SciPy\'s methods) or "none"'
        )
    if problem.watches:
        raise InputError(
            f"events need one of odeum's own methods, which scipy:{method.solver} is not: use "
            "dopri8, or rodas5p where the problem is stiff"
        )
    if problem.steps.fixed is not None:
        raise InputError(
            f"scipy:{method.solver} chooses its steps: use a method of odeum's own, as rk4, with "
            "StepOptions(fixed=...)"
        )
    if problem.steps.min is not None and method.solver != "LSODA":
        raise InputError(
            f"scipy:{method.solver} knows no smallest step: leave StepOptions(min=...) out, or "
            "use scipy:LSODA"
        )


def _max_steps(problem: Problem, row: int) -> int:
    taken = 0 if problem.n_tried is None else int(problem.n_tried[row])
    return (problem.steps.max_steps or MAX_STEPS) - taken


class _GivenUp(Exception):
    """Leaves SciPy's solver from inside the field."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class _Function:
    """A row's field as SciPy calls it.

    Attributes:
        n_evaluations: how often it was called.
        met_non_finite: whether a value was NaN or infinite since this was last set to False.
        raised: whether the user's function raised an error.
    """

    def __init__(
        self, field: RowField, given: JacobianFunction | None, like: Tensor, max_evaluations: int
    ) -> None:
        self._field = field
        self._given = given
        self._like = like
        self._max_evaluations = max_evaluations
        self.n_evaluations = 0
        self.met_non_finite = False
        self.raised = False

    def __call__(self, t: float, y: Array) -> Array:
        if self.n_evaluations >= self._max_evaluations:
            raise _GivenUp(Status.MAX_STEPS)
        self.n_evaluations += 1
        value = self._value(self._field, t, y)
        if self.met_non_finite and self.n_evaluations == 1:
            raise _GivenUp(Status.NON_FINITE)
        return value

    def jacobian(self, t: float, y: Array) -> Array:
        """``df_i/dy_j``, [dim, dim]."""
        value = self._value(lambda t, y: jacobian(self._field, t, y, self._given), t, y)
        if not np.isfinite(value).all():
            raise _GivenUp(Status.NON_FINITE)
        return value

    def failure(self, row: int, status: Status, t: float, h: float, n: int, y: Array) -> Failure:
        """What is told of a row that failed at ``(t, y)``."""
        state = _tensor(y, self._like)
        k = _tensor(self._value(self._field, t, y), self._like)
        return Failure(row, status, t, h, n, state, k)

    def _value(self, function: Callable[[Tensor, Tensor], Tensor], t: float, y: Array) -> Array:
        try:
            # A copy of y: SciPy may reuse its memory, and the field may return what it is given.
            value = function(self._like.new_tensor([[t]]), _tensor(y, self._like).unsqueeze(0))
        except Exception:
            self.raised = True
            raise
        array = _array(value[0])
        self.met_non_finite = self.met_non_finite or not np.isfinite(array).all()
        return array


@dataclass
class _Course:
    """One row's solve as far as it has come.

    Attributes:
        function: its field.
        start: where it starts.
        end: where it ends.
        y: the state it has reached, [dim].
        outputs: times at which its state is wanted, in the order of its solve.
        degree: of the interpolant of each step, where dense output is kept; else None.
        states: its states there as far as reached.
        ends: the ends of its steps.
        samples: states inside the steps, [nodes, dim] each, where dense output is kept.
        status: how it ended.
        n_jacobians: Jacobians evaluated.
        n_factorisations: matrices factorised.
    """

    function: _Function
    start: float
    end: float
    y: Array
    outputs: Array
    degree: int | None
    states: list[Array] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    samples: list[Array] = field(default_factory=list)
    status: Status = Status.SUCCESS
    n_jacobians: int = 0
    n_factorisations: int = 0

    @property
    def t(self) -> float:
        """The time it has reached."""
        return self.ends[-1] if self.ends else self.start

    @property
    def steps(self) -> list[tuple[float, float]]:
        """Where its steps start and end."""
        return list(itertools.pairwise([self.start, *self.ends]))

    def run(self, problem: Problem, row: int) -> None:
        """Goes to the end or to a failure."""
        if not np.isfinite(self.y).all():
            self.status = Status.NON_FINITE
            return
        try:
            self.status = self._stepped(problem, row)
        except _GivenUp as given_up:
            self.status = given_up.status
        except ValueError:
            # SciPy's linear algebra refuses NaN by an error; the user's own are the user's.
            if self.function.raised or not self.function.met_non_finite:
                raise
            self.status = Status.NON_FINITE

    def _stepped(self, problem: Problem, row: int) -> Status:
        if self.start == self.end:
            return Status.SUCCESS
        max_steps = _max_steps(problem, row)
        solver = _solver(problem, self)
        while solver.status == "running":
            if len(self.ends) >= max_steps:
                return Status.MAX_STEPS
            self.function.met_non_finite = False
            solver.step()
            self.n_jacobians, self.n_factorisations = int(solver.njev), int(solver.nlu)
            if solver.status == "failed" or solver.t == self.t:
                too_small = not self.function.met_non_finite
                return Status.STEP_TOO_SMALL if too_small else Status.NON_FINITE
            if not np.isfinite(solver.y).all():
                return Status.NON_FINITE
            self._keep(solver)
            if problem.on_progress is not None and len(self.ends) % PROGRESS_INTERVAL == 0:
                here = torch.tensor([row], device=problem.ts.device)
                problem.on_progress(here, problem.ts.new_tensor([[self.t]]))
        return Status.SUCCESS

    def _keep(self, solver: Any) -> None:
        """Takes the solver's last step."""
        left = self.outputs[len(self.states) :]
        reached = left[left <= solver.t] if self.start < self.end else left[left >= solver.t]
        inside = reached[reached != solver.t]
        if self.degree is not None or len(inside):
            interpolant = solver.dense_output()
            self.states.extend(interpolant(inside).T)
            if self.degree is not None:
                nodes = self.t + (solver.t - self.t) * _nodes(self.degree)
                self.samples.append(interpolant(nodes).T)
        if len(inside) < len(reached):
            self.states.append(np.array(solver.y))
        self.ends.append(float(solver.t))
        self.y = np.array(solver.y)

    def failure(self, row: int) -> Failure:
        """What is told of its failure."""
        if self.status == Status.STEP_TOO_SMALL:
            h = 10 * float(np.spacing(abs(self.t)))
        else:
            h = self.steps[-1][1] - self.steps[-1][0] if self.steps else 0.0
        n_steps = len(self.ends)
        return self.function.failure(row, self.status, self.t, h, n_steps, self.y)


def _nodes(degree: int) -> Array:
    """Fractions of a step at which a polynomial of that degree is sampled, from 0 to 1."""
    return (1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2


def _solver(problem: Problem, course: _Course) -> Any:
    """SciPy's solver at the start of a row."""
    from scipy import integrate  # imported where used: importing odeum must not cost it

    method, steps, tolerance = problem.method, problem.steps, problem.tolerance
    assert isinstance(method, SciPy)
    options: dict[str, Any] = {
        # SciPy raises a smaller rtol to this with a warning.
        "rtol": max(float(torch.as_tensor(tolerance.rtol).min()), 100 * np.finfo(float).eps),
        "atol": _array(torch.as_tensor(tolerance.atol)).reshape(-1),
        "max_step": steps.max or math.inf,
    }
    if len(options["atol"]) == 1:
        options["atol"] = float(options["atol"][0])
    if steps.first is not None:
        options["first_step"] = min(steps.first, abs(course.end - course.start))
    if steps.min is not None:
        options["min_step"] = steps.min
    if method.implicit:
        options["jac"] = course.function.jacobian
    solver = getattr(integrate, method.solver)
    return solver(course.function, course.start, course.y, course.end, **options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps SciPy from warning of what the status of a row says."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", module=r"scipy\.")
        yield


def _totals(courses: list[_Course], like: Tensor, *, implicit: bool) -> tuple[Tensor, Stats]:
    """Status and work of every row."""
    stats = Stats(
        n_evaluations=like.new_tensor([x.function.n_evaluations for x in courses]),
        n_accepted=like.new_tensor([len(x.ends) for x in courses]),
        n_rejected=torch.zeros_like(like),
        n_jacobians=like.new_tensor([x.n_jacobians for x in courses]) if implicit else None,
        n_factorisations=(
            like.new_tensor([x.n_factorisations for x in courses]) if implicit else None
        ),
    )
    return like.new_tensor([int(x.status) for x in courses]), stats


def _segments(problem: Problem, courses: list[_Course]) -> list[Segments]:
    """All steps of a dense solve: SciPy's interpolants are polynomials, here through samples."""
    samples = [sample for course in courses for sample in course.samples]
    if not samples:
        return []
    degree = len(samples[0]) - 1
    values = np.stack(samples, 1)
    # y(t + theta h) = y + sum_j c_j theta^j, at the samples but the first
    powers = _nodes(degree)[1:, None] ** np.arange(1, degree + 1)
    change = (values[1:] - values[0]).reshape(degree, -1)
    coefficients = np.linalg.solve(powers, change).reshape(degree, *values.shape[1:])
    ts, like = problem.ts.detach(), problem.y0
    t, t1 = (
        ts.new_tensor([step[side] for course in courses for step in course.steps]).unsqueeze(-1)
        for side in (0, 1)
    )
    h = t1 - t
    every = torch.arange(len(courses), device=like.device)
    rows = every.repeat_interleave(every.new_tensor([len(course.ends) for course in courses]))
    # The coefficients c_j = h k_j are the derivatives' part, the powers the polynomials'.
    dense = Interpolation(np.eye(degree).tolist(), [1.0] * degree, like)
    ks = _tensor(coefficients / _array(h), like)
    return [Segments(dense, rows, t, t1, h, _tensor(values[0], like), ks)]


def _marked(problem: Problem, status: Tensor, courses: list[_Course]) -> Marked:
    """The states at which rows arrive, where they are wanted."""
    wanted = status == Status.SUCCESS if problem.marks_end else torch.zeros_like(status).bool()
    rows = wanted.nonzero().squeeze(-1)
    ends = problem.times().end[rows].squeeze(-1).detach()
    states = _tensor([course.y for course in courses], problem.y0)
    y = states[rows]
    return Marked(rows, ends, torch.full_like(rows, END), y, torch.zeros_like(y))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _tensor(array: Array | list[Array], like: Tensor) -> Tensor:
    """A copy, of the dtype and on the device of a state."""
    return torch.tensor(np.asarray(array), dtype=like.dtype, device=like.device)
