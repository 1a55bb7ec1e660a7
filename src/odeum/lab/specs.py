"""From the plain description of a model in config.json to the model, and back.

Owns the normalisation that is chosen for data, and which fields can be rebuilt by name.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from odeum import methods
from odeum.datasets import Trajectories
from odeum.eager.options import StepOptions
from odeum.errors import InputError, unknown_name
from odeum.models import LearnedDynamics, LinearField, MLPField, NeuralODE, StateTransform
from odeum.types import Tensor

Module = TypeVar("Module", bound=nn.Module)

KINDS = ("linear", "mlp")

LOG_RATIO = 5.0
"""Positive states whose largest value is this many times the smallest are learned as logarithms."""

_SMALL_START = 0.1
"""The last layer is scaled by this: an untrained field hardly moves, so its solves cannot fail."""


def model_spec(
    model: nn.Module | str | None, dim: int, hidden: Sequence[int], activation: str
) -> dict[str, Any]:
    """What config.json says of a model.

    Args:
        model: None or "mlp", "linear", or a module.
        dim: components of the state.
        hidden: widths of the hidden layers of an MLP.
        activation: of an MLP.

    Raises:
        InputError: for a name that is not known, or something that is no model.

    Example:
        >>> model_spec("linear", 2, (), "tanh")
        {'kind': 'linear', 'dim': 2, 'bias': True}
    """
    if isinstance(model, nn.Module):
        field = model.field if isinstance(model, NeuralODE) else model
        if isinstance(field, MLPField):
            found = {"hidden": list(field.hidden), "activation": field.activation}
            return {
                "kind": "mlp",
                "dim": field.dim,
                **found,
                "time_dependent": field.time_dependent,
            }
        if isinstance(field, LinearField):
            return {
                "kind": "linear",
                "dim": field.dim,
                "bias": field.linear.bias is not None,
            }
        n_weights = sum(p.numel() for p in field.parameters())
        return {"kind": "module", "class": type(field).__qualname__, "n_weights": n_weights}
    if model is not None and not isinstance(model, str):
        raise InputError(
            f"model is a {type(model).__name__}: give 'mlp', 'linear', an nn.Module that is a "
            "field f(t, y) of normalised states, or a NeuralODE"
        )
    kind = model or "mlp"
    if kind not in KINDS:
        raise unknown_name("model", kind, KINDS)
    if kind == "linear":
        return {"kind": kind, "dim": dim, "bias": True}
    return {
        "kind": kind,
        "dim": dim,
        "hidden": list(hidden),
        "activation": activation,
        "time_dependent": False,
    }


def build_field(spec: dict[str, Any]) -> nn.Module:
    """The untrained field of a spec, its weights drawn from torch's generator.

    Args:
        spec: from :func:`model_spec`.

    Raises:
        InputError: if it describes a module of the user's, which cannot be rebuilt from its name.
    """
    options = {key: value for key, value in spec.items() if key != "kind"}
    field: nn.Module
    last: nn.Module
    if spec["kind"] == "linear":
        linear = LinearField(**options)
        field = linear
        last = linear.linear
    elif spec["kind"] == "mlp":
        mlp = MLPField(**options)
        field = mlp
        last = mlp.layers[-1]
    else:
        raise InputError(
            f"this run learned a module of its own ({spec['class']}), which cannot be rebuilt from "
            "its name: pass one like it as model="
        )
    with torch.no_grad():
        for weights in last.parameters():
            weights.mul_(_SMALL_START)
    return field


def draw_weights(make: Callable[[], Module], seed: int) -> Module:
    """A field whose weights follow from the seed alone, in float64.

    They are drawn in float32 whatever torch's default is: in float64 one seed gives others.

    Args:
        make: gives the field, its weights drawn from torch's generator.
        seed: of the weights.

    Example:
        >>> field = draw_weights(lambda: LinearField(2), seed=0)
        >>> torch.equal(field.linear.weight, field.linear.weight.float().double())
        True
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return make().double()
    finally:
        torch.set_default_dtype(before)


def solver_spec(options: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of the solver.

    Args:
        options: of a :class:`odeum.models.NeuralODE`.

    Raises:
        InputError: for an unknown method, or options that JSON cannot hold.
    """
    method = methods.get(options["method"])
    tolerances = {name: options[name] for name in ("rtol", "atol")}
    for name, value in tolerances.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{name} is {value!r}: fit takes one positive number, such as 1e-4")
    step = options.get("step")
    return {
        "method": method.tableau.name,
        **tolerances,
        "gradient": options["gradient"],
        "step": None if step is None else vars(step),
    }


def build_model(
    field: nn.Module, transform: StateTransform, solver: dict[str, Any]
) -> LearnedDynamics:
    """A field with its units and the way it is solved.

    Args:
        field: of normalised states.
        transform: to and from them.
        solver: from :func:`solver_spec`.
    """
    step = solver["step"]
    options = {**solver, "step": None if step is None else StepOptions(**step)}
    return LearnedDynamics(field, transform, **options)


def normalisation(head: Trajectories) -> StateTransform:
    """The units to learn in: states centred and scaled to one, and rates of change about one.

    A state whose observations are all positive and span a ratio of 5 or more is learned as its
    logarithm: what multiplies rather than adds becomes regular, and predictions stay positive.

    Args:
        head: what is learned from.

    Returns:
        The transform, float64.

    Example:
        >>> from odeum.datasets import Trajectory
        >>> t = torch.arange(4, dtype=torch.float64)
        >>> y = torch.stack([t, t.exp()], -1)
        >>> normalisation(Trajectories((Trajectory("a", t, y),), "t", ("x", "y"))).log
        tensor([False,  True])
    """
    observed = torch.cat([trajectory.y for trajectory in head])
    columns = [y[~torch.isnan(y)] for y in observed.T]
    log = torch.tensor([bool((y > 0).all() and y.max() >= LOG_RATIO * y.min()) for y in columns])
    columns = [y.log() if as_log else y for y, as_log in zip(columns, log, strict=True)]
    shift = torch.stack([y.mean() for y in columns])
    scale = _or_one(torch.stack([y.std(correction=0) for y in columns]))
    start = min(float(trajectory.t[0]) for trajectory in head)
    span = max(float(trajectory.t[-1] - trajectory.t[0]) for trajectory in head)
    plain = StateTransform(shift, scale, log)
    rates = torch.cat([plain.encode(x.y).diff(dim=0) / x.t.diff()[:, None] for x in head])
    rates = rates[~torch.isnan(rates)]
    rate = float(rates.square().mean().sqrt()) if len(rates) else 0.0
    # States that stand still, or jump between every two rows, say nothing about time's scale.
    t_scale = min(1 / rate, span) if rate > 0 else span
    return StateTransform(shift, scale, log, t_shift=start, t_scale=t_scale)


def spread(head: Trajectories) -> Tensor:
    """The standard deviation of every state in the data's units, [dim]; 1 where it is 0.

    Args:
        head: what is learned from.
    """
    observed = torch.cat([trajectory.y for trajectory in head])
    return _or_one(torch.stack([y[~torch.isnan(y)].std(correction=0) for y in observed.T]))


def _or_one(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0)
