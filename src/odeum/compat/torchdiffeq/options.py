"""torchdiffeq's methods by name, and the options that each family of them reads."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch

from odeum.errors import InputError, unknown_name
from odeum.types import Tensor

Options = Mapping[str, Any]
Read = TypeVar("Read")


@dataclass(frozen=True)
class Method:
    """A method of torchdiffeq.

    Attributes:
        name: torchdiffeq's.
        family: "adaptive", "grid", "adams", "implicit" or "scipy".
        tableau: the name of its coefficients in odeum; "" where it has none.
    """

    name: str
    family: str
    tableau: str = ""

    @property
    def callbacks(self) -> frozenset[str]:
        """The callbacks that it calls."""
        if self.family == "adaptive":
            return frozenset({"callback_step", "callback_accept_step", "callback_reject_step"})
        return frozenset() if self.family == "scipy" else frozenset({"callback_step"})


_FAMILIES = {
    "adaptive": {
        "dopri8": "dopri8",
        "dopri5": "dopri5",
        "tsit5": "tsit5",
        "bosh3": "bosh3",
        "fehlberg2": "fehlberg2",
        "adaptive_heun": "heun",
    },
    "grid": {
        "euler": "euler",
        "midpoint": "midpoint",
        "heun2": "heun",
        "heun3": "heun3",
        "rk4": "kutta38",
    },
    "adams": {"explicit_adams": "", "implicit_adams": "", "fixed_adams": ""},
    "implicit": {
        "implicit_euler": "implicit_euler",
        "implicit_midpoint": "implicit_midpoint",
        "trapezoid": "trapezoid",
        "radauIIA3": "radau3",
        "gl4": "gauss4",
        "radauIIA5": "radau5",
        "gl6": "gauss6",
        "sdirk2": "sdirk2",
        "trbdf2": "trbdf2",
    },
    "scipy": {"scipy_solver": ""},
}

METHODS = {
    name: Method(name, family, tableau)
    for family, names in _FAMILIES.items()
    for name, tableau in names.items()
}
"""Those of 0.2.5, and the implicit ones and ``tsit5`` of later versions."""


def method_named(name: str | None) -> Method:
    """The method of that name; ``dopri5`` for None.

    Raises:
        InputError: for a name torchdiffeq does not know.

    Example:
        >>> method_named("rk4").tableau
        'kutta38'
    """
    if name is None:
        return METHODS["dopri5"]
    if name not in METHODS:
        raise unknown_name("method", str(name), METHODS)
    return METHODS[name]


@dataclass(frozen=True)
class GridOptions:
    """Options of the methods that step on a grid.

    Attributes:
        step_size: distance of the grid's points; the last one is the last output time.
        grid_constructor: ``(func, y0, t) -> grid``, from the first to the last of ``t``. The
            output times are the grid where neither is given.
        interp: "linear" or "cubic": what gives outputs between two points of the grid.
        perturb: whether the field is evaluated just inside a step instead of at its ends.

    Raises:
        InputError: for two grids at once, a step that is not positive, or another ``interp``.
    """

    step_size: float | Tensor | None = None
    grid_constructor: Callable[..., Tensor] | None = None
    interp: str = "linear"
    perturb: bool = False

    def __post_init__(self) -> None:
        if self.step_size is not None and self.grid_constructor is not None:
            raise InputError("step_size and grid_constructor both give a grid: keep one of them")
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"step_size = {float(self.step_size):g}: give a positive number")
        if self.interp not in ("linear", "cubic"):
            raise unknown_name("interp", str(self.interp), ("linear", "cubic"))


MAX_ORDER = 12


@dataclass(frozen=True)
class AdamsOptions:
    """Further options of the Adams methods.

    Attributes:
        max_order: one more than the number of past derivatives weighed, at most 12.
        max_iters: corrections of one implicit step before it is said not to converge.

    Raises:
        InputError: for an order above 12.
    """

    max_order: int = MAX_ORDER
    max_iters: int = 4

    def __post_init__(self) -> None:
        if self.max_order > MAX_ORDER:
            raise InputError(f"max_order = {self.max_order}: it can be {MAX_ORDER} at most")


@dataclass(frozen=True)
class ImplicitOptions:
    """Further options of the implicit methods.

    Attributes:
        max_iters: iterations of one step; odeum's Newton iteration has a bound of its own.
    """

    max_iters: int = 100


@dataclass(frozen=True)
class AdaptiveOptions:
    """Options of the methods whose steps follow a tolerance.

    Attributes:
        min_step: a step this small stands whatever its error.
        max_step: no step is larger.
        first_step: the first one; chosen by the problem where None.
        step_t: times to land a step on, a tensor.
        jump_t: likewise, times where the field jumps.
        safety: the share of the step that would meet the tolerance exactly.
        ifactor: the most a step may grow at once.
        dfactor: the most it may shrink, as a factor.
        max_num_steps: tried steps between two outputs before the solve fails.
        dtype: of the times, at least.
    """

    min_step: float = 0.0
    max_step: float = float("inf")
    first_step: float | None = None
    step_t: Tensor | None = None
    jump_t: Tensor | None = None
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    max_num_steps: int | None = None
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True)
class ScipyOptions:
    """Options of SciPy's solvers.

    Attributes:
        solver: the name ``scipy.integrate.solve_ivp`` knows it by.
        min_step: its smallest step, where it has one.
        max_step: its largest.
    """

    solver: str = "LSODA"
    min_step: float = 0.0
    max_step: float = float("inf")


READ_BY = {
    "adaptive": (AdaptiveOptions,),
    "grid": (GridOptions,),
    "adams": (GridOptions, AdamsOptions),
    "implicit": (GridOptions, ImplicitOptions),
    "scipy": (ScipyOptions,),
}


def warn_of_unread(method: Method, options: Options) -> None:
    """Warns of options that the method does not read, as torchdiffeq does.

    Example:
        >>> warn_of_unread(METHODS["euler"], {"step_size": 0.1})
    """
    known = {"norm"} | {option.name for kind in READ_BY[method.family] for option in fields(kind)}
    unread = sorted(set(options) - known)
    if unread:
        warnings.warn(
            f"method {method.name!r} does not read the options {unread}: it reads "
            f"{', '.join(sorted(known))}",
            stacklevel=5,
        )


def read(kind: type[Read], options: Options) -> Read:
    """The options of one kind among all that were given.

    Example:
        >>> read(AdamsOptions, {"max_order": 5, "step_size": 0.1})
        AdamsOptions(max_order=5, max_iters=4)
    """
    names = {option.name for option in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in options.items() if name in names})
