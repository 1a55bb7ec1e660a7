"""Writes docs/results.md from finished runs: what each found, beside what was published and wanted.

    odeum run moons --out runs/moons
    python benchmarks/results.py runs/moons runs/flows-1 …

Runs of one command that differ in their seed are one entry. What it tells of an experiment lies in
docs/results/, a JSON file and a picture; entries of which no run is given stay as they are.
"""

import argparse
import io
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from odeum.errors import InputError
from odeum.files import write_whole
from odeum.lab.directory import file_name, read_object
from odeum.lab.experiments import EXPERIMENTS
from odeum.lab.run import SUMMARY
from odeum.lab.wording import DASH, number, quantity

DOCS = Path(__file__).parent.parent / "docs"
LARGEST_PICTURE = 200_000
"""Bytes."""
WIDEST_PICTURE = 1100
"""Pixels."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    given = parser.parse_args(arguments)
    try:
        updated = update(given.runs, given.docs)
    except InputError as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 2
    kept = [x["about"] for x in read_entries(given.docs) if x["about"] not in updated]
    print(f"{given.docs / 'results.md'}: updated {', '.join(updated)}")
    if kept:
        print(f"as they were: {', '.join(kept)}")
    return 0


def update(runs: Sequence[Path], docs: Path) -> list[str]:
    """Takes in the runs and writes the page anew; returns what was updated.

    Raises:
        InputError: for a run that has not finished, or is damaged.
    """
    by_command: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for run in runs:
        summary = read_summary(run)
        by_command.setdefault(without_seed(summary["command"]), []).append((run, summary))
    updated = []
    (docs / "results").mkdir(parents=True, exist_ok=True)
    for command, group in by_command.items():
        entry = entry_of(command, [summary for _, summary in group])
        name = file_name(entry["about"])
        entry["figure"] = copy_picture(*group[0], docs / "results" / f"{name}.png")
        text = json.dumps(entry, indent=1, ensure_ascii=False) + "\n"
        write_whole(docs / "results" / f"{name}.json", lambda part, text=text: write(part, text))
        updated.append(entry["about"])
    write_whole(docs / "results.md", lambda part: write(part, page(read_entries(docs))))
    return updated


def write(part: Path, text: str) -> None:
    part.write_text(text, encoding="utf-8")


def read_summary(run: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    if not (run / SUMMARY).is_file():
        raise InputError(f"{run} holds no {SUMMARY}: give the folder of a run that has finished")
    summary = read_object(run / SUMMARY)
    missing = [
        key
        for key in ("name", "title", "sentence", "command", "seed", "seconds", "figures")
        if key not in summary
    ]
    if missing:
        raise InputError(f"{run / SUMMARY} lacks {', '.join(missing)}: it is damaged")
    return summary


def without_seed(command: str) -> str:
    """A command without its ``--seed N``: what runs of several seeds have in common."""
    words = shlex.split(command)
    if "--seed" in words:
        at = words.index("--seed")
        del words[at : at + 2]
    return shlex.join(words)


def entry_of(command: str, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page tells of runs that differ in their seed alone."""
    summaries = sorted(summaries, key=lambda summary: summary["seed"])
    first = summaries[0]
    findings = []
    for finding in first.get("findings") or []:
        same = [
            other
            for summary in summaries
            for other in summary.get("findings") or []
            if other["what"] == finding["what"]
        ]
        findings.append(
            {
                **{k: finding[k] for k in ("what", "target", "published", "better", "unit")},
                "source": finding.get("source", ""),
                "values": [other["value"] for other in same],
                "reached": [other["reached"] for other in same],
            }
        )
    return {
        "name": first["name"],
        "about": command.removeprefix("odeum run ").replace("--set ", ""),
        "command": command,
        "title": first["title"],
        "sentence": first["sentence"],
        "seeds": [summary["seed"] for summary in summaries],
        "seconds": [summary["seconds"] for summary in summaries],
        "device": first.get("device", ""),
        "versions": first.get("versions", {}),
        "findings": findings,
    }


def copy_picture(run: Path, summary: dict[str, Any], to: Path) -> dict[str, str] | None:
    """The run's first picture that stands still, small enough for a page."""
    for figure in summary["figures"]:
        if figure["file"].endswith(".png"):
            with Image.open(run / figure["file"]) as picture:
                content = shrunk(picture.convert("RGB"))
            write_whole(to, lambda part, content=content: part.write_bytes(content))
            return {"alt": figure["alt"], "caption": f"{figure['title']} {figure['caption']}"}
    return None


def shrunk(picture: Image.Image) -> bytes:
    """As PNG, of at most :data:`LARGEST_PICTURE` bytes."""
    width = min(picture.width, WIDEST_PICTURE)
    while True:
        size = (width, max(1, round(picture.height * width / picture.width)))
        smaller = picture.resize(size, Image.Resampling.LANCZOS)
        kept = io.BytesIO()
        # A picture of few colours, as most are, looks the same with 256.
        smaller.quantize(256, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
        if kept.tell() <= LARGEST_PICTURE or width < 64:
            return kept.getvalue()
        width = int(width * min(0.9, (LARGEST_PICTURE / kept.tell()) ** 0.5))


def read_entries(docs: Path) -> list[dict[str, Any]]:
    """All that is known, in the order in which ``odeum list`` has the experiments."""
    order = {name: place for place, name in enumerate(EXPERIMENTS)}
    entries = [read_object(path) for path in sorted((docs / "results").glob("*.json"))]
    return sorted(entries, key=lambda x: (order.get(x["name"], len(order)), x["about"]))


def page(entries: Sequence[dict[str, Any]]) -> str:
    """docs/results.md."""
    reached = [
        all(finding["reached"])
        for entry in entries
        for finding in entry["findings"]
        if finding["target"] is not None
    ]
    parts = [
        "# Results",
        "What the experiments found, beside what was published and what was wanted. "
        f"{sum(reached)} of {len(reached)} targets are reached. Written by "
        "`python benchmarks/results.py RUN_DIR...` from the summaries of runs; each can be "
        "repeated by the command below it. Where there are several seeds, the number is the "
        "median, with the lowest and the highest behind it. Times are those of a whole run.",
        table(entries),
        *(section(entry) for entry in entries),
    ]
    return "\n\n".join(parts) + "\n"


def table(entries: Sequence[dict[str, Any]]) -> str:
    """Every finding on a line."""
    lines = [
        "| experiment | what was measured | measured | published | target | reached |",
        "|---|---|--:|--:|--:|---|",
    ]
    for entry in entries:
        shown = f"[{escaped(entry['about'])}](#{anchor(heading(entry))})"
        for finding in entry["findings"]:
            unit = finding["unit"]
            target = quantity(finding["target"], unit)
            if target != DASH:
                target = ("≥ " if finding["better"] == "higher" else "≤ ") + target
            cells = [
                shown,
                escaped(finding["what"]),
                spread(finding["values"], unit),
                quantity(finding["published"], unit),
                target,
                verdict(finding),
            ]
            lines.append(f"| {' | '.join(cells)} |")
            shown = ""
    return "\n".join(lines)


def section(entry: dict[str, Any]) -> str:
    """One experiment: its sentence, its picture, how to repeat it."""
    seeds = entry["seeds"]
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    told = [named, spread(entry["seconds"], "s"), entry["device"]]
    if "torch" in entry["versions"]:
        told.append(f"torch {entry['versions']['torch']}")
    sources = {x["what"]: x["source"] for x in entry["findings"] if x["source"]}
    parts = [f"## {heading(entry)}", entry["sentence"]]
    if entry.get("figure"):
        picture = f"results/{file_name(entry['about'])}.png"
        parts += [f"![{entry['figure']['alt']}]({picture})", f"*{entry['figure']['caption']}*"]
    if sources:
        listed = "; ".join(f"{source} ({what})" for what, source in sources.items())
        parts.append(f"Published: {listed}.")
    parts += [
        f"```sh\n{entry['command']} --seed {seeds[0]}\n```",
        ", ".join(part for part in told if part) + ".",
    ]
    return "\n\n".join(parts)


def heading(entry: dict[str, Any]) -> str:
    return f"{entry['title']}: {entry['about']}"


def anchor(text: str) -> str:
    """What a heading is linked to by, as GitHub makes it."""
    kept = "".join(x for x in text.lower() if x.isalnum() or x in " -_")
    return kept.replace(" ", "-")


def spread(values: Sequence[float | None], unit: str) -> str:
    """A number; of several the median with the range."""
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    middle = quantity(statistics.median(known), unit)
    if len(known) < 2:
        return middle
    low, high = (number(value, 3, trim=True) for value in (min(known), max(known)))
    return f"{middle} ({low} to {high}, {len(known)} seeds)"


def verdict(finding: dict[str, Any]) -> str:
    """Whether the target is reached, of several seeds by how many."""
    reached = finding["reached"]
    if finding["target"] is None:
        return DASH
    if all(reached) or not any(reached):
        return "yes" if all(reached) else "**no**"
    return f"**by {sum(map(bool, reached))} of {len(reached)}**"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
