"""The command measures what there is, and says what there is not."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from odeum.cli import app, main
from odeum.lab import bench
from odeum.lab.bench import entrants


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A workload that takes no time."""
    monkeypatch.setattr(bench, "QUICK", [replace(bench.find("mlp-1"), sizes=(2, 4, 2), n_times=3)])


def test_ratios_are_printed():
    found = CliRunner().invoke(app, ["bench", "--against", "scipy", "--rounds", "1"])
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["workload", "entrant"],
        ["mlp-1", "odeum"],
        ["mlp-1", "SciPy"],
    ]
    assert lines[1].split()[3] == "1.00"


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(entrants.LIBRARIES, "diffrax", ("no_such_package",))
    monkeypatch.setitem(entrants.LIBRARIES, "heyoka", ("no_such_package",))
    found = CliRunner().invoke(app, ["bench", "--against", "heyoka,scipy,diffrax", "--rounds", "1"])
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0] == "not installed: heyoka, diffrax (pip install 'odeum[bench]')"
    assert "SciPy" in lines[3]


def test_unknown_library_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--against", "torchdifeq"])
    assert "did you mean 'torchdiffeq'" in capsys.readouterr().err
