"""``odeint_adjoint``: gradients by solving the adjoint equation back in time.

With ``a = dL/dy``, back from the last output: ``da/dt = -a f_y``, and the gradients of parameters
and of time are integrals of ``-a f_p`` and ``-a f_t`` (Chen et al. 2018). Between two outputs
``y`` is solved for again, from its state at the later one.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from odeum.compat.torchdiffeq.call import (
    Call,
    Func,
    callbacks_of,
    mixed_norm,
    prepare,
    warn_of_ignored,
)
from odeum.compat.torchdiffeq.layout import Layout, State
from odeum.compat.torchdiffeq.options import Options, method_named
from odeum.compat.torchdiffeq.signs import EventFn, check_event, first_of
from odeum.compat.torchdiffeq.solve import states, states_until_event
from odeum.errors import InputError
from odeum.types import Tensor


def odeint_adjoint(
    func: Func,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Options | None = None,
    event_fn: EventFn | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Options | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Solves as :func:`odeint` does, in memory that does not grow with the number of steps.

    Args:
        func: as for :func:`odeint`, an ``nn.Module`` unless ``adjoint_params`` are given; may
            carry the callbacks of the backward solve as ``callback_step_adjoint`` and so on.
        y0: as for :func:`odeint`.
        t: likewise.
        rtol: likewise.
        atol: likewise.
        method: likewise.
        options: likewise.
        event_fn: likewise.
        adjoint_rtol: relative tolerance of the backward solve; ``rtol`` where None.
        adjoint_atol: absolute tolerance of the backward solve; ``atol`` where None.
        adjoint_method: its method; ``method`` where None.
        adjoint_options: its options; ``options`` without ``norm`` where None. Its state is
            ``(t, y, a, *parameters)``, the tensors of a tuple one by one: what a ``norm`` is
            given. ``norm="seminorm"`` leaves the parameters out.
        adjoint_params: the tensors that get gradients; the parameters of ``func`` where None.

    Returns:
        As :func:`odeint`.

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: where a step fails.

    Example:
        >>> field = nn.Linear(1, 1, bias=False)
        >>> nn.init.constant_(field.weight, -1.0).shape
        torch.Size([1, 1])
        >>> y = odeint_adjoint(lambda t, y: field(y), torch.ones(1), torch.tensor([0.0, 1.0]),
        ...                    adjoint_params=field.parameters())
        >>> y[-1].sum().backward()
        >>> field.weight.grad
        tensor([[0.3679]])
    """
    params = _parameters(func, adjoint_params, adjoint_options)
    if method != (adjoint_method or method) and options is not None and adjoint_options is None:
        raise InputError(
            f"options are for {method_named(method).name!r}, and the backward solve is by "
            f"{adjoint_method!r}: pass adjoint_options too"
        )
    if event_fn is not None:
        check_event(event_fn, t)
    call = prepare(func, y0, t, rtol, atol, method, options)
    if adjoint_options is None:
        adjoint_options = {name: x for name, x in call.options.items() if name != "norm"}
    layout = _adjoint_layout(call.layout, params)
    backward = replace(
        call,
        layout=layout,
        rtol=_adjoint_tolerance("adjoint_rtol", adjoint_rtol, call.rtol, layout, len(call.y0)),
        atol=_adjoint_tolerance("adjoint_atol", adjoint_atol, call.atol, layout, len(call.y0)),
        method=method_named(adjoint_method or method),
        options=dict(adjoint_options),
        norm=_adjoint_norm(adjoint_options, call),
        callbacks=callbacks_of(func, "_adjoint"),
    )
    warn_of_ignored(backward)
    event = None
    if event_fn is not None:
        event = first_of(event_fn, call.layout, call.t[0].detach(), call.y0.detach())
    run = _Run(call, backward, event, params)
    ys, event_t = _Adjoint.apply(run, call.y0, call.t, *params)
    solution = call.layout.unflatten(ys)
    return solution if event is None else (event_t.to(call.t), solution)


def _parameters(
    func: Func, given: Iterable[Tensor] | None, adjoint_options: Options | None
) -> tuple[Tensor, ...]:
    """The tensors that get gradients."""
    if given is None:
        if not isinstance(func, nn.Module):
            raise InputError(
                f"func is a {type(func).__name__}, whose parameters cannot be found: pass "
                "adjoint_params, () where there are none, or make func an nn.Module"
            )
        given = _of_module(func)
    params = tuple(given)
    wanting = tuple(p for p in params if p.requires_grad)
    if len(wanting) < len(params) and callable((adjoint_options or {}).get("norm")):
        warnings.warn(
            f"{len(params) - len(wanting)} adjoint_params do not require a gradient: they are "
            "no part of the backward solve, and of what its norm is given",
            stacklevel=3,
        )
    return wanting


def _of_module(module: nn.Module) -> list[Tensor]:
    if not getattr(module, "_is_replica", False):
        return list(module.parameters())
    # A replica of DataParallel holds its parameters as plain attributes.
    held = [x for part in module.modules() for x in vars(part).values()]
    return [x for x in held if isinstance(x, Tensor) and x.requires_grad]


def _parameter_layout(params: Iterable[Tensor], dtype: torch.dtype) -> Layout:
    params = tuple(params)
    shapes, complexes = tuple(p.shape for p in params), tuple(p.is_complex() for p in params)
    return Layout(shapes, complexes, is_tuple=True, dtype=dtype)


def _adjoint_layout(layout: Layout, params: Iterable[Tensor]) -> Layout:
    """Of ``(t, y, a, *parameters)``, the tensors of a tuple one by one."""
    last = _parameter_layout(params, layout.dtype)
    return Layout(
        shapes=(torch.Size(()), *layout.shapes, *layout.shapes, *last.shapes),
        complexes=(False, *layout.complexes, *layout.complexes, *last.complexes),
        is_tuple=True,
        dtype=layout.dtype,
    )


def _adjoint_tolerance(
    name: str, given: Any, forward: float | Tensor, layout: Layout, dim: int
) -> float | Tensor:
    """For the backward solve; what has no tolerance of its own meets the strictest of the state."""
    if given is not None:
        return layout.tolerance(name, given)
    if not isinstance(forward, Tensor):
        return forward
    strictest = forward.min()
    rest = strictest.expand(sum(layout.sizes) - 1 - 2 * dim)
    return torch.cat([strictest.reshape(1), forward, forward, rest])


def _adjoint_norm(options: Options, call: Call) -> Callable[[tuple[Tensor, ...]], Any]:
    """Of ``(t, y, a, *parameters)``."""
    given = options.get("norm")
    if callable(given):
        return given
    first, last = 1 + len(call.layout.shapes), 1 + 2 * len(call.layout.shapes)

    def norm(tensors: tuple[Tensor, ...]) -> Any:
        t, params = tensors[0], tensors[last:]
        y, a = tensors[1:first], tensors[first:last]
        parts = [t.abs(), *(torch.as_tensor(call.norm(call.layout.state(x))) for x in (y, a))]
        if given != "seminorm":
            parts.append(torch.as_tensor(mixed_norm(params)))
        return max(parts)

    return norm


@dataclass
class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    call: Call
    backward: Call
    event: Callable[[Tensor, Tensor], Tensor] | None
    params: tuple[Tensor, ...]


class _Adjoint(torch.autograd.Function):
    """``(y0, t, params) -> (states, time of the event)``."""

    @staticmethod
    def forward(
        ctx: Any, run: _Run, y0: Tensor, t: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        call = replace(run.call, y0=y0, t=t)
        ctx.run = run
        if run.event is None:
            ys, event_t = states(call), t[-1:].clone()
            times = t
        else:
            event_t, ys = states_until_event(call, run.event)
            times = torch.stack([t[0], event_t.to(t)])
        ctx.save_for_backward(times, ys, *params)
        ctx.mark_non_differentiable(event_t)
        return ys, event_t

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_ys: Tensor, _: Tensor) -> tuple[Any, ...]:
        times, ys, *params = ctx.saved_tensors
        run: _Run = ctx.run
        wants_times = ctx.needs_input_grad[2]
        g_y0, g_times, g_params = _solve_back(run, times, ys, g_ys, params, wants_times)
        if run.event is not None and g_times is not None:
            g_times[1:] = 0.0
        return (None, g_y0, g_times, *g_params)


def _solve_back(
    run: _Run, t: Tensor, ys: Tensor, g_ys: Tensor, params: list[Tensor], wants_times: bool
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Gradients of the initial state, the times and the parameters."""
    of_params = _parameter_layout(params, ys.dtype)
    sizes = [1, ys.shape[1], ys.shape[1], sum(of_params.sizes)]
    field = _adjoint_field(run.call, params, of_params, sizes, wants_times=wants_times)
    g_times = torch.zeros_like(t) if wants_times else None
    g_t, g_y, g_params = ys.new_zeros(1), g_ys[-1], ys.new_zeros(sizes[3])
    for i in range(len(t) - 1, 0, -1):
        if g_times is not None:
            # What moving this output alone would change.
            moved = run.call.field(t[i].to(ys.dtype), ys[i]) @ g_ys[i]
            g_times[i] = moved
            g_t = g_t - moved
        start = torch.cat([g_t, ys[i], g_y, g_params])
        back = replace(run.backward, field=field, y0=start, t=torch.stack([t[i], t[i - 1]]))
        g_t, _, g_y, g_params = states(back)[-1].split(sizes)
        g_y = g_y + g_ys[i - 1]
    if g_times is not None:
        g_times[0] = g_t[0]
    return g_y, g_times, of_params.leaves(of_params.unflatten(g_params)) if params else ()


def _adjoint_field(
    call: Call, params: list[Tensor], of_params: Layout, sizes: list[int], *, wants_times: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """The derivative of ``(t, y, a, *parameters)`` as one vector of parts of those sizes."""

    def field(t: Tensor, state: Tensor) -> Tensor:
        _, y, a, _ = state.split(sizes)
        with torch.enable_grad():
            t, y = t.detach().requires_grad_(wants_times), y.detach().requires_grad_()
            f = call.field(t, y)
        inputs = [y, *([t] if wants_times else []), *params]
        g_y, *others = _pulled(f, inputs, -a)
        g_t = others.pop(0) if wants_times else torch.zeros_like(t)
        parts = [g_t.reshape(1), f.detach(), g_y]
        if others:
            parts.append(of_params.flatten(tuple(others)))
        return torch.cat(parts)

    return field


def _pulled(f: Tensor, inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    if not f.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    # A graph the field closes over belongs to the user: it is not ours to free.
    found = torch.autograd.grad(f, inputs, cotangent, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
