"""diffrax under jax.jit: the batch on one step size, and rows on their own under vmap.

Gradients are by RecursiveCheckpointAdjoint with a checkpoint for every step that may be taken: the
fastest of diffrax's adjoints on all workloads here (no state is computed twice).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import torch

from odeum.lab.bench.entrants.record import Answer, Entrant, flat
from odeum.lab.bench.workloads import Case

Solve = Callable[[Any, Any], Any]
"""``(parameters, y0) -> ys``."""


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """Both ways to solve a batch, by dopri5; if ``thorough`` by tsit5 where that is faster."""
    # As JAX users choose it: once, before anything is traced.
    jax.config.update("jax_enable_x64", case.workload.dtype == torch.float64)
    return [
        _entrant("diffrax, whole batch", case, _whole, thorough=thorough),
        _entrant("diffrax, vmap", case, _mapped, thorough=thorough),
    ]


def _entrant(
    name: str, case: Case, over: Callable[[Case, Any], Solve], *, thorough: bool
) -> Entrant:
    dopri5 = _with(name, case, over(case, diffrax.Dopri5()))
    if not thorough:
        return dopri5
    return replace(dopri5, variants=(_with(name, case, over(case, diffrax.Tsit5())),))


def _with(name: str, case: Case, solve: Solve) -> Entrant:
    parameters = tuple(jnp.asarray(p.detach().numpy()) for p in case.field.parameters())
    y0 = jnp.asarray(case.y0.numpy())

    def loss(parameters: Any, y0: Any) -> tuple[Any, Any]:
        ys = solve(parameters, y0)
        return jnp.mean(ys**2), ys

    learn = jax.jit(jax.value_and_grad(loss, has_aux=True))
    forward = jax.jit(solve)

    def run() -> tuple[Any, Any]:
        if case.workload.gradient:
            (_, ys), gradients = learn(parameters, y0)
        else:
            ys, gradients = forward(parameters, y0), ()
        return jax.block_until_ready((ys, gradients))

    def answer(found: tuple[Any, Any]) -> Answer:
        ys, gradients = found
        return Answer(np.asarray(ys, dtype=np.float64), flat(np.asarray(g) for g in gradients))

    return Entrant(name, run, answer)


def _whole(case: Case, solver: Any) -> Solve:
    field = jax.vmap(FIELDS[case.workload.field], in_axes=(None, 0, None))
    return lambda parameters, y0: _solve(case, solver, field, parameters, y0)


def _mapped(case: Case, solver: Any) -> Solve:
    field = FIELDS[case.workload.field]
    return jax.vmap(
        lambda parameters, y0: _solve(case, solver, field, parameters, y0),
        in_axes=(None, 0),
        out_axes=1,
    )


def _solve(case: Case, solver: Any, field: Callable[..., Any], parameters: Any, y0: Any) -> Any:
    workload = case.workload
    options: dict[str, Any] = {}
    if workload.gradient:
        options["adjoint"] = diffrax.RecursiveCheckpointAdjoint(checkpoints=workload.max_steps)
    ts = jnp.asarray(case.ts.numpy())
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        ts[0],
        ts[-1],
        None,
        y0,
        parameters,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=workload.tolerance, atol=workload.tolerance),
        max_steps=workload.max_steps,
        throw=False,  # asking whether it failed takes time: where it did, states are infinite
        **options,
    ).ys


def _network(parameters: Any, x: Any, activation: Callable[[Any], Any]) -> Any:
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    for weight, bias in layers[:-1]:
        x = activation(weight @ x + bias)
    weight, bias = layers[-1]
    return weight @ x + bias


def _mlp(t: Any, y: Any, parameters: Any) -> Any:
    return _network(parameters, y, jnp.tanh)


def _hamiltonian(t: Any, y: Any, parameters: Any) -> Any:
    dq, dp = jax.grad(lambda y: _network(parameters, y, jnp.tanh)[0])(y)
    return jnp.stack([dp, -dq])


def _flow(t: Any, y: Any, parameters: Any) -> Any:
    def velocity(z: Any) -> Any:
        return _network(parameters, jnp.append(z, t), jax.nn.softplus)

    trace = jnp.trace(jax.jacfwd(velocity)(y[:-1]))
    return jnp.append(velocity(y[:-1]), -trace)


def _lorenz(t: Any, y: Any, parameters: Any) -> Any:
    x, v, z = y
    return jnp.stack([10 * (v - x), x * (28 - z) - v, x * v - 8 / 3 * z])


FIELDS = {"mlp": _mlp, "hamiltonian": _hamiltonian, "flow": _flow, "lorenz": _lorenz}
"""``(t, y, parameters) -> dy/dt`` of one row."""
