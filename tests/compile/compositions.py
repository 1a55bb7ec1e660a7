"""Random fields for hypothesis: compositions of the operations that graphs are made of."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

DIM = 4

UNARY = (
    torch.tanh, torch.sin, torch.sigmoid, torch.exp, torch.relu, torch.neg, torch.square,
    torch.abs, torch.erf, torch.atan, functional.softplus, functional.silu, functional.gelu,
    functional.elu, functional.mish, functional.leaky_relu, torch.floor, torch.detach,
)  # fmt: skip
BINARY = (
    torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum,
    lambda a, b: a / (1.5 + b.square()), lambda a, b: torch.where(a > b, a, 0.5 * b),
    lambda a, b: torch.hypot(a, b + 2), lambda a, b: a * (b > 0), torch.atan2,
)  # fmt: skip


def _written(y: torch.Tensor) -> torch.Tensor:
    z = torch.zeros_like(y)
    z[:, 1:] = y[:, :-1]
    z[:, 0] += y[:, 2] * 2
    z[:, ::2] *= 3.0
    return z


MOVES = (
    lambda y: y.flip(-1),
    lambda y: torch.roll(y, 1, -1),
    lambda y: torch.cat([y[:, 2:], y[:, :2]], -1),
    lambda y: torch.stack(y.unbind(-1)[::-1], -1),
    lambda y: y[:, [3, 1, 1, 0]],
    lambda y: y.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4),
    lambda y: y.view(-1, 2, 2).tril().flatten(1),
    lambda y: (y.view(-1, 2, 2) @ y.view(-1, 2, 2)).reshape(-1, 4),
    lambda y: torch.einsum("bi,bj->bij", y, y).sum(-1),
    lambda y: functional.pad(y[:, 1:3], (1, 1)),
    lambda y: y.sum(-1, keepdim=True) * y,
    lambda y: y - y.mean(-1, keepdim=True),
    lambda y: y * y.amax(-1, keepdim=True),
    lambda y: torch.softmax(y, -1),
    lambda y: torch.cumsum(y, -1),
    lambda y: y / (1 + y.norm(dim=-1, keepdim=True)),
    lambda y: functional.layer_norm(y, (4,)),
    lambda y: torch.linalg.solve(
        torch.eye(4) * 3 + y[:, :, None].tanh() * y[:, None, :].tanh(), y[..., None]
    )[..., 0],
    lambda y: torch.diag_embed(y).diagonal(dim1=1, dim2=2) + torch.diag_embed(y).sum(1),
    _written,
)  # fmt: skip


@dataclass
class Step:
    """One operation: what it is, and which of the values so far it reads."""

    kind: str
    which: int
    left: int
    right: int


class Composed(nn.Module):
    """A field of random operations; each reads values made before it."""

    def __init__(self, steps: list[Step], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.steps = steps
        self.weights = nn.ParameterList(
            [torch.rand((DIM, DIM), generator=generator) - 0.5 for _ in steps]
        )

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        values: list[Any] = [y, t * torch.ones_like(y), y * t]
        for step, weight in zip(self.steps, self.weights, strict=True):
            a, b = values[step.left % len(values)], values[step.right % len(values)]
            if step.kind == "unary":
                new = UNARY[step.which % len(UNARY)](a.clamp(-3, 3))
            elif step.kind == "binary":
                new = BINARY[step.which % len(BINARY)](a, b)
            elif step.kind == "move":
                new = MOVES[step.which % len(MOVES)](a)
            elif step.kind == "linear":
                new = functional.linear(a, weight, weight[0])
            else:
                new = a * weight[step.which % DIM] + weight[0, 0]
            values.append(new)
        return sum(values[3:], values[0]) / len(values)


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["unary", "unary", "binary", "move", "move", "linear", "scaled"]),
        st.integers(0, 99),
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=7,
)
fields = st.builds(Composed, steps, st.integers(0, 99))
