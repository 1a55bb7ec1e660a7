"""A zoo of vector fields: those that are compiled, and those that are refused with a reason."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap
from torch.nn import functional

import odeum

ACTIVATIONS = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": lambda: nn.ELU(0.7),
    "celu": lambda: nn.CELU(1.3),
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "softplus": nn.Softplus,
    "softplus_steep": lambda: nn.Softplus(beta=3.0, threshold=2.0),
    "mish": nn.Mish,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.6),
    "relu6": nn.ReLU6,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "softshrink": lambda: nn.Softshrink(0.1),
    "hardshrink": lambda: nn.Hardshrink(0.1),
    "logsigmoid": nn.LogSigmoid,
    "prelu": nn.PReLU,
    "glu": lambda: nn.Sequential(nn.Linear(5, 10), nn.GLU()),
    "softmax": lambda: nn.Softmax(-1),
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "threshold": lambda: nn.Threshold(0.1, -0.2),
}


@dataclass
class Case:
    """A field and states it can be solved from.

    Attributes:
        field: the user's.
        y0: [batch, *shape], [dim] or a pytree.
        args: the user's.
    """

    field: Any
    y0: Any
    args: Any = None
    tensors: list[torch.Tensor] = field(default_factory=list)


FIELDS: dict[str, Callable[[], Case]] = {}
REFUSED: dict[str, tuple[Callable[[], Case], str]] = {}
"""With words that the reason holds."""


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    FIELDS[function.__name__] = function
    return function


def refused(words: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def enter(function: Callable[[], Case]) -> Callable[[], Case]:
        REFUSED[function.__name__] = (function, words)
        return function

    return enter


def states(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator)


class Autonomous(nn.Module):
    """A network of the state alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(y)


def mlp(dim: int, hidden: int, out: int | None = None, act: Any = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    out = dim if out is None else out
    return nn.Sequential(
        nn.Linear(dim, hidden), act(), nn.Linear(hidden, hidden), act(), nn.Linear(hidden, out)
    )


# Networks


@case
def two_layers() -> Case:
    return Case(Autonomous(mlp(2, 8)), states(5, 2))


@case
def closure() -> Case:
    net = mlp(2, 8)
    return Case(lambda t, y: net(y), states(5, 2))


@case
def one_system() -> Case:
    return Case(Autonomous(mlp(3, 4)), states(3))


def _activated(name: str) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 5), ACTIVATIONS[name](), nn.Linear(5, 3))
        return Case(Autonomous(net), states(4, 3, low=-2, high=2))

    return build


for _name in ACTIVATIONS:
    FIELDS[f"activation_{_name}"] = _activated(_name)


@case
def sine_and_time() -> Case:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            inputs = torch.cat([y, t.expand(len(y), 1)], -1)
            return self.second(torch.sin(self.first(inputs)))

    torch.manual_seed(0)
    return Case(Timed(), states(4, 2))


@case
def time_features() -> Case:
    net = mlp(6, 5, 2)
    frequencies = torch.arange(1, 3) * math.pi

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        phase = t * frequencies
        return net(torch.cat([y, phase.sin(), phase.cos()], -1))

    return Case(field, states(4, 2))


@case
def residual() -> Case:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
            self.scale = nn.Parameter(torch.tensor(0.3))

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return y + self.scale * functional.silu(self.inner(self.norm(y)))

    torch.manual_seed(0)
    return Case(Autonomous(nn.Sequential(Block(), Block(), nn.Linear(4, 4))), states(3, 4))


@case
def concatenating() -> Case:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(7, 3)])

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = layers[0](y).relu()
        return layers[1](torch.cat((hidden, y), dim=1)) * torch.exp(-t)

    return Case(field, states(4, 3))


@case
def without_bias() -> Case:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Identity(), nn.Dropout(0.5).eval())
    return Case(Autonomous(net), states(4, 3))


@case
def group_norm() -> Case:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 3))
    return Case(Autonomous(net), states(4, 3))


@case
def batch_norm_in_evaluation() -> Case:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    net(states(20, 3))
    return Case(Autonomous(net.eval()), states(4, 3))


@case
def rms_norm() -> Case:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.RMSNorm(6, eps=1e-6), nn.Tanh(), nn.Linear(6, 3))
    return Case(Autonomous(net), states(4, 3))


@case
def weight_norm() -> Case:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    return Case(Autonomous(nn.Sequential(layer, nn.Tanh())), states(4, 3))


@case
def gru() -> Case:
    torch.manual_seed(0)
    cell = nn.GRUCell(4, 4)
    return Case(lambda t, y: cell(y, y) - y, states(3, 4))


@case
def lstm() -> Case:
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 3)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h, c = y.chunk(2, -1)
        new_h, new_c = cell(h, (h, c))
        return torch.cat([new_h - h, new_c - c], -1)

    return Case(field, states(3, 6))


@case
def bilinear() -> Case:
    torch.manual_seed(0)
    layer = nn.Bilinear(3, 3, 3)
    return Case(lambda t, y: layer(y, y.sin()), states(4, 3))


@case
def hypernetwork() -> Case:
    torch.manual_seed(0)
    net = nn.Linear(1, 9)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        weights = net(t.expand(len(y), 1)).view(-1, 3, 3)
        return torch.bmm(weights, y.unsqueeze(-1)).squeeze(-1).tanh()

    return Case(field, states(4, 3))


@case
def attention() -> Case:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(y).chunk(3, -1)
            weights = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1)
            return weights @ v

    torch.manual_seed(0)
    return Case(Attention(), states(3, 5, 4))


@case
def scaled_attention() -> Case:
    torch.manual_seed(0)
    heads = nn.MultiheadAttention(4, 2, batch_first=True)
    return Case(lambda t, y: heads(y, y, y, need_weights=False)[0], states(3, 5, 4))


@case
def logsumexp() -> Case:
    weight = states(4, 3).requires_grad_()
    return Case(lambda t, y: y - torch.logsumexp(y @ weight.T, -1, keepdim=True) * y, states(3, 3))


# Fields that differentiate inside


@case
def hamiltonian() -> Case:
    net = mlp(4, 6, 1)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dq, dp = grad(lambda y: net(y).sum())(y).chunk(2, -1)
        return torch.cat([dp, -dq], -1)

    return Case(field, states(3, 4))


@case
def hamiltonian_by_autograd() -> Case:
    class Hamiltonian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = mlp(2, 6, 1, nn.Softplus)

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                y = y if y.requires_grad else y.requires_grad_()
                energy = self.energy(y).sum()
                (slope,) = torch.autograd.grad(energy, y, create_graph=True)
            return torch.stack([slope[:, 1], -slope[:, 0]], -1)

    return Case(Hamiltonian(), states(3, 2))


@case
def gradient_flow_of_gelu() -> Case:
    net = mlp(2, 6, 1, nn.GELU)
    return Case(lambda t, y: -vmap(grad(lambda x: net(x)[0]))(y), states(3, 2))


def _slope_of(name: str) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        act = ACTIVATIONS[name]()
        net = nn.Sequential(nn.Linear(2, 5), act, nn.Linear(5, 1))
        return Case(
            lambda t, y: -grad(lambda x: net(x).square().sum())(y), states(3, 2, low=-2, high=2)
        )

    return build


for _name in ACTIVATIONS:
    if _name == "hardsigmoid":  # torch has no second derivative of it
        REFUSED[f"slope_of_{_name}"] = (_slope_of(_name), "cannot be differentiated")
    else:
        FIELDS[f"slope_of_{_name}"] = _slope_of(_name)


@case
def lagrangian() -> Case:
    net = mlp(4, 6, 1, nn.Softplus)

    def lagrange(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return net(torch.cat([q, v])).sum() + 0.5 * (v * v).sum()

    def acceleration(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mass = jacrev(grad(lagrange, 1), 1)(q, v)
        mixed = jacrev(grad(lagrange, 1), 0)(q, v)
        return torch.linalg.solve(mass, grad(lagrange, 0)(q, v) - mixed @ v)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        q, v = y.chunk(2, -1)
        return torch.cat([v, vmap(acceleration)(q, v)], -1)

    return Case(field, states(3, 4))


@case
def exact_trace_flow() -> Case:
    net = mlp(3, 6, 2, nn.Softplus)

    def field(t: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        def velocity(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return net(torch.cat([y, t]))

        y, _ = state
        jacobians = vmap(jacrev(velocity, 1))(t, y)
        trace = jacobians.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return vmap(velocity)(t, y), -trace

    return Case(field, (states(3, 2), torch.zeros(3, 1)))


@case
def trace_by_autograd() -> Case:
    net = mlp(2, 6, 2)

    def field(t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = state[:, :2]
            y = y if y.requires_grad else y.requires_grad_()
            velocity = net(y)
            trace = sum(
                torch.autograd.grad(velocity[:, i].sum(), y, create_graph=True)[0][:, i]
                for i in range(2)
            )
        return torch.cat([velocity, -trace[:, None]], -1)

    return Case(field, states(3, 3))


@case
def jacobian_products() -> Case:
    net = mlp(3, 5)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _, forward = jvp(net, (y,), (torch.ones_like(y),))
        _, pull = vjp(net, y)
        return forward + pull(y)[0]

    return Case(field, states(3, 3))


@case
def newton_step() -> Case:
    net = mlp(2, 5, 2)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        jacobian = vmap(jacrev(net))(y) + 2 * torch.eye(2)
        return -torch.linalg.solve(jacobian, net(y).unsqueeze(-1)).squeeze(-1)

    return Case(field, states(3, 2))


@case
def inverse_and_determinant() -> Case:
    weight = (0.3 * states(3, 3)).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        metric = torch.eye(3) + weight @ weight.T + y.unsqueeze(-1) * y.unsqueeze(-2)
        solved = torch.linalg.inv(metric) @ y.unsqueeze(-1)
        return solved.squeeze(-1) * torch.linalg.det(metric)[:, None].sqrt()

    return Case(field, states(3, 3))


# Analytic systems


@case
def lorenz() -> Case:
    constants = nn.ParameterDict(
        {"s": torch.tensor(10.0), "r": torch.tensor(28.0), "b": torch.tensor(8 / 3)}
    )

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y, z = y.unbind(-1)
        s, r, b = constants["s"], constants["r"], constants["b"]
        return torch.stack([s * (y - x), x * (r - z) - y, x * y - b * z], -1)

    return Case(field, 10 * states(4, 3))


def _from_library(name: str) -> Callable[[], Case]:
    def build() -> Case:
        system = odeum.systems.get(name)
        y0 = torch.tensor(system.y0)
        return Case(system, y0 * (1 + 0.1 * states(3, len(y0))))

    return build


for _name in odeum.systems.names():
    FIELDS[f"system_{_name}"] = _from_library(_name)


@case
def n_body() -> Case:
    masses = torch.tensor([1.0, 0.5, 0.25]).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        state = y.view(-1, 2, 3, 2)
        position, velocity = state[:, 0], state[:, 1]
        away = position[:, None] - position[:, :, None]
        distance = away.norm(dim=-1, keepdim=True)
        pull = (masses[:, None] * away / (distance**2 + 0.01) ** 1.5).sum(2)
        return torch.stack([velocity, pull], 1).reshape(y.shape)

    return Case(field, states(3, 12))


@case
def distances() -> Case:
    centres = states(4, 2, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(y[:, None], centres)[:, 0]
        return -y / distances[:, :2]

    return Case(field, states(3, 2))


@case
def kuramoto() -> Case:
    frequencies = states(4, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return frequencies + torch.sin(y[:, None, :] - y[:, :, None]).mean(-1)

    return Case(field, states(3, 4))


@case
def polynomials() -> Case:
    weight = states(2, 9, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, z = y[:, :1], y[:, 1:]
        terms = [x**0, x, z, x**2, x * z, z**2, x**3, x**2 * z, z**5]
        return torch.cat(terms, -1) @ weight.T

    return Case(field, states(3, 2))


@case
def powers() -> Case:
    exponent = torch.tensor(1.3).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rates = [y**0.5, y**-0.5, y**-1, y**-2, y**1.5, y**-1.5, y**exponent, 2.0**y, y**2.3]
        return sum(rates) / 10

    return Case(field, states(3, 2, low=0.5))


@case
def einsum() -> Case:
    tensor = states(3, 3, 3, seed=1).requires_grad_()
    return Case(lambda t, y: torch.einsum("ijk,bj,bk->bi", tensor, y, y), states(4, 3))


@case
def chemistry() -> Case:
    rates = torch.tensor([0.04, 3.0, 1.5]).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b, c = y[..., 0], y[..., 1], y[..., 2]
        first, second, third = rates[0] * a, rates[1] * b * b, rates[2] * b * c
        return torch.stack((third - first, first - second - third, second), dim=-1)

    return Case(field, states(4, 3, low=0.0))


@case
def forced() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        drive = torch.where(t > 0.5, torch.cos(3 * t), torch.ones_like(t))
        return -y + drive * torch.clamp(y, -0.5, 0.5) + torch.floor(2 * y) + y % 0.3

    return Case(field, states(4, 2))


@case
def minima_and_maxima() -> Case:
    bound = states(3, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        low, high = torch.minimum(y, bound), torch.maximum(y, bound * t)
        return low - high + y.amax(-1, keepdim=True) * y.max(-1, keepdim=True).values

    return Case(field, states(4, 3))


@case
def reactions_on_a_ring() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        spread = torch.roll(y, 1, -1) - 2 * y + torch.roll(y, -1, dims=-1)
        return spread + y.flip(-1) * 0.1 - y[:, [2, 0, 1, 3]] + y[:, ::2].repeat(1, 2)

    return Case(field, states(3, 4))


@case
def triangles() -> Case:
    weight = states(4, 4, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        skew = torch.triu(weight, 1) - torch.triu(weight, 1).T
        return y @ skew + torch.cumsum(y, -1) @ torch.tril(weight).T

    return Case(field, states(3, 4))


@case
def finite_differences() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(y, (1, 1))
        return padded[:, 2:] - 2 * padded[:, 1:-1] + padded[:, :-2]

    return Case(field, states(3, 6))


@case
def written_in_place() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dy = torch.zeros_like(y)
        dy[:, 0] = y[:, 1]
        dy[:, 1] = -y[:, 0]
        dy[:, 1] += t[:, 0]
        dy[..., 2:] = y[:, :2] * 3
        dy.mul_(0.5)
        return dy

    return Case(field, states(3, 4))


@case
def an_oscillator_in_place() -> Case:
    matrix = states(2, 2, seed=1).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        jacobian = torch.empty(len(y), 2, 2)
        jacobian[:, 0, 0] = y[:, 0].sin()
        jacobian[:, 0, 1] = 1.0
        jacobian[:, 1, :] = matrix[1] * y
        jacobian[:, 1, 0].add_(2.0)
        return torch.einsum("bij,bj->bi", jacobian, y)

    return Case(field, states(3, 2))


@case
def converted() -> Case:
    weight = states(2, 2, seed=1).float().requires_grad_()
    rates = states(4, 1, seed=2).float().requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        return (y @ weight.to(y)) * rate.double() + weight.double()[0]

    return Case(field, states(4, 2), odeum.per_row(rates))


@case
def scattered() -> Case:
    there, twice = torch.tensor([2, 0]), torch.tensor([1, 1, 0])

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        zero, along = torch.zeros_like(y), twice.expand(len(y), 3)
        pieces = [
            zero.index_add(1, twice, y, alpha=2.0), zero.scatter_add(1, along, y * y),
            y.index_copy(1, there, t * y[:, :2]), y.scatter(1, there.expand(len(y), 2), 3.0),
            y.index_select(1, twice), y.gather(1, along),
        ]  # fmt: skip
        return sum(pieces)

    return Case(field, states(4, 3))


@case
def wrapped_by_torch() -> Case:
    net = mlp(2, 4)
    return Case(vmap(lambda t, y: net(y) * t), states(3, 2))


@case
def special_functions() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pieces = [
            torch.atan2(y, y + 3), torch.erf(y), torch.log1p(y * y), torch.expm1(y),
            torch.asinh(y), torch.acosh(y + 3), torch.atanh(y / 3), torch.asin(y / 2),
            torch.acos(y / 2), torch.atan(y), torch.sinh(y), torch.cosh(y), torch.exp2(y),
            torch.log2(y + 2), torch.log10(y + 2), torch.rsqrt(y + 2), torch.tan(y),
            torch.sign(y), torch.abs(y), torch.logaddexp(y, 2 * y), torch.square(y),
            torch.hypot(y, y + 2), torch.lerp(y, y * y, 0.3), torch.addcmul(y, y, y, value=0.5),
            torch.fmod(y, 0.4), torch.remainder(y, -0.4), torch.trunc(3 * y), torch.round(3 * y),
            torch.frac(y), torch.erfc(y), torch.sigmoid(y), torch.reciprocal(y + 2),
        ]  # fmt: skip
        # Those that jump must not jump back and forth where a solution slides along their edge.
        return 3 + 0.1 * sum(pieces)

    return Case(field, 0.3 * states(4, 2) - 1)


@case
def statistics() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        centred = (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True)
        return centred + y.var(-1, keepdim=True, correction=0) * y.prod(-1, keepdim=True)

    return Case(field, states(4, 3))


@case
def masks() -> Case:
    kept = torch.tensor([True, False, True])

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        both = (y > 0) & (y < 0.5) | ~(y < -0.5)
        scaled = torch.where(both, y, 2 * y) * both
        return scaled.masked_fill(~kept, 0.0) + (y > 0).to(y.dtype) + kept * y

    return Case(field, states(4, 3))


@case
def crossed() -> Case:
    axis = states(3, seed=1).requires_grad_()
    return Case(lambda t, y: torch.linalg.cross(axis.expand_as(y), y), states(4, 3))


@case
def trajectories_of_images() -> Case:
    mixing = states(6, 6, seed=1).requires_grad_()
    return Case(lambda t, y: (y.flatten(1) @ mixing).view_as(y) * t, states(3, 2, 3))


@case
def dictionary() -> Case:
    def field(t: torch.Tensor, y: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"q": y["p"], "p": -y["q"] - 0.1 * t * y["p"]}

    return Case(field, {"q": states(3, 2), "p": states(3, 2, seed=1)})


# Arguments


@case
def arguments() -> Case:
    args = {"rate": torch.tensor(0.7).requires_grad_(), "power": 2, "name": "decay"}

    def field(t: torch.Tensor, y: torch.Tensor, args: dict[str, Any]) -> torch.Tensor:
        return -args["rate"] * y ** args["power"]

    return Case(field, states(4, 2), args)


@case
def parameters_per_row() -> Case:
    rates = states(5, 1, seed=1).requires_grad_()
    matrices = states(5, 2, 2, seed=2).requires_grad_()

    def field(t: torch.Tensor, y: torch.Tensor, args: Any) -> torch.Tensor:
        rate, matrix = args
        return -rate * y + (matrix @ y.unsqueeze(-1)).squeeze(-1)

    return Case(field, states(5, 2), (odeum.per_row(rates), odeum.per_row(matrices)))


@case
def an_ensemble() -> Case:
    net = mlp(2, 4)
    weights = {
        name: odeum.per_row(torch.stack([p.detach() * (1 + 0.1 * i) for i in range(5)]))
        for name, p in net.named_parameters()
    }

    def field(t: torch.Tensor, y: torch.Tensor, weights: Any) -> torch.Tensor:
        return vmap(lambda w, x: functional_call(net, w, (x,)))(weights, y)

    return Case(field, states(5, 2), weights)


# Derivatives that the field cuts


@case
def detached() -> Case:
    net = mlp(2, 4)
    return Case(lambda t, y: net(y.detach()) - y * y.data.norm(dim=-1, keepdim=True), states(3, 2))


@case
def without_gradients_inside() -> Case:
    net = mlp(2, 4)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = net(y).exp()
        return -scale * y

    return Case(field, states(3, 2))


# Refused


@refused("convolution")
def convolution() -> Case:
    torch.manual_seed(0)
    return Case(Autonomous(nn.Conv1d(1, 1, 3, padding=1)), states(3, 1, 5))


@refused("draws random numbers")
def dropout() -> Case:
    torch.manual_seed(0)
    return Case(Autonomous(nn.Sequential(nn.Linear(2, 2), nn.Dropout())), states(3, 2))


@refused("draws random numbers")
def noise() -> Case:
    return Case(lambda t, y: y + torch.randn_like(y), states(3, 2))


@refused("Python number")
def branches_on_time() -> Case:
    return Case(lambda t, y: -y if float(t.mean()) > 0.5 else y, states(3, 2))


@refused("Python number")
def branches_on_a_parameter() -> Case:
    gain = torch.tensor(1.0).requires_grad_()
    return Case(lambda t, y: gain * y if gain > 0 else y, states(3, 2))


@refused("Python number")
def item_of_a_parameter() -> Case:
    gain = torch.tensor(1.0).requires_grad_()
    return Case(lambda t, y: gain.item() * y, states(3, 2))


@refused("out of torch")
def list_of_a_parameter() -> Case:
    gain = torch.tensor([1.0, 2.0])
    return Case(lambda t, y: gain.tolist()[0] * y, states(3, 2))


@refused("out of torch")
def tensor_of_tensors() -> Case:
    return Case(lambda t, y: y * torch.tensor([t.mean(), 1.0]), states(3, 2))


@refused("out of torch")
def through_numpy() -> Case:
    return Case(lambda t, y: y * torch.from_numpy(t.detach().numpy().copy()), states(3, 2))


@refused("called on one row")
def batch_norm() -> Case:
    return Case(lambda t, y: functional.batch_norm(y, None, None, training=True), states(3, 2))


@refused("rows are not independent")
def centred_over_rows() -> Case:
    return Case(lambda t, y: y - y.mean(0), states(3, 2))


@refused("rows are not independent")
def attention_over_rows() -> Case:
    return Case(lambda t, y: torch.softmax(y @ y.T, -1) @ y, states(3, 2))


@refused("rows are not independent")
def divided_by_the_batch() -> Case:
    return Case(lambda t, y: y / len(y), states(3, 2))


@refused("fails on")
def takes_one_row_only() -> Case:
    return Case(lambda t, y: y.reshape(1, 2), states(3, 2))


@refused("gain, which has torch.float64 where the state has torch.float32")
def parameter_of_another_dtype() -> Case:
    gain = torch.ones(2, dtype=torch.float64, requires_grad=True)
    return Case(lambda t, y: (gain * y).float(), states(3, 2).float())


@refused("computes in torch.float64")
def computes_in_another_dtype() -> Case:
    return Case(lambda t, y: y.double().sin().float(), states(3, 2).float())


@refused("integers")
def rounded_to_integers() -> Case:
    return Case(lambda t, y: y * y.long(), states(3, 2))


@refused("argmax")
def indexed_by_the_state() -> Case:
    table = states(4)
    return Case(lambda t, y: y * table[y.argmax(-1)][:, None], states(3, 2))


@refused("changes self.nfe")
def counting() -> Case:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nfe, self.net = 0, nn.Linear(2, 2)

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.nfe += 1
            return self.net(y)

    return Case(Counting(), states(3, 2))


@refused("changes self.last")
def remembering() -> Case:
    class Remembering(nn.Module):
        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.last = -y
            return self.last

    return Case(Remembering(), states(3, 2))


@refused("changes seen")
def logging() -> Case:
    seen: list[int] = []

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(len(y))
        return -y

    return Case(field, states(3, 2))


@refused("writes into a tensor that the field did not make")
def counting_in_a_buffer() -> Case:
    count = torch.zeros(())

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        count.add_(1.0)
        return -y

    return Case(field, states(3, 2))


@refused("writes into a tensor that the field did not make")
def writing_into_the_state() -> Case:
    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y[:, 0] = 0.0
        return y * 1.0

    return Case(field, states(3, 2))


@refused("derivative")
def own_derivative() -> Case:
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return -g

    return Case(lambda t, y: Reversed.apply(y).sin(), states(3, 2))


@refused("fft")
def fourier() -> Case:
    return Case(lambda t, y: torch.fft.fft(y).abs(), states(3, 4))
