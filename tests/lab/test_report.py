import json
import re
import shutil

import matplotlib.pyplot as plt
import pytest

from odeum import plots
from odeum.errors import DataError, InputError
from odeum.lab import report

STRANGER = '<script>alert("x")</script>'


def score(rmse, r2):
    return {"rmse": rmse, "r2": r2}


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Three pictures, in both kinds that a report embeds."""
    plt.switch_backend("agg")
    folder = tmp_path_factory.mktemp("figures")
    for name in ("loss.png", "fit.png", "phase_portrait.svg"):
        plots.save(plots.state_space([[0.0, 1.0], [1.0, 0.0]]), folder / name)
    return folder


@pytest.fixture
def run_dir(tmp_path, figures):
    """A run directory as a finished run leaves it, its columns named by a stranger."""
    shutil.copytree(figures, tmp_path / "figures")
    states = {"hare": score(3.25, 0.95), STRANGER: score(1.5, None)}
    worse = {"hare": score(9.5, float("nan")), STRANGER: score(1.25, 0.1)}
    summary = {
        "name": "fit",
        "title": f"Dynamics of {STRANGER}",
        "sentence": "It learned.",
        "finished": "2026-01-02T03:04:05+00:00",
        "seconds": 72.0,
        "epochs": 600,
        "best_epoch": 530,
        "seed": 7,
        "device": "cpu",
        "scores": {
            "model": {"in_sample": states, "held_out": {}},
            "last value": {"in_sample": worse},
        },
        "solver": {"method": "tsit5", "n_rejected": 3},
        "result": {"recovered_matrix": [[-0.1, -1.0], [1.0, None]], "note": STRANGER},
        "figures": [
            {"file": "figures/loss.png", "title": "Loss", "alt": "loss by epoch"},
            {"file": "figures/fit.png", "title": "Fit", "caption": STRANGER, "alt": STRANGER},
            {"file": "figures/phase_portrait.svg", "title": "Portrait"},
        ],
        "command": f"odeum fit data.csv --state '{STRANGER}'",
        "versions": {"odeum": "0.1.0"},
        "something newer": [1, 2],
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "config.json").write_text(json.dumps({"state": ["hare", STRANGER]}))
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 0.5}\n'
    )
    (tmp_path / "predictions.csv").write_text(
        'year,hare,"' + STRANGER.replace('"', '""') + '"\n1900,1.25,\n'
    )
    return tmp_path


def change(run_dir, **changes):
    path = run_dir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def page_of(run_dir):
    return report.build(run_dir).read_text(encoding="utf-8")


def test_page_tells_the_run(run_dir):
    page = page_of(run_dir)
    for words in (
        "It learned.",
        "1 min 12 s",
        "600 epochs, best at 530",
        "2026-01-02 03:04 UTC",
        "learned model",
        "last value",
        "tsit5",
        "loss went from 2 to 0.5",
    ):
        assert words in page
    sections = re.findall(r"<h2>(.*?)</h2>", page)
    assert sections == [
        "What was learned",
        "The fit",
        "Phase portrait",
        "Against the baselines",
        "Training",
        "Solver",
        "How to repeat this run",
    ]
    assert page.index("<strong>Fit</strong>") < page.index("<strong>Portrait</strong>")
    assert page.index("<strong>Portrait</strong>") < page.index("<strong>Loss</strong>")
    assert '<td class="best">3.250</td>' in page
    assert "<td>9.500</td><td>—</td>" in page
    assert "<td>−0.100</td><td>−1.000</td>" in page


def test_strangers_text_stays_text(run_dir):
    page = page_of(run_dir)
    assert "<script" not in page.lower()
    # Title, headline, state, result, caption, alt, command, config and predictions all show it.
    assert page.count("&lt;script&gt;") >= 8
    assert 'alt="&lt;script&gt;' in page


def test_page_is_complete_in_itself_and_dark_and_printable(run_dir):
    page = page_of(run_dir)
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert len(sources) == 4
    assert all(source.startswith("data:") for source in sources)
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page
    assert all('alt="' in tag for tag in re.findall(r"<img[^>]*>", page))


def test_sections_without_content_are_left_out(run_dir):
    (run_dir / "summary.json").write_text("{}")
    (run_dir / "metrics.jsonl").write_text("")
    page = page_of(run_dir)
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["How to repeat this run"]
    assert f"<h1>{run_dir.name}</h1>" in page


def test_what_stood_in_the_way_is_told_with_the_training(run_dir):
    assert "diverged" not in page_of(run_dir)
    change(run_dir, training={"n_steps_back": 4, "stopped_early": "the loss stayed"})
    page = page_of(run_dir)
    assert "It diverged 4 times, and went back to the last good state." in page
    assert "Training stopped early: the loss stayed." in page
    change(run_dir, training={"n_steps_back": 1, "stopped_early": ""})
    page = page_of(run_dir)
    assert "It diverged once" in page
    assert "stopped early" not in page


def test_many_states_share_one_tile(run_dir):
    states = {f"s{k}": score(1.0, k / 10) for k in range(1, 8)}
    change(run_dir, scores={"model": {"in_sample": states}})
    page = page_of(run_dir)
    assert page.count('<div class="tile">') == 2
    assert "mean of 7 states; lowest 0.100 (s1)" in page


@pytest.mark.parametrize(
    "name", ["config.json", "summary.json", "metrics.jsonl", "predictions.csv", "figures/fit.png"]
)
def test_missing_file_is_named_and_the_old_report_stays(run_dir, name):
    (run_dir / "report.html").write_text("old")
    (run_dir / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing") as caught:
        report.build(run_dir)
    assert "\n" not in str(caught.value)
    assert (run_dir / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[1]", r"config\.json holds list"),
        ("summary.json", b'{"title": ', r"summary\.json is not JSON"),
        ("summary.json", b'{"scores": 3}', r"summary\.json: scores is int"),
        ("summary.json", b'{"figures": [3]}', r"summary\.json: every entry of figures"),
        ("summary.json", b"\xff\xfe", r"summary\.json is not UTF-8"),
        ("metrics.jsonl", b'{"epoch": 1}\n{"epo', r"metrics\.jsonl, line 2, is not JSON"),
        ("predictions.csv", b"", r"predictions\.csv is empty"),
        ("predictions.csv", b"a,b\n1\n", r"predictions\.csv, line 2: 1 cells under 2"),
        ("figures/fit.png", b"", r"fit\.png is not a PNG picture"),
    ],
)
def test_damaged_file_is_named(run_dir, name, content, message):
    (run_dir / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        report.build(run_dir)
    assert "\n" not in str(caught.value)
    assert not (run_dir / "report.html").exists()


def test_only_pictures_of_the_run_are_embedded(run_dir, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(b"\x89PNG")
    change(run_dir, figures=[{"file": str(outside)}])
    with pytest.raises(DataError, match="outside the run directory"):
        report.build(run_dir)
    change(run_dir, figures=[{"file": "config.json"}])
    with pytest.raises(DataError, match="not a picture"):
        report.build(run_dir)


def test_report_appears_whole_or_not_at_all(run_dir, monkeypatch):
    (run_dir / "report.html").write_text("old")

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("odeum.files.os.replace", full_disk)
        with pytest.raises(InputError, match=r"report\.html cannot be written: No space left"):
            report.build(run_dir)
    assert (run_dir / "report.html").read_text() == "old"
    assert not list(run_dir.glob("*.part")) + list(run_dir.glob(".*.part"))
    assert report.build(run_dir) == run_dir / "report.html"
    assert "It learned." in (run_dir / "report.html").read_text()


def test_a_path_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        report.build(tmp_path / "nothing")
