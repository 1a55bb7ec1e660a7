"""The two graphs of a derivative are autograd's, for every field of the zoo."""

import pytest
import torch
from fields import FIELDS, states
from tracing import inputs_of, pulled_back, traced

from odeum.compile.derivative import differentiate
from odeum.compile.interpret import interpret

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


@pytest.mark.parametrize("name", FIELDS)
def test_backward_graph_is_autograd(name):
    found, field, y, t = traced(FIELDS[name]())
    inputs = inputs_of(found, field, y, t)
    names = [node.name for node in found.graph.inputs]
    inputs = {name: inputs[name].detach().clone().requires_grad_() for name in names}
    derivative = differentiate(found.differentiable, frozenset(names))
    expected = interpret(found.differentiable, inputs)["f"]
    cotangent = states(*expected.shape, seed=9)
    wanted: dict[str, torch.Tensor | None] = dict.fromkeys(names)
    if expected.requires_grad:
        grads = torch.autograd.grad(expected, list(inputs.values()), cotangent, allow_unused=True)
        wanted = dict(zip(inputs, grads, strict=True))
    with torch.no_grad():
        f, given = pulled_back(derivative, inputs, cotangent)
    torch.testing.assert_close(f, expected.detach(), rtol=1e-12, atol=1e-12)
    for name in names:
        want = wanted[name]
        want = torch.zeros_like(inputs[name]) if want is None else want
        got = given.get(name, torch.zeros_like(want))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: n + m)
