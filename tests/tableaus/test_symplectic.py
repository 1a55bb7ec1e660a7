"""Splitting methods have exactly their order, step by step and in time, and run backward."""

from dataclasses import replace
from fractions import Fraction

import mpmath
import pytest

from odeum.errors import InputError
from odeum.tableaus import SYMPLECTIC


@pytest.fixture(params=SYMPLECTIC.values(), ids=SYMPLECTIC.keys())
def tableau(request):
    with mpmath.workdps(50):
        yield request.param


def number(x):
    return mpmath.mpf(x.numerator) / x.denominator


def moves(tableau):
    """``(kind, fraction)`` in the order of a step."""
    for i, kick in enumerate(tableau.kicks):
        yield "K", number(kick)
        if i < len(tableau.drifts):
            yield "D", number(tableau.drifts[i])


def words(tableau, longest):
    """Coefficients of the product of ``exp(kick K)`` and ``exp(drift D)`` for operators K and D.

    K and D do not commute, so each word in them stands for itself; ``exp(K + D)`` has 1/n! for
    all words of n letters.
    """
    product = {"": mpmath.mpf(1)}
    for kind, fraction in moves(tableau):
        grown = {}
        for word, coefficient in product.items():
            for n in range(longest - len(word) + 1):
                longer = word + kind * n
                term = coefficient * fraction**n / mpmath.factorial(n)
                grown[longer] = grown.get(longer, 0) + term
        product = grown
    return product


def test_order_conditions_are_met_and_failed_one_above(tableau):
    worst = [mpmath.mpf(0)] * (tableau.order + 2)
    found = words(tableau, tableau.order + 1)
    for n in range(tableau.order + 2):
        for index in range(2**n):
            word = "".join("KD"[index >> bit & 1] for bit in range(n))
            residual = abs(found.get(word, 0) - 1 / mpmath.factorial(n))
            worst[n] = max(worst[n], residual)
    assert max(worst[:-1]) < mpmath.mpf(10) ** -30
    assert worst[-1] > 1e-3


def step(tableau, t, h, q, p):
    """One step of q' = p + p^3 + t^2, p' = t - q^3."""
    nodes = {"K": iter(tableau.kick_nodes), "D": iter(tableau.drift_nodes)}
    for kind, fraction in moves(tableau):
        at = t + number(next(nodes[kind])) * h
        if kind == "K":
            p += h * fraction * (at - q**3)
        else:
            q += h * fraction * (p + p**3 + at**2)
    return q, p


def test_local_error_shrinks_with_the_order_on_a_nonlinear_non_autonomous_system(tableau):
    def exact(h):
        def field(t, y):
            return [y[1] + y[1] ** 3 + t**2, t - y[0] ** 3]

        start = [mpmath.mpf("0.7"), mpmath.mpf("0.4")]
        return mpmath.odefun(field, mpmath.mpf("0.3"), start, tol=mpmath.mpf(10) ** -45)(
            mpmath.mpf("0.3") + h
        )

    def error(h):
        q, p = step(tableau, mpmath.mpf("0.3"), h, mpmath.mpf("0.7"), mpmath.mpf("0.4"))
        q1, p1 = exact(h)
        return mpmath.hypot(q - q1, p - p1)

    h = mpmath.mpf("1e-3")
    slope = mpmath.log(error(h) / error(h / 2), 2)
    assert abs(slope - (tableau.order + 1)) < 0.02


def test_reversible_methods_return_to_the_start(tableau):
    start = mpmath.mpf("0.7"), mpmath.mpf("0.4")
    t, h = mpmath.mpf("0.3"), mpmath.mpf("0.1")
    q, p = step(tableau, t + h, -h, *step(tableau, t, h, *start))
    way = mpmath.hypot(q - start[0], p - start[1])
    assert tableau.reversible == (tableau.name != "semi_implicit_euler")
    assert (way < 1e-45) == tableau.reversible


def test_kinds_are_derived():
    assert [t.n_stages for t in SYMPLECTIC.values()] == [1, 1, 3, 7]
    assert [t.first_same_as_last for t in SYMPLECTIC.values()] == [False, True, True, True]


def test_yoshida_6_is_solution_a():
    """Yoshida (1990), table 1, to 15 digits."""
    published = [0.784513610477560, 0.235573213359357, -1.17767998417887]
    assert [float(x) for x in SYMPLECTIC["yoshida6"].drifts[:3]] == pytest.approx(
        published, abs=2e-14
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kicks": (Fraction(1, 2), Fraction(1, 3))}, "kicks must sum to 1"),
        ({"drifts": (Fraction(2),)}, "drifts must sum to 1"),
        ({"kicks": (Fraction(1, 3),) * 3}, "3 kicks and 1 drifts do not alternate"),
    ],
)
def test_an_inconsistent_record_cannot_be_made(change, message):
    with pytest.raises(InputError, match=message):
        replace(SYMPLECTIC["leapfrog"], **change)
