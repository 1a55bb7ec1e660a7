"""What a finished run prints: a sentence, scores beside the baselines, where the report is."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from odeum.lab import wording
from odeum.lab.run import Finished

_SPLITS = {"in_sample": "in-sample", "held_out": "held out"}
_NUMBERS = ("value", "published", "target")


def show_run(run: Finished, *, quiet: bool) -> None:
    """Print what a run found.

    Args:
        run: finished.
        quiet: print only the path of the report.
    """
    page = run.path / "report.html"
    if quiet:
        print(page)
        return
    # Names of columns are strangers' text: brackets in them are no markup.
    console = Console(markup=False, highlight=False, emoji=False)
    console.print()
    console.print(run.summary["sentence"])
    if run.summary["scores"]:
        console.print(score_table(run.summary["scores"]))
    if run.summary.get("findings"):
        console.print(findings_table(run.summary["findings"]))
    for name, value in run.summary["result"].items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            console.print(_matrix(wording.words(name), value), "")
    # Not through rich, which would break a long path.
    print(f"report  {page}")


def score_table(scores: dict[str, Any]) -> Table:
    """RMSE and R² of every model, state by state, in-sample and held out.

    Args:
        scores: as in summary.json: by model, split and state.
    """
    splits = [split for split in _SPLITS if any(entry[split] for entry in scores.values())]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for split in splits:
        table.add_column(f"RMSE\n{_SPLITS[split]}", justify="right")
        table.add_column(f"R²\n{_SPLITS[split]}", justify="right")
    first = next(iter(scores.values()))
    for state in first["in_sample"]:
        table.add_row(state, style="bold")
        for i, (name, entry) in enumerate(scores.items()):
            cells = [text for split in splits for text in _cells(entry[split].get(state, {}))]
            label = "learned model" if name == "model" else name
            table.add_row(f"  {label}", *cells, end_section=i + 1 == len(scores))
    return table


def findings_table(findings: list[dict[str, Any]]) -> Table:
    """What was measured, beside what was published and what was to be reached.

    Args:
        findings: as in summary.json.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("measured", "published", "target", "reached"):
        table.add_column(heading, justify="right")
    for entry in findings:
        numbers = [wording.quantity(entry[key], entry["unit"]) for key in _NUMBERS]
        if entry["target"] is not None:
            numbers[-1] = ("≥ " if entry["better"] == "higher" else "≤ ") + numbers[-1]
        reached = {True: "yes", False: "no", None: wording.DASH}[entry["reached"]]
        table.add_row(entry["what"], *numbers, reached)
    return table


def _matrix(name: str, rows: list[list[float]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=24)
    for i, row in enumerate(wording.matrix(rows)):
        table.add_row(name if i == 0 else "", *row)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _cells(score: dict[str, Any]) -> tuple[str, str]:
    r2 = score.get("r2")
    return wording.number(score.get("rmse")), wording.DASH if r2 is None else wording.r2(r2)
