"""From a table of raw cells to trajectories: which column is what, what its cells mean.

Owns the choice of columns, numbers, dates, grouping and the sorting by time. Nothing is invented:
an empty cell becomes NaN, and whatever cannot be understood is refused with its place in the file.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from odeum.datasets.files import SPACES, RawTable, load
from odeum.datasets.trajectories import Trajectories, Trajectory, first_repeated
from odeum.errors import unknown_name

TIME_NAMES = ("time", "t", "date", "datetime", "timestamp", "year", "years", "day", "days")
"""Names by which a time column is recognised, in this order, units in brackets aside."""

EMPTY = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
"""What stands for an empty cell in a column of numbers, upper or lower case."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.I)
_COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]+(e[+-]?[0-9]+)?", re.I)
_DATED = re.compile(r"(?P<column>.+) \[days since (?P<origin>[^\]]+)\]")


def read(
    path: str | Path,
    time: str | None = None,
    states: Sequence[str] | None = None,
    group: str | None = None,
    *,
    min_observed: int = 2,
) -> Trajectories:
    r"""Read trajectories from a .csv, .tsv, .txt or .parquet file.

    The delimiter (comma, semicolon, tab, bar or spaces), decimal commas between semicolons or
    tabs, a byte-order mark, quotes and either kind of line end are recognised. Empty cells become
    NaN. Rows are sorted by time within their trajectory. A time column of ISO dates becomes days
    since the first date of the file, which ``time_name`` then says.

    Args:
        path: the file; its first line names the columns.
        time: the time column. Without it, one called time, t, date, year or the like, otherwise
            the first column of dates, then of strictly increasing numbers. To count dates from a
            given day, write ``"date [days since 2020-01-01]"``, as ``time_name`` does.
        states: the state columns, in order. Without it every other column of numbers; columns
            with text in every row are taken for labels and left out.
        group: the column that tells several trajectories apart.
        min_observed: rows with at least one observed state that every trajectory needs.

    Returns:
        The trajectories, in the order in which they first appear.

    Raises:
        DataError: if the file cannot be read; a column is missing, named twice or all empty; a
            cell is no number or infinite; a time is missing or repeated; a trajectory is too
            short. The message names the file and, where known, line and column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "hare.csv"
        ...     _ = path.write_text("year,hare,lynx\n1901,47.2,\n1900,30.0,4.0\n")
        ...     data = read(path)
        >>> data.time_name, data.state_names, data.n_observed
        ('year', ('hare', 'lynx'), 3)
        >>> data.trajectories[0].y
        tensor([[30.0000,  4.0000],
                [47.2000,     nan]], dtype=torch.float64)
    """
    raw = load(path)
    given_states = [states] if isinstance(states, str) else None if states is None else [*states]
    time, origin = _dated(raw, time)
    for column in [time, group, *(given_states or [])]:
        if column is not None and column not in raw.columns:
            raise raw.fault(str(unknown_name("column", column, raw.columns)))
    if repeated := first_repeated([c for c in [time, group, *(given_states or [])] if c]):
        raise raw.fault("is named twice among time, states and group", column=repeated)
    comma = _has_decimal_commas(raw, group)
    codes, names = pd.factorize(_group_cells(raw, group))
    time = time or _find_time(raw, group, codes, given_states or [], comma)
    t, time_name = _times(raw, time, origin, comma)
    state_names = given_states or _find_states(raw, {time, group}, comma)
    y = np.stack([_numbers(raw, column, comma) for column in state_names], -1)
    trajectories = []
    # Sorted by trajectory, then by time; rows at equal times keep the order of the file.
    by_time = np.lexsort((t, codes))
    for rows in np.split(by_time, np.flatnonzero(np.diff(codes[by_time])) + 1):
        name = names[codes[rows[0]]]
        of_group = f" in {group} {name!r}" if group else ""
        _refuse_repeated_times(raw, time, rows, t, of_group)
        n_observed = int((~np.isnan(y[rows])).any(-1).sum())
        if n_observed < min_observed:
            raise raw.fault(
                f"{n_observed} row{'s' * (n_observed != 1)} with an observed state{of_group}, "
                f"at least {min_observed} are needed"
            )
        trajectories.append(Trajectory(name, torch.tensor(t[rows]), torch.tensor(y[rows])))
    return Trajectories(tuple(trajectories), time_name, tuple(state_names), group, str(path))


def _refuse_repeated_times(
    raw: RawTable, time: str, rows: np.ndarray, t: np.ndarray, of_group: str
) -> None:
    repeats = np.flatnonzero(np.diff(t[rows]) == 0)
    if len(repeats) == 0:
        return
    first, second = rows[repeats[0]], rows[repeats[0] + 1]
    hint = "" if of_group else "; name the column that tells trajectories apart (--group), if any"
    raise raw.fault(
        f"time {_cell(raw, second, time)} was already given{of_group} in {raw.unit} "
        f"{raw.positions[first]}{hint}",
        second,
        time,
    )


# --- which column is what -----------------------------------------------------------------------


def _find_time(
    raw: RawTable, group: str | None, codes: np.ndarray, taken: list[str], comma: bool
) -> str:
    columns = [column for column in raw.columns if column != group and column not in taken]
    bare = {column: re.sub(r"\s*[\[(].*", "", column) for column in columns}
    # Exact spelling first: a "T" beside a "year" is a temperature.
    for spelling in (str, str.casefold):
        for name in TIME_NAMES:
            for column in columns:
                if spelling(bare[column]) == name:
                    return column
    by_group = np.argsort(codes, kind="stable")
    same_group = np.diff(codes[by_group]) == 0
    parsed = {column: _parse(raw, column, comma) for column in columns}
    for column, (_, bad) in parsed.items():
        if bad.all() and _dates(raw, column).notna().all():
            return column
    for column, (values, bad) in parsed.items():
        increases = (np.diff(values[by_group]) > 0) | ~same_group
        if not bad.any() and not np.isnan(values).any() and increases.all():
            return column
    raise raw.fault(
        f"found no time column: name it with time= (--time). Columns: {', '.join(raw.columns)}"
    )


def _find_states(raw: RawTable, taken: set[str | None], comma: bool) -> list[str]:
    found = []
    for column in raw.columns:
        if column in taken:
            continue
        values, bad = _parse(raw, column, comma)
        is_label = bad.any() and np.isnan(values).all()
        if not is_label:
            found.append(column)
    if not found:
        raise raw.fault("found no column of numbers besides the time: nothing to learn from")
    return found


def _group_cells(raw: RawTable, group: str | None) -> np.ndarray:
    """The name of every row's trajectory, [n_rows]; the file's own where there is no group."""
    if group is None:
        return np.full(len(raw.cells), raw.path.stem, dtype=object)
    names = np.array(_text(raw, group), dtype=object)
    if len(missing := np.flatnonzero(names == "")):
        raise raw.fault("the cell is empty: which trajectory is it?", missing[0], group)
    return names


# --- what a cell means --------------------------------------------------------------------------


def _text(raw: RawTable, column: str) -> list[str]:
    cells = raw.cells[column]
    if cells.dtype == object:
        return cells.tolist()
    return ["" if hole else str(cell) for cell, hole in zip(cells, cells.isna(), strict=True)]


def _cell(raw: RawTable, row: int, column: str) -> str:
    return str(raw.cells[column].iloc[row])


def _has_decimal_commas(raw: RawTable, group: str | None) -> bool:
    """Whether the file writes 3,14; asked of the whole file, so that 1.234 is never both."""
    if raw.delimiter not in (";", "\t", "|", SPACES):
        return False
    return any(
        _COMMA_NUMBER.fullmatch(cell)
        for column in raw.columns
        if column != group
        for cell in _text(raw, column)
    )


def _parse(raw: RawTable, column: str, comma: bool) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, NaN where empty, and which cells are no numbers, both [n_rows]."""
    cells = raw.cells[column]
    if pd.api.types.is_numeric_dtype(cells):
        return cells.to_numpy(np.float64, na_value=np.nan), np.zeros(len(cells), dtype=bool)
    text = _text(raw, column)
    if comma:
        # A point among decimal commas is a thousands mark or a mistake; keep it from matching.
        text = [cell.replace(".", "_").replace(",", ".") for cell in text]
    is_number = [_NUMBER.fullmatch(cell) is not None for cell in text]
    values = [float(cell) if ok else np.nan for cell, ok in zip(text, is_number, strict=True)]
    bad = [
        not ok and cell.casefold() not in EMPTY for cell, ok in zip(text, is_number, strict=True)
    ]
    return np.array(values), np.array(bad)


def _numbers(raw: RawTable, column: str, comma: bool) -> np.ndarray:
    values, bad = _parse(raw, column, comma)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        cell = _cell(raw, row, column)
        if comma and "." in cell:
            hint = "this file writes decimals with a comma"
        else:
            hint = "leave the cell empty if nothing was observed"
        raise raw.fault(f"{cell!r} is not a number; {hint}", row, column)
    _refuse_infinite(raw, column, values)
    if np.isnan(values).all():
        raise raw.fault("is empty in every row; name the states to use (--state)", column=column)
    return values


def _refuse_infinite(raw: RawTable, column: str, values: np.ndarray) -> None:
    if len(infinite := np.flatnonzero(np.isinf(values))):
        row = int(infinite[0])
        raise raw.fault(f"{_cell(raw, row, column)!r} is not finite", row, column)


def _dates(raw: RawTable, column: str) -> pd.Series:
    text = pd.Series(_text(raw, column))
    return pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)


def _times(
    raw: RawTable, column: str, origin: pd.Timestamp | None, comma: bool
) -> tuple[np.ndarray, str]:
    """The times of all rows and what to call them: numbers as they are, dates as days."""
    values, bad = _parse(raw, column, comma)
    if len(missing := np.flatnonzero(np.isnan(values) & ~bad)):
        raise raw.fault("the time is missing", missing[0], column)
    if not bad.any() and origin is None:
        _refuse_infinite(raw, column, values)
        return values, column
    dates = _dates(raw, column)
    if dates.isna().any():
        # Blame the odd one out: a word among numbers, or among dates.
        mostly_dates = origin is not None or dates.notna().sum() > len(bad) - bad.sum()
        wrong = dates.isna().to_numpy() if mostly_dates else bad
        row = int(np.flatnonzero(wrong)[0])
        wanted = "an ISO date such as 2020-01-31" if mostly_dates else "a number"
        raise raw.fault(f"{_cell(raw, row, column)!r} is not {wanted}", row, column)
    origin = dates.min() if origin is None else origin
    days = (dates - origin).dt.total_seconds().to_numpy(np.float64) / 86400.0
    since = origin.date() if origin == origin.normalize() else origin
    return days, f"{column} [days since {since.isoformat()}]"


def _dated(raw: RawTable, time: str | None) -> tuple[str | None, pd.Timestamp | None]:
    """Take ``"date [days since 2020-01-01]"`` apart, unless a column has that very name."""
    if time is None or time in raw.cells or not (match := _DATED.fullmatch(time)):
        return time, None
    try:
        origin = pd.to_datetime(match["origin"], format="ISO8601", utc=True)
    except ValueError as error:
        raise raw.fault(f"{time!r} asks for days since {match['origin']!r}, no ISO date") from error
    return match["column"], origin.tz_localize(None)
