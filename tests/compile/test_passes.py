"""Passes change no value: on random fields, and rule by rule."""

import pytest
import torch
from compositions import Composed, fields
from fields import FIELDS, Case, states
from hypothesis import HealthCheck, given, settings
from tracing import inputs_of, pulled_back, traced

from odeum.compile import passes
from odeum.compile.build import Builder
from odeum.compile.derivative import differentiate
from odeum.compile.interpret import interpret
from odeum.compile.ir import Graph, Node
from odeum.compile.passes import optimise
from odeum.compile.trace import Traced

B = Builder()
Y = Node("input", (), (4,), {"role": "state", "name": "state"})
M = Node("input", (), (2, 2), {"role": "shared", "name": "m"})
C = Node("input", (), (4,), {"role": "cotangent", "name": "cotangent"})


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields)
def test_random_fields(field: Composed) -> None:
    """What is traced is the field, what is derived its gradient."""
    y0 = states(4, 4, seed=3)
    case = Case(field, y0)
    found, row_field, y, t = traced(case)
    inputs = inputs_of(found, row_field, y, t)
    names = [node.name for node in found.graph.inputs]
    leaves = [inputs[name].detach().clone().requires_grad_() for name in ("time", "state")]
    inputs |= dict(zip(("time", "state"), leaves, strict=True))
    f = field(leaves[0][:, None], leaves[1])
    cotangent = states(*f.shape, seed=4)
    read = [inputs[name] for name in names]
    wanted = torch.autograd.grad(f, read, cotangent, allow_unused=True)
    derivative = differentiate(found.differentiable, frozenset(names))
    with torch.no_grad():
        given_f, products = pulled_back(derivative, inputs, cotangent)
    torch.testing.assert_close(given_f, f.detach(), rtol=1e-10, atol=1e-10)
    for name, want in zip(names, wanted, strict=True):
        if found.prologue is not None and name.startswith("prologue"):
            continue
        got = products.get(name)
        if want is None or got is None:
            assert got is None or not got.any()
            assert want is None or not want.any()
        else:
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
