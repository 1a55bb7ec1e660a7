"""Every way to differentiate a solve beside each other: how right, how much work, how much memory.

A loss of one solve is differentiated by each gradient of the registry and by finite differences.
Nothing of the user's is changed by it: no ``.grad``, buffer, parameter or random state.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from odeum import methods
from odeum.audit.case import Case, in_double, untouched
from odeum.audit.table import Audit, Row, recommendation
from odeum.errors import InputError
from odeum.gradient.registry import GRADIENTS, Gradient, gradient_of
from odeum.memory import PeakMemory
from odeum.types import Field, PyTree, Tensor

TIGHT = 1e-9
"""The reference's rtol, or a ten thousandth of the user's where that is less."""

QUICK = 0.3
"""Solves shorter than this, in seconds, are timed three times and the shortest is kept."""


def audit(
    field: Field,
    y0: PyTree,
    ts: Tensor,
    loss: Callable[[PyTree], Tensor],
    args: PyTree = None,
    *,
    method: str | methods.Method = "tsit5",
    rtol: float | Tensor = 1e-4,
    atol: float | Tensor = 1e-6,
    gradients: Sequence[str | Gradient] | None = None,
    memory_limit: float = 2.0**30,
    n_directions: int = 4,
    seed: int = 0,
    show: bool = True,
    **options: Any,
) -> Audit:
    """Tries every gradient on one solve and says what each costs and how right it is.

    The reference is the discrete gradient of a solve at a far tighter tolerance, by "dopri8", or
    "radau5" where the method is made for stiff fields. Central finite differences (four points)
    check it: of the very steps where these are fixed (a gradient whose steps are not the method's,
    as "reversible", is held against its own); of the tight solve where steps adapt, since steps
    that change with the input would drown the difference. A float32 module is copied to
    float64 for both.

    The gradient recommended is, of those whose error is within ten tolerances (or three times the
    best error, where none is) and whose peak is within ``memory_limit``, the fastest; of those
    nearly as fast, the one with the smallest peak.

    Args:
        field: as for ``odeum.solve``; ``y0``, ``ts``, ``args``, ``method``, ``rtol``, ``atol`` too.
        y0: a gradient of it is always taken; of ``ts`` and tensors in ``args`` where they want one.
        ts: output times.
        loss: of the states at ``ts``, ``loss(ys)``, a 0-dimensional tensor.
        args: handed to the field.
        method: the method.
        rtol: relative tolerance of the solves compared.
        atol: their absolute tolerance.
        gradients: names or objects to compare; every name ``odeum.solve`` knows where None.
        memory_limit: bytes that a gradient may hold and still be recommended.
        n_directions: random directions in the space of all inputs to take differences along.
        seed: of those directions, and of a field that draws random numbers.
        show: print the table.
        **options: further arguments of ``odeum.solve``: step, events, breaks, coupling, ….

    Returns:
        The table, one row for each gradient. One that does not apply says why.

    Raises:
        InputError: for arguments that cannot be used.
        SolveError: where the solve itself fails.

    Example:
        >>> y0, ts = torch.ones(1, 2, dtype=torch.float64), torch.tensor([0.0, 1.0])
        >>> found = audit(lambda t, y: -y, y0, ts, lambda ys: ys[-1].sum(), show=False)
        >>> all(row.error < 1e-3 for row in found.rows if not row.reason)
        True
    """
    chosen = list(gradients) if gradients is not None else [g for g in GRADIENTS if g != "none"]
    for gradient in chosen:
        gradient_of(gradient)  # raises where there is no such name
    for name in ("gradient", "on_failure", "dense", "progress"):
        if name in options:
            raise InputError(f"audit takes no {name}=: it chooses that for itself")
    solver = methods.get(method)
    given = {"method": solver, "rtol": rtol, "atol": atol, **options}
    with untouched(field), torch.enable_grad():
        case = Case.of(field, y0, ts, args, loss, given, seed)
        precise = in_double(case)
        tight, name = _tightened(given, solver, precise.dtype)
        in_detail = replace(precise, options=tight)
        reference = in_detail.flat(in_detail.gradient("discrete")[0])
        fixed = not solver.adaptive or (options.get("step") and options["step"].fixed is not None)
        directions = precise.directions(n_directions)
        differences = (precise if fixed else in_detail).differences(directions)
        plain = precise.value("none") if fixed else None

        def differences_of(gradient: str | Gradient) -> Tensor:
            # Reversible steps, above all, are others than the method's own.
            if plain is None or precise.value(gradient) == plain:
                return differences
            return precise.differences(directions, gradient)

        rows = [_row(case, gradient, reference, directions, differences_of) for gradient in chosen]
    allowed = 10 * float(torch.as_tensor(rtol).max())
    found = Audit(
        rows,
        name,
        _difference(reference, directions, differences),
        recommendation(rows, allowed, memory_limit),
    )
    if show:
        print(found)
    return found


def _tightened(
    options: dict[str, Any], method: methods.Method, dtype: torch.dtype
) -> tuple[dict[str, Any], str]:
    """The options of the reference's solve, and what it is."""
    floor = max(10 * torch.finfo(dtype).eps, 1e-12)
    loose = float(torch.as_tensor(options["rtol"]).max())
    rtol = max(min(1e-4 * loose, TIGHT), floor)
    explicit = methods.ExplicitRungeKutta | methods.Symplectic | methods.Adams | methods.SciPy
    stiff = not isinstance(method, explicit) or getattr(method, "implicit", False)
    name = "radau5" if stiff else "dopri8"
    step = options.get("step")
    if step is not None:
        step = replace(step, fixed=None, min=None, max_steps=None)
    tight = {"method": methods.get(name), "rtol": rtol, "atol": options["atol"] * (rtol / loose)}
    kind = str(dtype).removeprefix("torch.")
    return {**options, **tight, "step": step}, f"{name} at rtol={rtol:.0e} in {kind}"


def _row(
    case: Case,
    gradient: str | Gradient,
    reference: list[Tensor],
    directions: list[list[Tensor]],
    differences_of: Callable[[str | Gradient], Tensor],
) -> Row:
    try:
        with PeakMemory() as memory:
            grads, solution = case.gradient(gradient)
        found = case.flat(grads)
        backward = solution.stats.backward
        # What is measured next must not find this one's graph still there.
        del grads
        differences = differences_of(gradient)
        seconds = _seconds(lambda: case.gradient(gradient), case.ts.device)
    except (RuntimeError, ValueError, TypeError) as error:
        return Row(_named(gradient), reason=_sentence(error))
    return Row(
        _named(gradient),
        _error(found, reference),
        _difference(found, directions, differences),
        int(solution.stats.n_evaluations.max()),
        0 if backward is None else int(backward.n_evaluations.max()),
        memory.peak,
        seconds,
    )


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    times: list[float] = []
    while not times or (times[0] < QUICK and len(times) < 3):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _error(found: list[Tensor], reference: list[Tensor]) -> float:
    """The largest error of a group relative to its size, or to 1e-8 of the whole where it is 0."""
    whole = float(torch.cat(reference).norm())
    if whole == 0:
        return float(torch.cat(found).norm())
    return max(
        float((g - exact).norm()) / max(float(exact.norm()), 1e-8 * whole)
        for g, exact in zip(found, reference, strict=True)
    )


def _difference(found: list[Tensor], directions: list[list[Tensor]], differences: Tensor) -> float:
    whole = torch.cat(found)
    along = torch.stack([whole @ torch.cat(direction) for direction in directions])
    return float((along - differences).norm() / differences.norm().clamp(min=1e-300))


def _named(gradient: str | Gradient) -> str:
    """A gradient as the user would write it, with the options that differ from the default."""
    if isinstance(gradient, str):
        return gradient
    if not is_dataclass(gradient):
        return getattr(gradient, "__name__", type(gradient).__name__)
    changed = [
        f"{option.name}={getattr(gradient, option.name)!r}"
        for option in fields(gradient)
        if getattr(gradient, option.name) != option.default
    ]
    return f"{type(gradient).__name__}({', '.join(changed)})"


def _sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
