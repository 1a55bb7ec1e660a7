"""Arguments that cannot be used: errors are of torchdiffeq's class and of odeum's."""

import inspect

import pytest
import torch
from peers import ours, start, swing, theirs

from odeum import InputError, SolveError

TIMES = torch.tensor([0.0, 1.0], dtype=torch.float64)

WRONG = [
    ({"method": "rk5"}, ValueError, "rk4"),
    ({"t": [0.0, 1.0]}, AssertionError, "t is a list"),
    ({"t": torch.tensor([0, 1])}, TypeError, "double"),
    ({"t": torch.ones(2, 2)}, AssertionError, r"\[2, 2\]"),
    ({"t": torch.tensor([0.0, 1.0, 0.5])}, AssertionError, "monotone"),
    ({"t": torch.tensor([0.0, 0.0, 1.0])}, AssertionError, "monotone"),
    ({"y0": [torch.ones(2)]}, AssertionError, "tuple of tensors"),
    ({"y0": 1.0}, AssertionError, "a float"),
    ({"rtol": torch.tensor(1e-3, requires_grad=True)}, AssertionError, "gradient"),
    ({"y0": (torch.ones(2), torch.ones(2)), "rtol": [1e-3]}, AssertionError, "1 entries"),
    (
        {"method": "euler", "options": {"step_size": 0.1, "grid_constructor": lambda f, y, t: t}},
        ValueError, "both",
    ),
    (
        {"method": "euler", "options": {"step_size": 0.3, "interp": "quartic"}, "t": TIMES[:1]
         .new_tensor([0.0, 0.5, 1.0])},
        ValueError, "cubic",
    ),
]  # fmt: skip


def call(library, y0=None, t=TIMES, **kwargs):
    y0 = start() if y0 is None else y0
    field = (lambda t, y: tuple(-x for x in y)) if isinstance(y0, tuple) else swing
    return library.odeint(field, y0, t, **kwargs)


@pytest.mark.parametrize(("kwargs", "error", "message"), WRONG)
def test_wrong_arguments_raise_what_torchdiffeq_raises(kwargs, error, message):
    with pytest.raises(error):
        call(theirs, **kwargs)
    with pytest.raises(error, match=message) as raised:
        call(ours, **kwargs)
    assert isinstance(raised.value, InputError)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda t, y: torch.ones(5), r"shape \[5\]"),
        (lambda t, y: 1.0, "a float"),
        (lambda t, y: (y, y), "a tuple of 2"),
        (lambda t, y: 1j * y, "complex"),
    ],
)
def test_a_field_that_does_not_fit_is_named(field, message):
    with pytest.raises(InputError, match=message):
        ours.odeint(field, start(), TIMES)


def test_integers_are_no_state():
    with pytest.raises(InputError, match="int64"):
        ours.odeint(swing, torch.ones(2, dtype=torch.int64), TIMES)


def test_a_step_size_must_be_positive():
    with pytest.raises(InputError, match="step_size"):
        ours.odeint(swing, start(), TIMES, method="euler", options={"step_size": -0.1})


@pytest.mark.parametrize("library", [theirs, ours], ids=["theirs", "ours"])
@pytest.mark.parametrize(
    "field",
    [lambda t, y: y**2, lambda t, y: y / (t - 0.5).clamp(min=0)],
    ids=["blows up", "not finite"],
)
def test_a_solve_that_fails_raises_an_assertion_error(library, field):
    with pytest.raises(AssertionError):
        library.odeint(field, torch.tensor([2.0]), torch.tensor([0.0, 1.0]))


def test_a_solve_that_fails_is_a_solve_error_too():
    with pytest.raises(SolveError, match=r"t = 0\.5"):
        ours.odeint(lambda t, y: y**2, torch.tensor([2.0]), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint", "odeint_dense", "odeint_event"])
def test_signatures_are_those_of_torchdiffeq(name):
    mine, wanted = (inspect.signature(getattr(x, name)).parameters for x in (ours, theirs))
    for parameter in wanted.values():
        assert mine[parameter.name].kind == parameter.kind
        if name != "odeint_event" or parameter.name != "odeint_interface":
            assert mine[parameter.name].default == parameter.default
    assert list(mine) == list(wanted)


def test_every_method_of_torchdiffeq_is_known():
    from torchdiffeq._impl.odeint import SOLVERS

    from odeum.compat.torchdiffeq.options import METHODS

    assert set(SOLVERS) <= set(METHODS)
