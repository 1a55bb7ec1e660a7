"""Every tableau meets the order conditions of its declared order, and fails them one above."""

from dataclasses import replace
from fractions import Fraction

import mpmath
import pytest
from rooted_trees import Weights, gamma, order, trees, trees_up_to

from odeum.errors import InputError
from odeum.tableaus import EXPLICIT, IMPLICIT

TABLEAUS = EXPLICIT | IMPLICIT
RATIONAL = [
    *("euler", "midpoint", "heun", "ralston", "fehlberg2"),
    *("heun3", "rk4", "kutta38", "bosh3", "dopri5"),
    *("implicit_euler", "trapezoid", "implicit_midpoint", "radau3"),
]
DECIMAL = [
    *("tsit5", "dopri8", "vern7", "vern9"),
    *("sdirk2", "trbdf2", "kvaerno3", "kvaerno4", "kvaerno5"),
    *("gauss4", "gauss6", "radau5"),
]


@pytest.fixture(params=TABLEAUS.values(), ids=TABLEAUS.keys())
def tableau(request):
    return request.param


def number(tableau):
    """Fractions where they are published, else 60 digits: exact products of decimals explode."""
    if tableau.name in RATIONAL:
        return Fraction
    mpmath.mp.dps = 60
    return lambda x: mpmath.mpf(x.numerator) / x.denominator


def tolerance(tableau):
    return 0 if tableau.name in RATIONAL else mpmath.mpf(10) ** -30


def square(tableau, *, with_dense=False):
    """The stage matrix, with the end of the step and the dense output's stages if asked for."""
    to = number(tableau)
    rows = list(tableau.a)
    if with_dense:
        if tableau.n_derivatives > tableau.n_stages:
            rows.append(tableau.b)
        rows += tableau.interpolant.extra_a
    return [[to(x) for x in row] + [to(Fraction(0))] * (len(rows) - len(row)) for row in rows]


def test_all_known_methods_are_tested():
    assert sorted(TABLEAUS) == sorted(RATIONAL + DECIMAL)


def with_start(tableau):
    """Elementary weights and ``b`` with ``f(t, y)`` as a stage where ``b_error`` weighs it."""
    a, b = square(tableau), [number(tableau)(x) for x in tableau.b]
    if tableau.fully_implicit:
        zero = number(tableau)(Fraction(0))
        a = [[zero] * (len(a) + 1), *([zero, *row] for row in a)]
        b = [zero, *b]
    return Weights(a), b


def test_solution_has_exactly_its_order(tableau):
    to = number(tableau)
    weights, b = Weights(square(tableau)), [to(x) for x in tableau.b]

    def residual(tree):
        return abs(weights.sum(b, tree) - to(Fraction(1, gamma(tree))))

    assert max(map(residual, trees_up_to(tableau.order))) <= tolerance(tableau)
    assert max(map(residual, trees(tableau.order + 1))) > 1e-6


@pytest.mark.parametrize(
    "tableau", [t for t in TABLEAUS.values() if t.adaptive], ids=lambda t: t.name
)
def test_error_estimates_have_their_orders(tableau):
    to, (weights, b) = number(tableau), with_start(tableau)
    orders = [tableau.embedded_order] if len(tableau.b_error) == 1 else [5, 3]
    for b_error, embedded_order in zip(tableau.b_error, orders, strict=True):
        embedded = [x - to(e) for x, e in zip(b, b_error, strict=True)]

        def residual(tree, embedded=embedded):
            return abs(weights.sum(embedded, tree) - to(Fraction(1, gamma(tree))))

        assert max(map(residual, trees_up_to(embedded_order))) <= tolerance(tableau)
        assert max(map(residual, trees(embedded_order + 1))) > 1e-6


@pytest.mark.parametrize(
    "tableau",
    [t for t in TABLEAUS.values() if t.adaptive and len(t.b_error) == 1],
    ids=lambda t: t.name,
)
def test_error_order_is_the_power_of_the_step_in_the_estimate(tableau):
    weights, _ = with_start(tableau)
    b_error = [number(tableau)(x) for x in tableau.b_error[0]]
    for n_nodes in range(1, tableau.error_order):
        assert max(abs(weights.sum(b_error, t)) for t in trees(n_nodes)) <= tolerance(tableau)
    assert max(abs(weights.sum(b_error, t)) for t in trees(tableau.error_order)) > 1e-6


def test_a_method_of_fixed_steps_has_no_error_order():
    with pytest.raises(InputError, match=r"rk4.*estimates no error"):
        _ = EXPLICIT["rk4"].error_order


def test_dense_output_has_its_order_at_every_point(tableau):
    """``sum_j b_j(theta) phi_j(tree) = theta^|tree| / gamma(tree)``, power by power."""
    to, dense = number(tableau), tableau.interpolant
    weights = Weights(square(tableau, with_dense=True))
    polynomials = [[to(x) for x in row] for row in dense.weights]

    def residual(tree):
        total = to(Fraction(0))
        for power in range(1, len(polynomials[0]) + 1):
            wanted = Fraction(1, gamma(tree)) if power == order(tree) else Fraction(0)
            given = weights.sum([p[power - 1] for p in polynomials], tree)
            total = max(total, abs(given - to(wanted)))
        return total

    reached = min(dense.order, tableau.order)
    assert max(map(residual, trees_up_to(reached))) <= tolerance(tableau)
    assert max(map(residual, trees(dense.order + 1))) > 1e-6


@pytest.mark.parametrize(
    # A collocation polynomial has a kink where steps meet.
    "tableau",
    [t for t in TABLEAUS.values() if not t.fully_implicit],
    ids=lambda t: t.name,
)
def test_dense_output_is_continuously_differentiable(tableau):
    dense = tableau.interpolant
    end = tableau.n_stages if tableau.end_stage is None else tableau.end_stage
    for j, polynomial in enumerate(dense.weights):
        at_start = polynomial[0]
        at_end = sum((power + 1) * x for power, x in enumerate(polynomial))
        assert abs(at_start - (j == 0)) < Fraction(1, 10**30)
        assert abs(at_end - (j == end)) < Fraction(1, 10**30)


def test_kinds_of_methods_are_derived():
    def named(condition):
        return {name for name, t in TABLEAUS.items() if condition(t)}

    gauss, radau = {"implicit_midpoint", "gauss4", "gauss6"}, {"radau3", "radau5"}
    esdirk = {"implicit_euler", "sdirk2", "trbdf2", "kvaerno3", "kvaerno4", "kvaerno5"}
    assert named(lambda t: t.explicit) == set(EXPLICIT)
    assert named(lambda t: t.fully_implicit) == gauss | radau
    assert named(lambda t: t.stiffly_accurate) == {"trapezoid", *esdirk, *radau}
    assert named(lambda t: t.first_same_as_last) == {"bosh3", "dopri5", "tsit5", *esdirk}
    assert IMPLICIT["trapezoid"].end_stage == 1
    assert IMPLICIT["gauss4"].end_stage is None


def test_stages_of_a_diagonally_implicit_method_share_their_diagonal():
    for tableau in IMPLICIT.values():
        if not tableau.fully_implicit:
            assert len({x for x in tableau.diagonal if x}) == 1
            assert tableau.diagonal[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": (Fraction(0), Fraction(1, 3))}, "row 1 of a must sum to c"),
        ({"b": (Fraction(1), Fraction(1))}, "b must sum to 1"),
        ({"b_error": ((Fraction(1), Fraction(1)),)}, "b_error must sum to 0"),
        ({"b_error": None}, "b_error and embedded_order come together"),
        ({"a": ((), (Fraction(1, 2), Fraction(0)))}, "row 1 of a must hold 1 coefficients"),
        ({"b": (Fraction(1),)}, "agree on the stages"),
    ],
)
def test_an_inconsistent_record_cannot_be_made(change, message):
    with pytest.raises(InputError, match=message):
        replace(EXPLICIT["midpoint"], **change)


def test_cubic_hermite_needs_the_slope_at_the_start():
    with pytest.raises(InputError, match=r"radau3.*give dense"):
        replace(IMPLICIT["radau3"], dense=None)
