"""Every operation of graphs means what NumPy and SciPy say it means, for one row and for many."""

import numpy as np
import pytest
import scipy.special
import torch
from fields import states
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from odeum.compile.build import Builder
from odeum.compile.interpret import interpret
from odeum.compile.ir import BINARY, UNARY, Graph, Node

B = Builder()
X = Node("input", (), (2, 3), {"role": "state", "name": "x"})
Z = Node("input", (), (3,), {"role": "row", "name": "z"})
W = Node("input", (), (2, 3), {"role": "shared", "name": "w"})

NAMED = {
    "neg": np.negative,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sigmoid": scipy.special.expit,
    "erf": scipy.special.erf,
    "round": np.rint,
    "stop": np.positive,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def batch():
    return {"x": states(5, 2, 3, low=0.1, high=0.9), "z": states(5, 3, seed=1, low=0.1, high=0.9)}


def value(node, **values):
    return interpret(Graph((X, Z, W), {"f": node}), {**batch(), **values})["f"]


@pytest.mark.parametrize("op", sorted(UNARY - {"not", "to_float"}))
def test_unary(op):
    expected = NAMED.get(op) or getattr(np, op)
    given = value(B(op, X)).numpy()
    np.testing.assert_allclose(given, expected(batch()["x"].numpy()), rtol=1e-14)


@pytest.mark.parametrize("op", sorted(BINARY - {"and", "or"}))
def test_binary_broadcasts(op):
    expected = NAMED.get(op) or getattr(np, op)
    x, z = batch()["x"].numpy(), batch()["z"].numpy()
    np.testing.assert_allclose(value(B(op, X, Z)), expected(x, z[:, None]), rtol=1e-14)
    np.testing.assert_allclose(value(B(op, Z, X)), expected(z[:, None], x), rtol=1e-14)
    np.testing.assert_allclose(value(B(op, X, 0.5)), expected(x, 0.5), rtol=1e-14)


def test_booleans():
    low, high = B("lt", X, 0.3), B("gt", X, 0.7)
    x = batch()["x"].numpy()
    either = value(B("to_float", B("or", low, high))).numpy()
    np.testing.assert_array_equal(either, (x < 0.3) | (x > 0.7))
    both = value(B("to_float", B("and", B("not", low), B("not", high)))).numpy()
    np.testing.assert_array_equal(both, (x >= 0.3) & (x <= 0.7))
    np.testing.assert_array_equal(value(B.where(low, Z, 7.0)), np.where(
        x < 0.3, batch()["z"].numpy()[:, None], 7.0))  # fmt: skip


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (B.reshape(X, (3, 2)), lambda x, z: x.reshape(5, 3, 2)),
        (B.reshape(B.slice(Z, 0, 0, 1), ()), lambda x, z: z[:, 0]),
        (B.permute(X, (1, 0)), lambda x, z: x.transpose(0, 2, 1)),
        (B.expand(Z, (4, 3)), lambda x, z: np.repeat(z[:, None], 4, 1)),
        (B.slice(X, 1, 0, 3, 2), lambda x, z: x[:, :, ::2]),
        (B.slice(X, 1, 2, -1, -1), lambda x, z: x[:, :, ::-1]),
        (B.slice(X, 1, 2, -1, -2), lambda x, z: x[:, :, ::-2]),
        (B.cat((X, X), 0), lambda x, z: np.concatenate((x, x), 1)),
        (B.cat((Z, B.constant(1.0, (2,))), 0), lambda x, z: np.pad(z, ((0, 0), (0, 2)),
                                                                   constant_values=1.0)),
        (B.reduce("sum", X, (0,)), lambda x, z: x.sum(1)),
        (B.reduce("sum", X, None), lambda x, z: x.sum((1, 2))),
        (B.reduce("amax", X, (1,), True), lambda x, z: x.max(2, keepdims=True)),
        (B.reduce("amin", X, (0, 1)), lambda x, z: x.min((1, 2))),
        (B("matmul", X, B.permute(X, (1, 0))), lambda x, z: x @ x.transpose(0, 2, 1)),
        (B.gather(Z, [2, -1, 0, 0], (2, 2)), lambda x, z: np.stack(
            [z[:, 2], 0 * z[:, 0], z[:, 0], z[:, 0]], 1).reshape(5, 2, 2)),
    ],
)  # fmt: skip
def test_arrays(node, expected):
    x, z = batch()["x"].numpy(), batch()["z"].numpy()
    np.testing.assert_allclose(value(node), expected(x, z), rtol=1e-14)


def test_solve():
    matrix = B.add(
        B("matmul", X, B.permute(X, (1, 0))), B.constant(((2.0, 1.0), (0.0, 2.0)), (2, 2))
    )
    x = batch()["x"].numpy()
    expected = np.linalg.solve(x @ x.transpose(0, 2, 1) + np.array([[2.0, 1.0], [0.0, 2.0]]), x)
    np.testing.assert_allclose(value(B("solve", matrix, X)), expected, rtol=1e-12)


def test_shared_values_are_computed_once():
    """And handed back for each row."""
    w = states(2, 3, seed=2)
    seen = []

    class Counted(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.exp:
                seen.append(args[0].shape)
            return func(*args, **(kwargs or {}))

    with Counted():
        given = value(B.add(B("exp", W), X), w=w)
    assert seen == [(2, 3)]
    torch.testing.assert_close(given, w.exp() + batch()["x"])


def test_outputs_of_shared_values_have_a_batch():
    graph = Graph((X, W), {"f": B("exp", W), "g": X})
    found = interpret(graph, {"x": batch()["x"], "w": states(2, 3)})
    assert found["f"].shape == found["g"].shape == (5, 2, 3)


def test_under_transforms():
    graph = Graph((X, Z, W), {"f": B.mul(B("tanh", B.add(X, Z)), W)})
    values = {**batch(), "w": states(2, 3, seed=2).requires_grad_()}
    expected = interpret(graph, values)["f"]
    (slope,) = torch.autograd.grad(expected.sum(), values["w"])
    torch.testing.assert_close(slope, (values["x"] + values["z"][:, None]).tanh().sum(0))
    rows = vmap(lambda x, z: interpret(graph, {"x": x, "z": z, "w": values["w"]}, rows=False)["f"])
    torch.testing.assert_close(rows(values["x"], values["z"]), expected)
    recorded = make_fx(lambda v: interpret(graph, v)["f"])(values)
    torch.testing.assert_close(recorded(values), expected)
