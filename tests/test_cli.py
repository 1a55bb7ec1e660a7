import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from odeum.cli import app, main
from odeum.lab.experiments import EXPERIMENTS

EPOCHS = ("--epochs", 4, "--hidden", 4, "--quiet")


def table(n_rows=12):
    rows = [f"{t},{2 + t % 3},{5 - t % 4}" for t in range(n_rows)]
    return "\n".join(["year,hare,lynx", *rows]) + "\n"


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def odeum(capsys):
    """Run the command; returns exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return (stopped.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(odeum):
    """Run the command, expect exit code 2 and one line on stderr; returns that line."""

    def run(*arguments):
        code, out, err = odeum(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return run


@pytest.fixture
def without_pictures(monkeypatch):
    """Pictures take most of a short run; tests that look at none leave them out."""
    # The module, not the function of its name that odeum.lab offers.
    monkeypatch.setattr(importlib.import_module("odeum.lab.finish"), "draw", lambda *_: [])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, made by the command, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    data = folder / "counts.csv"
    data.write_text(table())
    arguments = ["fit", str(data), "--out", str(folder / "run"), *map(str, EPOCHS)]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return folder / "run"


class TestFit:
    def test_leaves_a_whole_run(self, finished):
        names = {path.name for path in finished.iterdir()}
        assert names >= {
            "config.json",
            "metrics.jsonl",
            "checkpoint.pt",
            "predictions.csv",
            "figures",
            "report.html",
            "summary.json",
        }
        summary = json.loads((finished / "summary.json").read_text())
        data = finished.parent / "counts.csv"
        repeat = shlex.split(summary["command"])
        assert repeat == ["odeum", "fit", str(data), *map(str, EPOCHS)]

    def test_tells_scores_and_where_the_report_is(
        self, odeum, tmp_path, monkeypatch, without_pictures
    ):
        monkeypatch.chdir(tmp_path)
        Path("my counts.csv").write_text(table().replace("lynx", "[lynx]"))
        code, out, err = odeum("fit", "my counts.csv", *EPOCHS[:-1], "--model", "linear")
        assert (code, err) == (0, "")
        folder = Path("runs/my-counts-1")
        scores = json.loads((folder / "summary.json").read_text())["scores"]
        for name in ("learned model", "last value", "linear ODE", "hare", "[lynx]", "held out"):
            assert name in out
        assert f"{scores['model']['held_out']['hare']['rmse']:.3f}"[:4] in out
        assert out.splitlines()[-1] == f"report  {folder / 'report.html'}"

    def test_columns_are_chosen(self, odeum, tmp_path, without_pictures):
        data = tmp_path / "data.csv"
        rows = [f"{t},{t % 3},{t % 4},{g},{t % 5}" for g in "pq" for t in range(9)]
        data.write_text('when,a,"b,c",site,d\n' + "\n".join(rows))
        chosen = ("--time", "when", "--state", '"b,c",a', "--group", "site")
        code, _, _ = odeum("fit", data, *chosen, *EPOCHS, "--out", tmp_path / "run")
        assert code == 0
        described = json.loads((tmp_path / "run/config.json").read_text())["data"]
        assert described["states"] == ["b,c", "a"]
        assert described["trajectories"] == ["p", "q"]

    @pytest.mark.parametrize(
        ("content", "arguments", "message"),
        [
            (table(), ["--time", "yaer"], "did you mean 'year'"),
            (table(), ["--state", "hare,lynks"], "did you mean 'lynx'"),
            (table(), ["--state", "hare,,lynx"], "--state hare,,lynx"),
            (table(), ["--group", "site"], "unknown column 'site'"),
            (table().replace("3,2,2", "3,few,2"), [], "line 5, column 'hare': 'few' is not a num"),
            (table().replace("3,2,2", "2,2,2"), [], "time 2 was already given in line 4"),
            (table(1), [], "with an observed state, at least 2 are needed"),
            ("year,hare\n1,\n2,\n3,\n", [], "column 'hare': is empty in every row"),
            (table().replace("3,2,2", "3,inf,2"), [], "line 5, column 'hare': 'inf' is not finite"),
            ("", [], "the file is empty"),
            (table(), ["--method", "dorpi5"], "did you mean 'dopri5'"),
            (table(), ["--activation", "tahn"], "did you mean 'tanh'"),
            (table(), ["--model", "liner"], "did you mean 'linear'"),
            (table(), ["--device", "gpu"], "give 'auto', 'cpu' or 'cuda'"),
            (table(), ["--rtol", "0"], "rtol is 0.0"),
            (table(), ["--rtol", "nan"], "rtol is nan"),
            (table(), ["--epochs", "1"], "epochs is 1"),
            (table(), ["--epochs", "many"], "--epochs"),
            (table(), ["--holdout", "1.5"], "holdout must be"),
            (table(), ["--hidden", "4,x"], "--hidden 4,x"),
            (table(), ["--seed", "-1"], "seed is -1"),
            (table(), ["--epoch", "5"], "Possible options: --epochs"),
            (table(), [], "already holds files"),
            (table(), ["--resume", "--epochs", "6"], "cannot be continued"),
        ],
    )
    def test_wrong_input_is_one_line_and_leaves_earlier_results(
        self, refused, finished, tmp_path, content, arguments, message
    ):
        data = tmp_path / "counts.csv"
        data.write_text(content)
        before = snapshot(finished)
        assert message in refused("fit", data, "--out", finished, *arguments)
        assert snapshot(finished) == before

    def test_missing_file_and_resume_without_a_folder(self, refused, tmp_path):
        (tmp_path / "counts.csv").write_text(table())
        missing = refused("fit", tmp_path / "count.csv")
        assert "no such file; did you mean 'counts.csv'" in missing
        assert "--resume needs --out" in refused("fit", tmp_path / "counts.csv", "--resume")

    def test_a_folder_that_cannot_be_written(self, refused, tmp_path):
        (tmp_path / "counts.csv").write_text(table())
        out = tmp_path / "counts.csv" / "run"
        assert "cannot be written" in refused("fit", tmp_path / "counts.csv", "--out", out)

    def test_a_file_as_spreadsheets_write_it(self, odeum, finished, tmp_path, without_pictures):
        data = tmp_path / "counts.csv"
        lines = table().splitlines()
        # A byte-order mark, semicolons, decimal commas, rows out of order.
        text = "\r\n".join([lines[0], *reversed(lines[1:])]).replace(",", ";")
        data.write_bytes(b"\xef\xbb\xbf" + text.replace(";2;", ";2,0;").encode())
        code, _, err = odeum("fit", data, *EPOCHS, "--out", tmp_path / "run")
        assert (code, err) == (0, "")
        read = (tmp_path / "run" / "data.csv").read_text()
        assert read == (finished / "data.csv").read_text()


class TestPredict:
    def test_of_what_was_learned_goes_to_the_screen(self, odeum, finished):
        code, out, err = odeum("predict", finished)
        assert (code, err) == (0, "")
        assert out == (finished / "predictions.csv").read_text()

    def test_from_a_file_until_a_time(self, odeum, finished, tmp_path):
        start, out = tmp_path / "start.csv", tmp_path / "next.csv"
        start.write_text("lynx,year,hare\n4,100,3\n")
        code, said, _ = odeum("predict", finished, "--from", start, "--until", 103, "--out", out)
        assert code == 0
        assert said == f"4 rows written to {out}\n"
        predicted = pd.read_csv(out)
        assert list(predicted.columns) == ["year", "hare", "lynx"]
        assert predicted.year.tolist() == [100, 101, 102, 103]
        assert predicted.iloc[0, 1:].tolist() == [3, 4]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["next.csv", "start.csv"]

    def test_wrong_input(self, refused, finished, tmp_path):
        start = tmp_path / "start.csv"
        start.write_text("year,hare\n100,3\n")
        assert "unknown column 'lynx'" in refused("predict", finished, "--from", start)
        assert "is the file that --from reads" in refused(
            "predict", finished, "--from", start, "--out", start
        )
        assert start.read_text() == "year,hare\n100,3\n"
        assert "is a folder" in refused("predict", finished, "--out", tmp_path)
        for out in (start / "next.csv", tmp_path / "none" / "next.csv"):
            assert f"{out} cannot be written" in refused("predict", finished, "--out", out)
        assert "is no run directory" in refused("predict", tmp_path / "run-9")
        assert "until is nan" in refused("predict", finished, "--until", "nan")
        assert "until" in refused("predict", finished, "--until", "soon")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
    def test_a_damaged_checkpoint(self, refused, finished, tmp_path, content):
        folder = shutil.copytree(finished, tmp_path / "run")
        (folder / "checkpoint.pt").write_bytes(content)
        assert "damaged" in refused("predict", folder)


class TestReport:
    def test_is_built_anew(self, odeum, finished, tmp_path):
        folder = shutil.copytree(finished, tmp_path / "run")
        (folder / "report.html").unlink()
        code, out, _ = odeum("report", folder)
        assert (code, out) == (0, f"{folder / 'report.html'}\n")
        assert (folder / "report.html").read_bytes() == (finished / "report.html").read_bytes()

    def test_wrong_input(self, refused, tmp_path):
        assert "is not a folder" in refused("report", tmp_path / "run-9")
        assert "summary.json is missing" in refused("report", tmp_path)


class TestRun:
    def test_an_experiment(self, odeum, tmp_path):
        given = ("--set", "epochs=4", "--set", "n_times=20", "--seed", 7)
        code, out, err = odeum("run", "spiral", *given, "--out", tmp_path / "run")
        assert (code, err) == (0, "")
        assert "recovered matrix" in out
        assert out.splitlines()[-1] == f"report  {tmp_path / 'run' / 'report.html'}"
        config = json.loads((tmp_path / "run/config.json").read_text())
        assert (config["seed"], config["options"]["n_times"]) == (7, 20)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["spirale"], "unknown experiment 'spirale': did you mean 'spiral'"),
            (["spiral", "--set", "nois=1"], "did you mean 'noise'"),
            (["spiral", "--set", "noise"], "key=value"),
            (["spiral", "--set", "noise=x"], "'x' is not a number"),
            (["spiral", "--seed", "-1"], "seed is -1"),
            (["spiral", "--device", "tpu"], "give 'auto', 'cpu' or 'cuda'"),
            ([], "Missing argument"),
        ],
    )
    def test_wrong_input(self, refused, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        assert message in refused("run", *arguments)
        assert not list(tmp_path.iterdir())


class TestList:
    def test_shows_every_experiment_on_a_line(self, odeum):
        _, out, _ = odeum("list")
        assert [line.split()[0] for line in out.splitlines()] == list(EXPERIMENTS)

    def test_shows_the_options_of_one(self, odeum):
        _, out, _ = odeum("list", "spiral")
        assert "noise=0.02 " in out


def test_doctor_finds_this_machine_well(odeum):
    code, out, err = odeum("doctor")
    assert (code, err) == (0, "")
    assert "self-check on cpu  solution within" in out


def test_doctor_tells_a_wrong_solve(odeum, monkeypatch):
    from odeum.lab import doctor

    finding = doctor.self_check("cpu", exact=lambda t, y0: y0.expand(len(t), -1, -1) * t[0])
    assert not finding.ok
    assert finding.text.startswith("wrong")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    code, out, _ = odeum("doctor")
    assert code == 1
    assert "wrong" in out


def test_help_and_version_without_a_command(odeum):
    for arguments in ((), ("--help",)):
        code, out, err = odeum(*arguments)
        assert (code, err) == (0, "")
        assert all(name in out for name in ("fit", "predict", "run", "list", "report", "doctor"))
    assert odeum("--version")[1].startswith("odeum 0.")
    assert CliRunner().invoke(app, ["fit", "--help"]).exit_code == 0


def test_mistyped_commands(refused):
    assert "did you mean 'fit'" in refused("fti").lower()
    assert "--verson" in refused("--verson")


INTERRUPTED_IN_THE_THIRD_EPOCH = """
import signal, sys

# Shells start what runs in their background with interrupts switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
written = []

def interrupt(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoint.pt"):
        written.append(arguments)
        if len(written) == 3:
            signal.raise_signal(signal.SIGINT)

sys.addaudithook(interrupt)

from odeum.cli import main

main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_tells_how_to_go_on_and_that_works(odeum, tmp_path, monkeypatch, without_pictures):
    monkeypatch.chdir(tmp_path)
    Path("counts.csv").write_text(table())
    command = ["fit", "counts.csv", "--epochs", "8", "--hidden", "4", "--quiet"]
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_THE_THIRD_EPOCH, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    out, err = process.stdout, process.stderr
    assert (process.returncode, out) == (130, ""), err
    assert err.startswith("interrupted; continue with: odeum fit counts.csv")
    assert err.count("\n") == 1
    again = shlex.split(err.partition("continue with: ")[2])
    code, out, err = odeum(*again[1:])
    assert (code, err) == (0, "")
    assert len(Path("runs/counts-1/metrics.jsonl").read_text().splitlines()) == 8
