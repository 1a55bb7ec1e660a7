"""Builds ``report.html`` from the files of a run directory and nothing else.

Owns how a run is told to a reader: which numbers, in which order, how written. The words and the
look are in ``report.html.j2``. It draws nothing and must not know how a run was made.
"""

import base64
import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from odeum.errors import DataError
from odeum.files import write_whole
from odeum.lab import wording

_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".gif": "image/gif"}
_SPLITS = {"in_sample": "in-sample", "held_out": "held out"}
_MEASURES = ("rmse", "r2")
_MOST_STATES_AS_TILES = 4
_N_PREVIEW_ROWS = 12
_TRAINING = "Training"
_SIGNS = {".png": (b"\x89PNG",), ".svg": (b"<svg",), ".gif": (b"GIF87a", b"GIF89a")}
"""What a picture of each kind begins with."""


def build(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory, from what lies there.

    One file that needs no network: pictures are embedded, there are no scripts. It replaces an
    earlier report only when it is complete.

    Args:
        run_dir: holds ``config.json``, ``summary.json``, ``metrics.jsonl``, ``predictions.csv`` and
            the figures that the summary lists.

    Returns:
        The path of the report.

    Raises:
        DataError: a file is missing, unreadable or not what it should be; the message names it.
        InputError: the folder cannot be written.

    Example:
        >>> build(Path("no-such-run"))
        Traceback (most recent call last):
        odeum.errors.DataError: no-such-run is not a folder: give the directory of a finished run
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is not a folder: give the directory of a finished run")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of states and files are strangers' text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=wording.prose, words=wording.words)
    page = environment.get_template("report.html.j2").render(_content(run_dir))
    path = run_dir / "report.html"
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8"))
    return path


@dataclass(frozen=True)
class _Figure:
    """A picture as the page shows it; ``source`` is a data URI."""

    source: str
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class _Cell:
    """A number of the score table, and whether it is the best of its state."""

    text: str
    best: bool


def _content(run_dir: Path) -> dict[str, Any]:
    """Everything the template shows."""
    summary = _read_object(run_dir / "summary.json")
    config = _read_object(run_dir / "config.json")
    metrics = _read_lines(run_dir / "metrics.jsonl")
    scores = _part(summary, "scores", run_dir)
    figures = _figures(run_dir, summary)
    return {
        "title": str(summary.get("title") or summary.get("name") or run_dir.resolve().name),
        "sentence": str(summary.get("sentence") or ""),
        "tiles": _tiles(summary, scores),
        "training_figures": figures.pop(_TRAINING, []),
        "figures": figures,
        "findings": _findings(summary, run_dir),
        "results": [
            (name, *_result(value)) for name, value in _part(summary, "result", run_dir).items()
        ],
        "tables": _score_tables(scores),
        "splits": list(_SPLITS.values()),
        "solver": _part(summary, "solver", run_dir),
        "training": _training(metrics, _part(summary, "training", run_dir)),
        "predictions": _preview(run_dir / "predictions.csv"),
        "command": str(summary.get("command") or ""),
        "facts": {
            "seed": summary.get("seed"),
            "device": summary.get("device"),
            "finished": wording.moment(summary.get("finished")),
        },
        "versions": _part(summary, "versions", run_dir),
        "config": json.dumps(config, indent=2, ensure_ascii=False),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: the run has not finished, or this is not a run directory"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: it is damaged; repeat the run") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not JSON ({error.msg}): it is damaged; repeat the run"
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {type(value).__name__}, expected a JSON object")
    return value


def _read_object(path: Path) -> dict[str, Any]:
    return _parse(_read(path), str(path))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = enumerate(_read(path).splitlines(), start=1)
    return [_parse(line, f"{path}, line {n},") for n, line in lines if line.strip()]


def _findings(summary: Mapping[str, Any], run_dir: Path) -> list[dict[str, str]]:
    """Rows of the table that holds what was measured against what was published."""
    listed = summary.get("findings") or []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{run_dir / 'summary.json'}: findings is no list of objects")
    rows = []
    for entry in listed:
        reached = {True: "yes", False: "no"}.get(entry.get("reached"), wording.DASH)
        row = {"what": str(entry.get("what", "")), "reached": reached}
        for key in ("value", "published", "target"):
            row[key] = wording.quantity(entry.get(key), entry.get("unit"))
        if row["target"] != wording.DASH:
            row["target"] = ("≥ " if entry.get("better") == "higher" else "≤ ") + row["target"]
        row["source"] = str(entry.get("source") or "")
        rows.append(row)
    return rows


def _part(summary: Mapping[str, Any], key: str, run_dir: Path) -> dict[str, Any]:
    """An object inside the summary, empty where absent."""
    part = summary.get(key)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise DataError(
            f"{run_dir / 'summary.json'}: {key} is {type(part).__name__}, expected an object"
        )
    return part


def _figures(run_dir: Path, summary: Mapping[str, Any]) -> dict[str, list[_Figure]]:
    """The pictures by section, in the summary's order.

    A section is named by the picture's entry, or told by its file's name.
    """
    sections: dict[str, list[_Figure]] = {}
    where = run_dir / "summary.json"
    listed = summary.get("figures") or []
    if not isinstance(listed, list):
        raise DataError(f"{where}: figures is {type(listed).__name__}, expected a list")
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise DataError(f"{where}: every entry of figures needs a file, got {entry!r}")
        path = run_dir / entry["file"]
        stem = path.stem.lower()
        section = "The fit"
        if stem.startswith(("phase", "vector_field")):
            section = "Phase portrait"
        elif stem.startswith(("loss", "training")):
            section = _TRAINING
        section = str(entry.get("section") or section)
        title = str(entry.get("title") or path.stem.replace("_", " "))
        caption = str(entry.get("caption") or "")
        alt = str(entry.get("alt") or caption or title)
        figure = _Figure(_embed(path, run_dir), title, caption, alt)
        sections.setdefault(section, []).append(figure)
    return sections


def _embed(path: Path, run_dir: Path) -> str:
    """A picture of the run directory as a data URI."""
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise DataError(f"{path} is not a picture the report can show: expected .png or .svg")
    if not path.resolve().is_relative_to(run_dir.resolve()):
        raise DataError(f"{path} lies outside the run directory {run_dir}: it is not embedded")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing, though summary.json lists it") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not any(sign in content[:1000] for sign in _SIGNS[path.suffix.lower()]):
        raise DataError(f"{path} is not a {path.suffix[1:].upper()} picture: it is damaged")
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _measure(scores: Mapping[str, Any], model: str, split: str, state: str, key: str) -> float:
    """A score, NaN where any step on the way to it is absent or no number."""
    value: Any = scores
    for step in (model, split, state, key):
        value = value.get(step) if isinstance(value, Mapping) else None
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else math.nan


def _states(scores: Mapping[str, Any]) -> list[str]:
    """Every state any score speaks of, in order of first mention."""
    return list(
        dict.fromkeys(
            state
            for splits in scores.values()
            if isinstance(splits, Mapping)
            for split in _SPLITS
            if isinstance(splits.get(split), Mapping)
            for state in splits[split]
        )
    )


def _score_tables(scores: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, list[_Cell]]]]]:
    """Per state: a row for each model with RMSE and R² in-sample, then held out."""
    columns = [(split, key) for split in _SPLITS for key in _MEASURES]
    tables = []
    for state in _states(scores):
        values = {
            model: [_measure(scores, model, split, state, key) for split, key in columns]
            for model in scores
        }
        best = []
        for j, (_, key) in enumerate(columns):
            finite = [row[j] for row in values.values() if math.isfinite(row[j])]
            choose = min if key == "rmse" else max
            best.append(choose(finite) if len(finite) > 1 else math.nan)
        rows = []
        for model, row in values.items():
            name = "learned model" if model == "model" else str(model)
            cells = [
                _Cell(wording.r2(value) if key == "r2" else wording.number(value), value == top)
                for value, top, (_, key) in zip(row, best, columns, strict=True)
            ]
            rows.append((name, cells))
        tables.append((state, rows))
    return tables


def _tiles(summary: Mapping[str, Any], scores: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline: (name, number, remark) for the fit of each state, and for the time it took."""
    leader = "model" if "model" in scores else next(iter(scores), "")
    r2 = {s: _measure(scores, leader, "in_sample", s, "r2") for s in _states(scores)}
    r2 = {state: value for state, value in r2.items() if math.isfinite(value)}
    tiles = []
    if 0 < len(r2) <= _MOST_STATES_AS_TILES:
        for state, value in r2.items():
            held_out = wording.r2(_measure(scores, leader, "held_out", state, "r2"))
            tiles.append((f"R² {state}", wording.r2(value), f"in-sample; {held_out} held out"))
    elif r2:
        worst = min(r2, key=lambda state: r2[state])
        remark = f"in-sample, mean of {len(r2)} states; lowest {wording.r2(r2[worst])} ({worst})"
        tiles.append(("R²", wording.r2(sum(r2.values()) / len(r2)), remark))
    if isinstance(summary.get("seconds"), int | float) and math.isfinite(summary["seconds"]):
        remark = ""
        if summary.get("epochs") is not None:
            remark = f"{wording.number(summary['epochs'])} epochs"
            if summary.get("best_epoch") is not None:
                remark += f", best at {wording.number(summary['best_epoch'])}"
        tiles.append(("training time", wording.duration(summary["seconds"]), remark))
    return tiles


def _result(value: Any) -> tuple[str, Any]:
    """How to show a result: ("matrix", rows of text) or ("text", text)."""
    if isinstance(value, list) and value:
        rows = value if all(isinstance(row, list) for row in value) else [value]
        if all(isinstance(entry, int | float | None) for row in rows for entry in row):
            return "matrix", wording.matrix(rows)
    if isinstance(value, list | dict | bool):
        return "text", json.dumps(value, ensure_ascii=False)
    return "text", wording.prose(value)


def _training(metrics: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> str:
    """A sentence on how the loss went, one on what stood in its way."""
    losses = [row.get("loss") for row in metrics]
    finite = [x for x in losses if isinstance(x, int | float) and math.isfinite(x)]
    if not finite:
        return ""
    first, last, lowest = (wording.prose(x) for x in (finite[0], finite[-1], min(finite)))
    text = (
        f"{wording.number(len(metrics))} epochs recorded; the training loss went from {first} "
        f"to {last}, its lowest was {lowest}."
    )
    n_back = told.get("n_steps_back")
    if n_back:
        times = "once" if n_back == 1 else f"{wording.number(n_back)} times"
        text += f" It diverged {times}, and went back to the last good state."
    if told.get("stopped_early"):
        text += f" Training stopped early: {told['stopped_early']}."
    return text


def _preview(path: Path) -> dict[str, Any]:
    """Header and first rows of the predictions, and how many there are."""
    rows = list(csv.reader(_read(path).splitlines()))
    if not rows:
        raise DataError(f"{path} is empty: expected a header and rows")
    header, *body = rows
    for n, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {n}: {len(row)} cells under {len(header)} column names")
    shown = [[wording.cell(cell) for cell in row] for row in body[:_N_PREVIEW_ROWS]]
    return {"header": header, "rows": shown, "n_rows": wording.number(len(body))}
