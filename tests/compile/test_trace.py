"""What is traced is what the field computes; what cannot be traced says why, and where."""

import pytest
import torch
from fields import FIELDS, REFUSED
from tracing import inputs_of, traced

from odeum.compile.interpret import interpret
from odeum.errors import TraceError

# Torch's own forward-mode derivatives are still written in TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


@pytest.mark.parametrize("name", FIELDS)
def test_graph_is_the_field(name):
    case = FIELDS[name]()
    found, field, y, t = traced(case)
    y = y + 0.05 * torch.cos(torch.arange(y.numel())).reshape(y.shape)
    for graph in (found.graph, found.differentiable):
        given = interpret(graph, inputs_of(found, field, y, t))["f"]
        torch.testing.assert_close(given, field(t, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    build, words = REFUSED[name]
    with pytest.raises(TraceError, match=words) as raised:
        traced(build())
    assert raised.value.operation
    assert "\n" not in str(raised.value)
