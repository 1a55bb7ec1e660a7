"""What a classical system is: a vector field with its constants, names and known truths.

Owns the `System` record and the registry of factories that make them. Knows no particular system
(`classical`) and nothing about solvers: a system only evaluates ``dy/dt``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from odeum.errors import InputError, unknown_name
from odeum.types import Tensor

Constant = float | Tensor
"""A number, a 0-dimensional tensor, or ``[batch, 1]``: one value per row."""

State = Sequence[Tensor]
"""The components of a state in the order of ``state_names``, each ``[..., 1]``.

The trailing axis lets per-row constants and the times of an independent solve, both
``[batch, 1]``, broadcast against them.
"""

Factory = TypeVar("Factory", bound=Callable[..., "System"])

FACTORIES: dict[str, Callable[..., "System"]] = {}


@dataclass(frozen=True, eq=False)
class System:
    """A classical system; call it as a field: ``system(t, y) -> dy/dt``.

    ``y`` is ``[..., dim]`` with any leading axes, of any floating dtype on any device; constants
    that are tensors follow it there. Constants may be replaced call by call,
    ``system(t, y, {"rho": rho})``, which is how ``odeum.solve(system, y0, ts, args={"rho": rho})``
    differentiates with respect to them. Constants with one value per row must reach an independent
    solve that way too, as ``args={"rho": odeum.per_row(rho)}``: rows leave it as they finish.

    Attributes:
        name: the name it is registered under.
        state_names: one name per component, in order.
        constants: value of every constant by name: numbers, or tensors through which gradients
            flow, 0-dimensional or ``[batch, 1]`` with one value per row.
        y0: a typical initial state, one number per component.
        span: a typical time span ``(t0, t1)``.
        description: one sentence for people.
        reference: where it comes from: author, title, year.
        derivative: ``(t, components, **constants) -> dy/dt``, in pieces, one component or several
            wide, that follow each other along the last axis.
        conserved: ``(components, **constants) -> [..., 1]`` by name; see `invariants`.
        solution: ``(t, y0, **constants) -> [time, *batch, dim]``; see `exact`.

    Raises:
        InputError: if a constant is neither a number nor a tensor; on a call, if ``y`` has another
            ``dim`` or an unknown constant is replaced.

    Example:
        >>> from odeum.systems import lorenz
        >>> system = lorenz(rho=30.0)
        >>> system(0.0, torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[10., 25., -6.]])
    """

    name: str
    state_names: tuple[str, ...]
    constants: Mapping[str, Any]
    y0: tuple[float, ...]
    span: tuple[float, float]
    description: str
    reference: str
    derivative: Callable[..., State] = field(repr=False)
    conserved: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict, repr=False)
    solution: Callable[..., Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert len(self.y0) == len(self.state_names)
        assert self.span[0] < self.span[1]
        for name, value in self.constants.items():
            if not _is_constant(value):
                raise InputError(
                    f"constant {name!r} of {self.name} must be a number or a tensor, got {value!r}"
                )

    @property
    def dim(self) -> int:
        """The number of components of the state."""
        return len(self.state_names)

    def __call__(
        self, t: Tensor | float, y: Tensor, args: Mapping[str, Any] | None = None
    ) -> Tensor:
        """The derivative of ``y`` at time ``t``.

        Args:
            t: time, a number or a tensor that broadcasts against ``[..., 1]``.
            y: state, ``[..., dim]``.
            args: constants to use in place of the system's own.

        Returns:
            ``dy/dt``, shaped as ``y``.
        """
        constants = self._constants_like(y, args)
        return torch.cat(tuple(self.derivative(t, self._components(y), **constants)), dim=-1)

    @property
    def invariants(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions ``y [..., dim] -> [...]`` that stay constant along every solution, by name.

        Example:
            >>> from odeum.systems import pendulum
            >>> energy = pendulum(gravity=10.0, length=2.0).invariants["energy"]
            >>> energy(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
            tensor([2., 8.])
        """
        return {
            name: functools.partial(self._invariant, function)
            for name, function in self.conserved.items()
        }

    @property
    def exact(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The exact solution ``(t, y0) -> [time, *batch, dim]``, or None where none is known.

        ``t`` is ``[time]``, or ``[time, *batch]`` with times of each row's own; ``y0``
        ``[*batch, dim]`` is the state at time 0.
        """
        if self.solution is None:
            return None
        return self._exact

    def _exact(self, t: Tensor, y0: Tensor) -> Tensor:
        assert self.solution is not None
        self._components(y0)
        return self.solution(t, y0, **self._constants_like(y0))

    def _invariant(self, function: Callable[..., Tensor], y: Tensor) -> Tensor:
        return function(self._components(y), **self._constants_like(y)).squeeze(-1)

    def _components(self, y: Tensor) -> State:
        if y.ndim == 0 or y.shape[-1] != self.dim:
            raise InputError(
                f"a state of {self.name} has {self.dim} components ({', '.join(self.state_names)}) "
                f"on its last axis, got shape {list(y.shape)}"
            )
        return y.split(1, dim=-1)

    def _constants_like(self, y: Tensor, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
        constants = dict(self.constants)
        for name, value in (args or {}).items():
            if name not in constants:
                raise unknown_name(f"constant of {self.name}", name, constants)
            constants[name] = value
        return {
            name: value.to(y) if isinstance(value, Tensor) else value
            for name, value in constants.items()
        }


def register(factory: Factory) -> Factory:
    """Enter a factory under its own name, so that `names` and `get` find it (a decorator)."""
    FACTORIES[factory.__name__] = factory
    return factory


def names() -> tuple[str, ...]:
    """The names of all systems, sorted.

    Example:
        >>> "lorenz" in names()
        True
    """
    return tuple(sorted(FACTORIES))


def get(name: str, **constants: Any) -> System:
    """The system of a name, with constants other than its defaults where given.

    Args:
        name: one of `names`.
        constants: values by the name of the constant.

    Raises:
        InputError: for an unknown system or constant; the message lists the known ones.

    Example:
        >>> get("van_der_pol", mu=5.0).constants
        {'mu': 5.0}
    """
    if name not in FACTORIES:
        raise unknown_name("system", name, FACTORIES)
    factory = FACTORIES[name]
    allowed = inspect.signature(factory).parameters
    for given in constants:
        if given not in allowed:
            raise unknown_name(f"constant of {name}", given, allowed)
    return factory(**constants)


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_constant(item) for item in value)
    return isinstance(value, int | float | Tensor) and not isinstance(value, bool)
