"""The containers for observed dynamics: one trajectory, and a set of them that share their states.

Owns their invariants (strictly increasing times, NaN for what was not observed), the split into
head and tail, and the way back to a table. Knows nothing about files or solvers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from odeum.errors import DataError, InputError
from odeum.types import Tensor


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One system observed over time.

    Attributes:
        name: what it is called: the value of the group column, or the file's name.
        t: times, float64 [time], strictly increasing.
        y: states, float64 [time, dim]; NaN where a cell was not observed.

    Raises:
        InputError: if shapes, dtypes or the order of times are others, or a state is infinite.

    Example:
        >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> len(Trajectory("a", t, torch.stack([t, t], -1)))
        2
    """

    name: str
    t: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.t.ndim != 1 or self.y.ndim != 2 or len(self.t) != len(self.y):
            raise InputError(
                f"trajectory {self.name!r} needs t [time] and y [time, dim], "
                f"got {list(self.t.shape)} and {list(self.y.shape)}"
            )
        if self.t.dtype != torch.float64 or self.y.dtype != torch.float64:
            raise InputError(
                f"trajectory {self.name!r} needs float64 t and y, "
                f"got {self.t.dtype} and {self.y.dtype}: convert them with .double()"
            )
        if not (torch.isfinite(self.t).all() and (self.t.diff() > 0).all()):
            raise InputError(f"the times of trajectory {self.name!r} must increase strictly")
        if torch.isinf(self.y).any():
            raise InputError(f"trajectory {self.name!r} holds infinite states")

    def __len__(self) -> int:
        """The number of rows, observed or not."""
        return len(self.t)

    @property
    def complete(self) -> Tensor:
        """Which rows have every state observed, bool [time]."""
        return ~torch.isnan(self.y).any(-1)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of one kind of system: the same states, each with its own times.

    Iterating gives every `Trajectory`; ``len`` counts them.

    Attributes:
        trajectories: at least one.
        time_name: the name of the time column.
        state_names: one name per component, in order.
        group_name: the name of the column that tells trajectories apart; None if there is one.
        source: where the data came from, for people; None if unknown.

    Raises:
        InputError: if there are none, their ``dim`` does not match ``state_names``, names repeat,
            or several have no ``group_name``.

    Example:
        >>> t = torch.arange(5, dtype=torch.float64)
        >>> data = Trajectories((Trajectory("a", t, t[:, None]),), "t", ("x",))
        >>> head, tail = data.split(0.4)
        >>> [trajectory.t.tolist() for trajectory in tail]
        [[3.0, 4.0]]
    """

    trajectories: tuple[Trajectory, ...]
    time_name: str
    state_names: tuple[str, ...]
    group_name: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise InputError("at least one trajectory is needed, got none")
        if len(self.trajectories) > 1 and self.group_name is None:
            raise InputError(
                f"{len(self.trajectories)} trajectories need a group_name, the column that tells "
                "them apart"
            )
        columns = [*self._key_columns(), *self.state_names]
        if repeated := first_repeated(columns):
            raise InputError(f"column name {repeated!r} is used twice among {columns}")
        if repeated := first_repeated([trajectory.name for trajectory in self]):
            raise InputError(f"two trajectories are called {repeated!r}")
        for trajectory in self:
            if trajectory.y.shape[1] != self.dim:
                raise InputError(
                    f"trajectory {trajectory.name!r} has {trajectory.y.shape[1]} states, "
                    f"state_names names {self.dim}"
                )

    def __len__(self) -> int:
        """The number of trajectories."""
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        """Every trajectory in turn."""
        return iter(self.trajectories)

    @property
    def dim(self) -> int:
        """The number of state components."""
        return len(self.state_names)

    @property
    def n_observed(self) -> int:
        """The number of cells that hold a value, over all trajectories and states."""
        return sum(int((~torch.isnan(trajectory.y)).sum()) for trajectory in self)

    def split(self, holdout: float) -> tuple["Trajectories", "Trajectories"]:
        """Cut off the end of every trajectory.

        Args:
            holdout: the fraction of each trajectory's rows that goes to the tail, in [0, 1);
                rounded to whole rows, at least one unless it is 0.

        Returns:
            ``(head, tail)``; the tail's trajectories have no rows where ``holdout`` is 0.

        Raises:
            InputError: if ``holdout`` is outside [0, 1).
            DataError: if a head would keep fewer than 2 complete rows.
        """
        if not 0 <= holdout < 1:
            raise InputError(f"holdout must be at least 0 and less than 1, got {holdout}")
        heads, tails = [], []
        for trajectory in self:
            n_tail = max(1, int(holdout * len(trajectory) + 0.5)) if holdout > 0 else 0
            n_head = len(trajectory) - n_tail
            n_complete = int(trajectory.complete[: max(n_head, 0)].sum())
            if n_complete < 2:
                raise DataError(
                    f"holding out {n_tail} of the {len(trajectory)} rows of trajectory "
                    f"{trajectory.name!r} leaves {n_complete} complete rows to learn from, 2 are "
                    "needed: hold out less or give more rows"
                )
            heads.append(Trajectory(trajectory.name, trajectory.t[:n_head], trajectory.y[:n_head]))
            tails.append(Trajectory(trajectory.name, trajectory.t[n_head:], trajectory.y[n_head:]))
        return self._with(heads), self._with(tails)

    def to_frame(self) -> pd.DataFrame:
        """The table they came from: the group column if any, the time, then the states.

        Example:
            >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
            >>> Trajectories((Trajectory("a", t, t[:, None]),), "year", ("x",)).to_frame()
               year    x
            0   0.0  0.0
            1   1.0  1.0
        """
        columns: dict[str, np.ndarray] = {}
        if self.group_name is not None:
            names = [trajectory.name for trajectory in self]
            columns[self.group_name] = np.repeat(names, [len(trajectory) for trajectory in self])
        columns[self.time_name] = torch.cat([trajectory.t for trajectory in self]).cpu().numpy()
        states = torch.cat([trajectory.y for trajectory in self]).cpu().numpy()
        columns.update(zip(self.state_names, states.T, strict=True))
        return pd.DataFrame(columns)

    def _key_columns(self) -> list[str]:
        return [self.time_name] if self.group_name is None else [self.group_name, self.time_name]

    def _with(self, trajectories: list[Trajectory]) -> "Trajectories":
        return Trajectories(
            tuple(trajectories), self.time_name, self.state_names, self.group_name, self.source
        )


def first_repeated(names: list[str]) -> str | None:
    """The first name that occurs twice, or None.

    Example:
        >>> first_repeated(["a", "b", "a"])
        'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
