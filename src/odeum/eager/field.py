"""The user's field as the engines call it: ``f(t [rows, 1], y [rows, dim]) -> [rows, dim]``.

Owns the translation to the user's shapes, and the checks of what comes back. Knows no method.
"""

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.eager.autocast import Autocast
from odeum.eager.integrals import Integrals
from odeum.errors import InputError
from odeum.tree import Structure
from odeum.types import Field, PyTree, Tensor


@dataclass(frozen=True)
class PerRow:
    """A tensor in ``args`` with one entry per row; the field sees the entries of its rows."""

    tensor: Tensor


def per_row(tensor: Tensor) -> PerRow:
    """Marks a tensor in ``args`` as holding one entry per row of the batch.

    Rows that have finished are dropped from the field's evaluations; so are their entries.

    Args:
        tensor: [batch, ...].

    Raises:
        InputError: for anything that is no tensor with a batch axis.

    Example:
        >>> import odeum
        >>> rates = torch.tensor([[1.0], [2.0]])
        >>> y0, ts = torch.ones(2, 1), torch.tensor([0.0, 1.0])
        >>> odeum.solve(lambda t, y, rate: -rate * y, y0, ts, args=odeum.per_row(rates)).ys[-1]
        tensor([[0.3679],
                [0.1353]])
    """
    if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0:
        raise InputError("per_row takes a tensor whose first axis is the batch")
    return PerRow(tensor)


def _takes_args(field: Field) -> bool:
    """Whether a field demands ``args`` although none are given."""
    if not inspect.isroutine(field):
        # An object: what runs is a function of its class, with the object itself first.
        name = "forward" if isinstance(field, torch.nn.Module) else "__call__"
        return _n_required(getattr(type(field), name)) > 3
    return _n_required(field) > 2


def _n_required(function: Any) -> int:
    """Number of positional arguments a call demands, 0 where that cannot be told."""
    try:
        code, defaults = function.__code__, function.__defaults__ or ()
    except AttributeError:  # builtins and functools.partial: no code to look at
        return 0
    return code.co_argcount - len(defaults) - inspect.ismethod(function)


class RowField:
    """A field on the rows of a ``[rows, dim]`` state.

    Args:
        field: the user's.
        structure: the user's state.
        args: the user's, whole.
        joint: whether the batch is one row (then ``rows`` is 1 and ``dim`` the whole batch).
        rows: which of the user's rows a call holds, None for all of them.
        batch: which of the user's rows are the batch that is solved, None for all of them.
        window: earliest and latest time that each of the user's rows may see, [batch, 1] each.
        integrals: what is integrated along the solution: numbers that stand after the state's own
            in each row of ``y`` and that nothing depends on; None where there are none.
        autocast: what the field is evaluated under; whatever there is then where None.
    """

    def __init__(
        self,
        field: Field,
        structure: Structure,
        args: PyTree,
        *,
        joint: bool,
        rows: Tensor | None = None,
        batch: Tensor | None = None,
        window: tuple[Tensor, Tensor] | None = None,
        integrals: Integrals | None = None,
        autocast: Autocast | None = None,
    ) -> None:
        self.field = field
        self.structure = structure
        self.args = args
        self.joint = joint
        self.rows = rows
        self.batch = batch
        self.window = window
        self.integrals = integrals
        self.autocast = autocast
        self.scalar_time = joint or not structure.batch_shape
        self._direct = structure.is_flat and not joint
        self._has_args = args is not None or _takes_args(field)
        self._args = None
        self._integrals = integrals if integrals is None or rows is None else integrals.select(rows)
        if args is not None:
            with torch.enable_grad():  # whether a gradient is recorded is for each call to say
                self._args = pytree.tree_map(self._cut, args)

    def _like(self, **changes: Any) -> "RowField":
        if self.scalar_time:  # one row, whichever of them are asked for
            changes = {**changes, "rows": None, "batch": None}
        names = ("args", "rows", "batch", "window", "integrals", "autocast")
        kept = {name: getattr(self, name) for name in names}
        return RowField(self.field, self.structure, joint=self.joint, **{**kept, **changes})

    def select(self, rows: Tensor) -> "RowField":
        """This field on those rows of its batch."""
        return self._like(rows=rows if self.batch is None else self.batch[rows])

    def part(self, positions: Tensor) -> "RowField":
        """This field on some of the rows it holds."""
        return self._like(rows=positions if self.rows is None else self.rows[positions])

    def user_row(self, row: int) -> int:
        """The number that a row of its batch has among the user's."""
        return row if self.batch is None else int(self.batch[row])

    def calls(self, positions: Tensor) -> list[Tensor]:
        """Positions of rows it holds, of which some may come several times, one call a part.

        Without a batch axis a function takes one state at a time.
        """
        if not len(positions):
            return []
        return list(positions.split(1)) if self.scalar_time else [positions]

    def narrowed(self, rows: Tensor) -> "RowField":
        """This field where those rows of its batch are the whole batch."""
        if self.batch is not None:
            rows = self.batch[rows]
        return self._like(rows=rows, batch=rows)

    def within(self, earliest: Tensor, latest: Tensor) -> "RowField":
        """This field, never asked for times outside a window, [batch, 1] of the user's each."""
        return self._like(window=(earliest, latest))

    def with_args(self, args: PyTree) -> "RowField":
        """This field with other ``args``."""
        return self._like(args=args)

    def without_integrals(self) -> "RowField":
        """This field of the state alone."""
        return self if self.integrals is None else self._like(integrals=None)

    def with_field(self, field: Field) -> "RowField":
        """The same around another function that is called like this one."""
        other = copy(self)
        other.field = field
        return other

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """The derivative, [rows, dim], at times [rows, 1]."""
        inputs = self.inputs(t, y)
        dy = self._called(self.field, inputs, len(y))
        state = inputs[1]
        if not (
            isinstance(dy, torch.Tensor)
            and isinstance(state, torch.Tensor)
            and dy.shape == state.shape
            and dy.dtype == state.dtype
        ):
            self._check(dy, state)
        flat = dy if self._direct else self.structure.flatten(dy).reshape(len(y), -1)
        if self._integrals is None:
            return flat
        return torch.cat([flat, self._integrands(self._integrals, inputs, dy, len(y))], -1)

    def completed(self, t: Tensor, y: Tensor, f: Tensor) -> Tensor:
        """The derivative of rows whose state has the derivative ``f``, where that is known.

        Args:
            t: times, [rows, 1].
            y: states, with the integrals or without.
            f: the derivative of the state, without those of the integrals.
        """
        if self._integrals is None:
            return f
        inputs, dy = self.inputs(t, y), f if self._direct else self.unflatten(f)
        return torch.cat([f, self._integrands(self._integrals, inputs, dy, len(y))], -1)

    def _integrands(
        self, integrals: Integrals, inputs: tuple[Any, ...], dy: PyTree, n_rows: int
    ) -> Tensor:
        """``dq/dt`` of the integrals, [rows, integrals]."""
        t, state, *args = inputs
        n = self.structure.batch_shape[0] if self.joint and self.structure.batch_shape else n_rows
        values = integrals(lambda t, y: self.field(t, y, *args), t, state, dy, n)
        return values.reshape(n_rows, -1)

    @property
    def dim(self) -> int:
        """Numbers in the state of one row."""
        batch = self.structure.batch_shape if self.joint else ()
        return sum(self.structure.sizes) * (batch[0] if batch else 1)

    def state(self, y: Tensor) -> Tensor:
        """The state in rows that may end in integrals, [..., dim]."""
        if self.integrals is None:
            return y
        # Laid out as without them: a matrix product may round otherwise where it is not.
        return y[..., : self.dim].contiguous()

    def unflatten(self, y: Tensor) -> PyTree:
        """The user's state, its tensors [*lead, batch, *shape], from rows [*lead, rows, dim]."""
        if self.joint and self.structure.batch_shape:
            y = y.reshape(*y.shape[:-2], self.structure.batch_shape[0], -1)
        return self.structure.unflatten(y)

    def inputs(self, t: Tensor, y: Tensor) -> tuple[Any, ...]:
        """What the user's functions are called with, from times [rows, 1] and states [rows, dim].

        Returns:
            ``(t, y)`` in the user's shapes, and ``args`` with the entries of these rows where the
            field takes them.
        """
        state = y = self.state(y)
        if self.window is not None:
            earliest, latest = (
                self.window if self.rows is None else (x[self.rows] for x in self.window)
            )
            t = torch.minimum(torch.maximum(t, earliest), latest)
        if not self._direct:
            state = self.unflatten(y)
            rank = pytree.tree_leaves(state)[0].ndim
            t = t.reshape(() if self.scalar_time else (len(y),) + (1,) * (rank - 1))
        return (t, state, self._args) if self._has_args else (t, state)

    def _called(self, function: Callable[..., Any], inputs: tuple[Any, ...], n_rows: int) -> Any:
        try:
            if self.autocast is None:
                return function(*inputs)
            with self.autocast.field():
                return function(*inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            explained = self._explained(error, inputs[0], n_rows)
            if explained is error:
                raise
            raise explained from error

    def _cut(self, leaf: Any) -> Any:
        if not isinstance(leaf, PerRow):
            return leaf
        return leaf.tensor if self.rows is None else leaf.tensor.index_select(0, self.rows)

    def flattened(self, values: PyTree, state: PyTree, what: str) -> Tensor:
        """States that a user's function returned, [rows, dim].

        Args:
            values: what it returned.
            state: what it was given, in the user's shapes.
            what: the function, as an error names it.
        """
        self._check(values, state, what)
        return self.structure.flatten(values).reshape(-1, self.dim)

    def _check(self, dy: PyTree, state: PyTree, what: str = "the field") -> None:
        leaves, spec = pytree.tree_flatten(dy)
        wanted, wanted_spec = pytree.tree_flatten(state)
        if spec != wanted_spec:
            raise InputError(
                f"{what} returned {_kind(dy)} for a state that is {_kind(state)}: "
                "return one in the structure of y"
            )
        for given, want in zip(leaves, wanted, strict=True):
            if not isinstance(given, torch.Tensor):
                raise InputError(
                    f"{what} returned a {type(given).__name__}: return a tensor shaped "
                    f"like y, {list(want.shape)}"
                )
            if given.shape != want.shape:
                raise InputError(
                    f"{what} returned shape {list(given.shape)} for a state of shape "
                    f"{list(want.shape)}: return the shape of y{self._rows_hint()}"
                )
            if given.dtype != want.dtype:
                raise InputError(
                    f"{what} returned {given.dtype} for a state of {want.dtype}: "
                    "return the dtype of y (convert modules with .to(y0.dtype))"
                )

    def _rows_hint(self) -> str:
        if self.rows is None:
            return ""
        return (
            f". {len(self.rows)} rows are left here, the others have finished: a tensor with one "
            "entry per row must reach the field as args=odeum.per_row(tensor)"
        )

    def _explained(self, error: Exception, t: Tensor, n_rows: int) -> Exception:
        """The user's own error, unless it comes from something odeum does."""
        if isinstance(error, InputError):
            return error
        if isinstance(error, TypeError) and "positional argument" in str(error):
            given = "f(t, y, args)" if self._has_args else "f(t, y)"
            return InputError(
                f"the field could not be called as {given} ({error}): fields take the time first; "
                "make one of a network of the state alone with lambda t, y: net(y)"
            )
        if "Boolean value of Tensor" in str(error) and t.numel() > 1:
            return InputError(
                f"the field branches in Python on a tensor of {n_rows} rows (rows solved "
                "independently have their own times, and t has one entry each): choose "
                'between values with torch.where, or pass coupling="joint"'
            )
        if self.rows is not None and isinstance(error, RuntimeError) and "size" in str(error):
            return InputError(f"the field failed ({error}){self._rows_hint()}")
        error.add_note(
            f"raised by the field, called with t of shape {list(t.shape)} and "
            f"{n_rows} {'row' if n_rows == 1 else 'rows'}"
        )
        return error


def _kind(state: PyTree) -> str:
    if isinstance(state, torch.Tensor):
        return "one tensor"
    if isinstance(state, dict):
        return f"a dict with keys {list(state)}"
    if isinstance(state, tuple | list):
        return f"a {type(state).__name__} of {len(state)}"
    return f"a {type(state).__name__}"
