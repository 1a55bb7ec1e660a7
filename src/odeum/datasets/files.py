"""From a file on disk to a frame of raw cells, each row knowing where in the file it stands.

Owns paths, encodings, delimiters, headers and Parquet; every fault of those becomes a one-line
`DataError`. Does not know which column is time or state, nor what a number is.
"""

import csv
import difflib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from odeum.datasets.trajectories import first_repeated
from odeum.errors import DataError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")

SPACES = r"\s+"


@dataclass(frozen=True, eq=False)
class RawTable:
    """The cells of a file, those of text not yet numbers.

    Attributes:
        path: the file.
        cells: one column per named column of the file, index 0..n-1: stripped strings, empty
            where the file had nothing; only numbers from Parquet keep their type.
        positions: where each row stands in the file, [n_rows]: a line (the header is line 1, as
            an editor counts) or, in Parquet, a row.
        unit: "line" or "row".
        delimiter: what separates the cells of a text file, None for Parquet.
    """

    path: Path
    cells: pd.DataFrame
    positions: np.ndarray
    unit: str
    delimiter: str | None

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order of the file."""
        return [str(name) for name in self.cells.columns]

    def fault(self, problem: str, row: int | None = None, column: str | None = None) -> DataError:
        """The error for a problem of this file, at a row and column where known."""
        where = [f"{self.unit} {self.positions[row]}"] if row is not None else []
        if column is not None:
            where.append(f"column {column!r}")
        return DataError(
            ": ".join([str(self.path), *([", ".join(where)] if where else []), problem])
        )


def load(path: str | Path) -> RawTable:
    """Read a .csv, .tsv, .txt or .parquet file without interpreting its cells.

    Rows without any value are dropped, and so are columns without a name (a row index that was
    saved along).

    Args:
        path: the file.

    Returns:
        The table, with at least one row.

    Raises:
        DataError: if the file is missing, no file, empty, without rows, corrupt, of an unknown
            kind, or names a column twice.
    """
    path = Path(path)
    _check_path(path)
    raw = _load_parquet(path) if path.suffix.lower() in PARQUET_SUFFIXES else _load_text(path)
    if repeated := first_repeated(raw.columns):
        raise raw.fault(f"two columns are called {repeated!r}: rename one of them")
    cells = raw.cells.apply(_as_text)
    empty = cells.isna() | (cells == "")
    kept = np.flatnonzero(~empty.all(axis=1).to_numpy())
    if len(kept) == 0:
        raise raw.fault("has column names but no rows under them")
    cells = cells.iloc[kept].reset_index(drop=True)
    return RawTable(path, cells, raw.positions[kept], raw.unit, raw.delimiter)


def _as_text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column
    cells = zip(column.tolist(), column.isna(), strict=True)
    # Python strings: pandas' own string columns are several times slower to walk.
    text = ["" if hole else str(cell).strip() for cell, hole in cells]
    return pd.Series(text, index=column.index, dtype=object)


def _check_path(path: Path) -> None:
    known = ", ".join([*TEXT_SUFFIXES, PARQUET_SUFFIXES[0]])
    if path.is_dir():
        files = sorted(p.name for p in path.iterdir() if p.suffix.lower() in known.split(", "))
        inside = f", for example one of: {', '.join(files[:5])}" if files else ""
        raise DataError(f"{path}: is a folder; give a file{inside}")
    if not path.exists():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file, and no folder {str(path.parent)!r}")
        siblings = sorted(p.name for p in path.parent.iterdir())
        close = difflib.get_close_matches(path.name, siblings, n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise DataError(f"{path}: no such file{hint}")
    if path.suffix.lower() not in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES):
        kind = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
        raise DataError(f"{path}: {kind} not read; save the table as one of: {known}")


def _load_text(path: Path) -> RawTable:
    text = _decode(path)
    if re.fullmatch(r'[\s,;|"]*', text):
        raise DataError(f"{path}: the file is empty")
    # pandas takes the number of columns from the first line: let that not be a blank one.
    blank = re.match(r"\s*[\r\n]|", text)
    assert blank is not None
    text = text[blank.end() :]
    delimiter = _sniff(text.splitlines()[0])
    try:
        # Everything as text, the header included: pandas would rename repeated columns, turn
        # words like "NA" into holes and forget which line a cell came from.
        frame = pd.read_csv(
            io.StringIO(text),
            sep=delimiter,
            header=None,
            dtype=str,
            na_filter=False,
            index_col=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except ValueError as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        raise DataError(f"{path}: not a table: {reason}") from error
    # A quoted cell may hold line breaks; the rows after it stand that much further down.
    breaks = sum((frame[i].str.count("\n").to_numpy(int) for i in frame), np.zeros(len(frame), int))
    first_line = 1 + len(blank[0].splitlines())
    lines = first_line + np.arange(len(frame)) + np.cumsum(breaks) - breaks
    header = next(i for i in range(len(frame)) if any(map(str.strip, frame.iloc[i])))
    columns = [name.strip() for name in frame.iloc[header]]
    if all(_is_number(name) for name in columns if name):
        raise DataError(
            f"{path}: the first line holds numbers where the column names should be; "
            "put a line of names above it"
        )
    named = [i for i, name in enumerate(columns) if name]
    cells = frame.iloc[header + 1 :, named].set_axis([columns[i] for i in named], axis=1)
    return RawTable(path, cells, lines[header + 1 :], "line", delimiter)


def _decode(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line}: the text is not UTF-8; save the file as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: holds binary data; save the table as CSV in UTF-8")
    return text


def _sniff(header: str) -> str:
    """The delimiter that cuts the header into the most names; spaces where no other does."""

    def n_columns(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter)))

    best = max(",;\t|", key=n_columns)
    return best if n_columns(best) > 1 or len(header.split()) == 1 else SPACES


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _load_parquet(path: Path) -> RawTable:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow: pip install 'odeum[parquet]'"
        ) from error
    except (ValueError, OSError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable Parquet file: {reason}") from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    positions = 1 + np.arange(len(frame))
    cells = frame.set_axis([str(name).strip() for name in frame.columns], axis=1)
    return RawTable(path, cells.reset_index(drop=True), positions, "row", None)
