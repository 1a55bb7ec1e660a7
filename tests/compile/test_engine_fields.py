"""Every field of the zoo: the steps, states and gradients of both engines are the same."""

import pytest
import torch
from agreement import GRADIENTS, assert_same
from fields import FIELDS

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")

TS = torch.tensor([0.0, 0.05, 0.11, 0.2, 0.3], dtype=torch.float64)

IN_SINGLE_PRECISION = 1e-7
"""Torch's derivatives of some activations round their constants, 1 / alpha or 1 / 6, to float32."""

INEXACT = {
    "activation_celu": IN_SINGLE_PRECISION,
    "activation_hardsigmoid": IN_SINGLE_PRECISION,
    "slope_of_celu": IN_SINGLE_PRECISION,
}

SPANS = {"system_pollu": 1e-9}
"""Fractions of the times for fields that are too stiff for explicit methods to go further."""

USUAL = ["attention", "exact_trace_flow", "lorenz", "parameters_per_row", "residual"]


def check(name: str, **options) -> None:
    case = FIELDS[name]()
    assert_same(
        case.field,
        case.y0,
        TS * SPANS.get(name, 1.0),
        case.args,
        rtol=1e-6,
        atol=1e-8,
        gradients=INEXACT.get(name, GRADIENTS),
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", USUAL)
def test_usual_fields(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_every_field(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_one_row_of_every_field(name):
    case = FIELDS[name]()
    if case.args is None and isinstance(case.y0, torch.Tensor) and case.y0.ndim > 1:
        assert_same(
            case.field,
            case.y0[:1],
            TS * SPANS.get(name, 1.0),
            rtol=1e-6,
            atol=1e-8,
            gradients=INEXACT.get(name, GRADIENTS),
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bosh3", "vern7", "rk4"])
@pytest.mark.parametrize("name", [*USUAL, "gru", "hamiltonian", "lagrangian", "an_ensemble"])
def test_methods(name, method):
    check(name, method=method)
