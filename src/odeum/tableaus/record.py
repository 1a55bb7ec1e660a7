"""What a Runge-Kutta method is: a record of exact coefficients, checked when constructed.

One step from ``(t, y)`` with step ``h`` is (Hairer, Norsett & Wanner I, II.1 and II.7)

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),    y1 = y + h sum_i b_i k_i.

A stage is explicit where ``a_ij = 0`` for ``j >= i``, implicit otherwise.

The engines read these records; nothing here knows how a step is taken.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from odeum.errors import InputError

Row = tuple[Fraction, ...]
TOLERANCE = Fraction(1, 10**30)


def row(*coefficients: str | int) -> Row:
    """Exact fractions from ``"3/40"``, 40-digit decimals or integers.

    Example:
        >>> row("1/3", "0.5", 2)
        (Fraction(1, 3), Fraction(1, 2), Fraction(2, 1))
    """
    return tuple(Fraction(value) for value in coefficients)


def root(x: int) -> Fraction:
    """The square root of a whole number to 45 decimals, for coefficients that are algebraic.

    Example:
        >>> abs(root(2) ** 2 - 2) < Fraction(1, 10**44)
        True
    """
    return Fraction(isqrt(x * 10**90), 10**45)


def difference(left: Row, right: Row) -> Row:
    """``left - right``, as the weights of an error estimate are those of two solutions.

    Example:
        >>> difference(row(1, "1/2"), row(0, "1/4"))
        (Fraction(1, 1), Fraction(1, 4))
    """
    return tuple(x - y for x, y in zip(left, right, strict=True))


@dataclass(frozen=True)
class DenseOutput:
    """A continuous extension ``y(t + theta h) = y + h sum_j b_j(theta) k_j``, ``0 <= theta <= 1``.

    Attributes:
        order: order of the interpolant (its error over one step is ``h^(order + 1)``).
        weights: per derivative, the coefficients of ``theta, theta^2, ...`` in ``b_j(theta)``.
            The derivatives are the stages, then ``f(t1, y1)`` unless a stage is that already or
            the method is fully implicit, then the extra stages.
        extra_a: coefficients of extra stages, evaluated only in steps whose inside is asked for;
            row ``i`` weighs all earlier derivatives.
        extra_c: their nodes.
    """

    order: int
    weights: tuple[Row, ...]
    extra_a: tuple[Row, ...] = ()
    extra_c: Row = ()


@dataclass(frozen=True, eq=False)
class RKTableau:
    """A Runge-Kutta method as data.

    Attributes:
        name: how ``method=`` names it.
        order: order of the solution that is advanced.
        embedded_order: order of the solution it is compared with, None where there is none.
        a: stage coefficients. Row ``i`` holds ``i`` of them where the stage is explicit, and its
            diagonal as one more where it is implicit in itself only; a fully implicit method
            has rows of all ``n_stages``.
        b: weights of the advanced solution.
        b_error: rows of weights that estimate the local error: ``b`` less the embedded weights.
            One row as a rule; a second, of lower order, damps the first as in DOP853. A fully
            implicit method weighs ``f(t, y)`` besides, before its stages. None where the step
            size is fixed.
        c: nodes.
        dense: the continuous extension; cubic Hermite where None is given, which needs the
            first stage to be ``f(t, y)``.
        source: where the coefficients are published.

    Raises:
        InputError: where shapes, row sums, ``sum b = 1``, ``sum b_error = 0``, or the ends of
            the continuous extension do not fit together.

    Example:
        >>> euler = RKTableau("euler", 1, None, (row(),), row(1), None, row(0), None, "Euler 1768")
        >>> euler.explicit, euler.n_stages, euler.first_same_as_last, euler.interpolant.order
        (True, 1, False, 3)
        >>> trapezoid = RKTableau(
        ...     name="trapezoid",
        ...     order=2,
        ...     embedded_order=None,
        ...     a=(row(), row("1/2", "1/2")),
        ...     b=row("1/2", "1/2"),
        ...     b_error=None,
        ...     c=row(0, 1),
        ...     dense=None,
        ...     source="Crank & Nicolson, Proc. Camb. Phil. Soc. 43 (1947)",
        ... )
        >>> trapezoid.explicit, trapezoid.diagonal, trapezoid.end_stage
        (False, (Fraction(0, 1), Fraction(1, 2)), 1)
    """

    name: str
    order: int
    embedded_order: int | None
    a: tuple[Row, ...]
    b: Row
    b_error: tuple[Row, ...] | None
    c: Row
    dense: DenseOutput | None
    source: str

    def __post_init__(self) -> None:
        n = self.n_stages
        self._require(len(self.c) == n == len(self.a), "a, b and c must agree on the stages")
        for i, coefficients in enumerate(self.a):
            on_diagonal = len(coefficients) == i + 1 and coefficients[i] != 0
            self._require(
                self.fully_implicit or len(coefficients) == i or on_diagonal,
                f"row {i} of a must hold {i} coefficients, and one more, not 0, where the stage "
                f"is implicit; or every row all {n}",
            )
        for i, (coefficients, node) in enumerate(zip(self.a, self.c, strict=True)):
            self._require_equal(sum(coefficients), node, f"row {i} of a must sum to c")
        self._require_equal(sum(self.b), 1, "b must sum to 1")
        self._require(
            (self.b_error is None) == (self.embedded_order is None),
            "b_error and embedded_order come together",
        )
        for weights in self.b_error or ():
            self._require(len(weights) == n + self.fully_implicit, "b_error must weigh every stage")
            self._require_equal(sum(weights), 0, "b_error must sum to 0")
        self._require(
            self.dense is not None or self._starts_explicitly,
            "give dense: cubic Hermite needs a first stage that is f(t, y)",
        )
        self._check_interpolant(self.interpolant)

    def _check_interpolant(self, dense: DenseOutput) -> None:
        n = self.n_derivatives + len(dense.extra_c)
        self._require(len(dense.weights) == n, "dense output must weigh every derivative")
        for i, (coefficients, node) in enumerate(zip(dense.extra_a, dense.extra_c, strict=True)):
            self._require(len(coefficients) == self.n_derivatives + i, "extra_a must be triangular")
            self._require_equal(sum(coefficients), node, f"row {i} of extra_a must sum to extra_c")
        for polynomial, weight in zip(dense.weights, self.end_weights, strict=True):
            self._require_equal(sum(polynomial), weight, "dense output must end at y1")

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise InputError(f"tableau {self.name!r}: {rule}")

    def _require_equal(self, given: Fraction | int, wanted: Fraction | int, rule: str) -> None:
        self._require(abs(Fraction(given - wanted)) < TOLERANCE, rule)

    @property
    def n_stages(self) -> int:
        """Number of stages of one step."""
        return len(self.b)

    @property
    def explicit(self) -> bool:
        """Whether no stage is implicit."""
        return all(len(coefficients) == i for i, coefficients in enumerate(self.a))

    @property
    def fully_implicit(self) -> bool:
        """Whether every stage may depend on all, so that they are solved for together."""
        return all(len(coefficients) == self.n_stages for coefficients in self.a)

    @property
    def matrix(self) -> tuple[Row, ...]:
        """``a`` as a square, zeros filled in."""
        n = self.n_stages
        return tuple(coefficients + row(0) * (n - len(coefficients)) for coefficients in self.a)

    @property
    def diagonal(self) -> Row:
        """``a_ii`` per stage, 0 where the stage is explicit."""
        return tuple(coefficients[i] for i, coefficients in enumerate(self.matrix))

    @property
    def end_stage(self) -> int | None:
        """Index of the last stage that is ``f(t1, y1)``, None where none is."""
        ends = [i for i, coefficients in enumerate(self.matrix) if coefficients == self.b]
        return ends[-1] if ends else None

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is ``f(t1, y1)`` and so the next step's first."""
        return self._starts_explicitly and self.end_stage == self.n_stages - 1

    @property
    def stiffly_accurate(self) -> bool:
        """Whether an implicit stage ends at ``y1``, as the stages of stiff methods should."""
        return self.end_stage is not None and self.diagonal[self.end_stage] != 0

    @property
    def n_derivatives(self) -> int:
        """Number of derivatives at hand after an accepted step: the stages and ``f(t1, y1)``.

        A fully implicit method interpolates by its stages alone.
        """
        return self.n_stages + (self.end_stage is None and not self.fully_implicit)

    @property
    def error_order(self) -> int:
        """Power of the step size with which the error estimate shrinks.

        Raises:
            InputError: for a method that estimates no error.
        """
        if self.embedded_order is None:
            raise InputError(f"tableau {self.name!r} estimates no error: give it a fixed step")
        return min(self.order, self.embedded_order) + 1

    @property
    def filter_gamma(self) -> Fraction:
        """``gamma`` in the filter ``1 / (1 - h gamma J)`` that an error estimate needs, else 0.

        Without it, the stiff components of an estimate that weighs an explicit stage grow with
        the step. Where the embedded solution ends on an implicit stage they are damped already.
        """
        if not self.b_error or self.explicit:
            return Fraction(0)
        if self.fully_implicit:
            return abs(self.b_error[0][0])
        embedded = difference(self.b, self.b_error[0])
        for coefficients, gamma in zip(self.matrix, self.diagonal, strict=True):
            if gamma and all(
                abs(x - y) < TOLERANCE for x, y in zip(coefficients, embedded, strict=True)
            ):
                return Fraction(0)
        return max(self.diagonal)

    @property
    def adaptive(self) -> bool:
        """Whether it estimates its error, so that step sizes can follow a tolerance."""
        return self.b_error is not None

    @property
    def interpolant(self) -> DenseOutput:
        """The continuous extension: its own, or cubic Hermite through both ends."""
        return self.dense or self._hermite()

    @property
    def _starts_explicitly(self) -> bool:
        return not self.a[0] and not self.c[0]

    @property
    def end_weights(self) -> Row:
        """Weights of the advanced solution over the interpolant's derivatives."""
        n_extra = len(self.interpolant.extra_c)
        return self.b + row(0) * (self.n_derivatives - self.n_stages + n_extra)

    def _hermite(self) -> DenseOutput:
        """``y1 - y`` weighed by 3θ² - 2θ³, f0 by θ - 2θ² + θ³, f1 by θ³ - θ²."""
        b = self.b + row(0) * (self.n_derivatives - self.n_stages)
        end = self.n_stages if self.end_stage is None else self.end_stage
        weights = [[Fraction(0), 3 * weight, -2 * weight] for weight in b]
        for derivative, terms in ((0, row(1, -2, 1)), (end, row(0, -1, 1))):
            for power, term in enumerate(terms):
                weights[derivative][power] += term
        return DenseOutput(order=3, weights=tuple(tuple(w) for w in weights))
