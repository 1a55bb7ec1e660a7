"""docs/results.md is made from what runs say of themselves, and from nothing else."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "results.py"


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("results_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finding(what, value, target=None, **more):
    sign = -1 if more.get("better") == "higher" else 1
    reached = None if target is None else value is not None and sign * value <= sign * target
    return {
        **{"what": what, "value": value, "target": target, "published": None},
        **{"better": "lower", "unit": "", "source": "", "reached": reached},
        **more,
    }


def make_run(folder, name="moons", *, options="", seed=0, findings=(), noise=False, **changes):
    (folder / "figures").mkdir(parents=True)
    pixels = np.full((100, 200, 3), 255, dtype=np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 255, (700, 1400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "figures" / "first.png")
    summary = {
        "name": name,
        "title": f"The {name}",
        "sentence": f"It found the {name}.",
        "seed": seed,
        "seconds": 12.0 + seed,
        "device": "cpu",
        "command": f"odeum run {name}{options} --seed {seed}",
        "versions": {"torch": "2.13"},
        "findings": list(findings),
        "figures": [
            {"file": "figures/moving.gif", "title": "Moving.", "caption": "It moves.", "alt": "m"},
            {"file": "figures/first.png", "title": "First.", "caption": "It stands.", "alt": "f"},
        ],
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def read(docs):
    return (docs / "results.md").read_text(encoding="utf-8")


def test_the_page_tells_what_a_run_found(results, tmp_path, capsys):
    run = make_run(
        tmp_path / "run",
        findings=[
            finding("accuracy", 1.0, 1.0, better="higher"),
            finding("error", 0.75, 0.5, published=0.42, unit="%", source="Someone 2018"),
            finding("width | depth", 3.0),
        ],
    )
    docs = tmp_path / "docs"
    assert results.main([str(run), "--docs", str(docs)]) == 0
    assert "updated moons" in capsys.readouterr().out
    page = read(docs)
    assert "1 of 2 targets are reached" in page
    assert "| [moons](#the-moons-moons) | accuracy | 1 | — | ≥ 1 | yes |" in page
    assert "|  | error | 0.75% | 0.42% | ≤ 0.5% | **no** |" in page
    assert "|  | width \\| depth | 3 | — | — | — |" in page
    assert "It found the moons." in page
    assert "```sh\nodeum run moons --seed 0\n```\n\nseed 0, 12 s, cpu, torch 2.13." in page
    assert "Published: Someone 2018 (error)." in page
    assert "![f](results/moons.png)\n\n*First. It stands.*" in page


def test_the_picture_is_small_whatever_is_on_it(results, tmp_path):
    for noise in (True, False):
        docs = tmp_path / f"docs-{noise}"
        results.update([make_run(tmp_path / f"run-{noise}", noise=noise)], docs)
        picture = docs / "results" / "moons.png"
        assert picture.stat().st_size <= 200_000
        with Image.open(picture) as image:
            assert image.width <= 1100
            assert image.width == pytest.approx(2 * image.height, abs=2)


def test_seeds_are_one_entry_and_other_options_another(results, tmp_path):
    runs = [
        make_run(tmp_path / str(seed), seed=seed, findings=[finding("error", value, 0.3)])
        for seed, value in ((2, 0.2), (0, 0.1), (1, 0.4))
    ]
    other = make_run(
        tmp_path / "other", options=" --set noise=0.2", findings=[finding("error", None, 0.3)]
    )
    docs = tmp_path / "docs"
    assert results.update([*runs, other], docs) == ["moons", "moons noise=0.2"]
    page = read(docs)
    row = "| [moons](#the-moons-moons) | error | 0.2 (0.1 to 0.4, 3 seeds) | — | ≤ 0.3 |"
    assert f"{row} **by 2 of 3** |" in page
    assert "error | — | — | ≤ 0.3 | **no** |" in page
    assert "0 of 2 targets are reached" in page
    assert "seeds 0, 1, 2, 13 s (12 to 14, 3 seeds)" in page
    assert (docs / "results" / "moons-noise-0.2.json").exists()


def test_what_is_not_given_stays_as_it_was(results, tmp_path, capsys):
    docs = tmp_path / "docs"
    moons = make_run(tmp_path / "moons", findings=[finding("accuracy", 0.9)])
    circles = make_run(tmp_path / "circles", "circles", findings=[finding("accuracy", 0.8)])
    results.update([moons, circles], docs)
    picture = (docs / "results" / "moons.png").read_bytes()
    again = make_run(tmp_path / "again", "circles", findings=[finding("accuracy", 0.95)])
    assert results.main([str(again), "--docs", str(docs)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "as they were: moons"
    page = read(docs)
    assert page.index("It found the moons") < page.index("It found the circles")
    assert "| accuracy | 0.9 |" in page
    assert "| accuracy | 0.95 |" in page
    assert "| accuracy | 0.8 |" not in page
    assert (docs / "results" / "moons.png").read_bytes() == picture


@pytest.mark.parametrize("damage", ["none", "no JSON", '{"name": "moons"}'])
def test_a_run_that_has_not_finished_is_refused(results, tmp_path, capsys, damage):
    run = make_run(tmp_path / "run")
    (run / "summary.json").unlink()
    if damage != "none":
        (run / "summary.json").write_text(damage)
    assert results.main([str(run), "--docs", str(tmp_path / "docs")]) == 2
    assert str(run) in capsys.readouterr().err
    assert not (tmp_path / "docs" / "results.md").exists()


def test_the_page_in_the_repository_is_what_its_entries_make(results):
    docs = SCRIPT.parent.parent / "docs"
    entries = results.read_entries(docs)
    if entries:
        assert read(docs) == results.page(entries)
