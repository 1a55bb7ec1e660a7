import importlib
import json
import math
import shlex

import pytest
import torch

from odeum.datasets import sample
from odeum.errors import InputError
from odeum.lab import load
from odeum.lab.experiments import EXPERIMENTS, Setting, describe_options, find, read_options
from odeum.lab.experiments.spiral import SpiralOptions, _Batches, _stages, nearest_linear_map
from odeum.lab.pictures import FIGURES, _loss
from odeum.models import LearnedDynamics, LinearField, StateTransform
from odeum.systems import spiral

TRUE_MATRIX = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], dtype=torch.float64)
FILES = {
    "config.json",
    "data.csv",
    "metrics.jsonl",
    "checkpoint.pt",
    "predictions.csv",
    "report.html",
    "summary.json",
}


def set_options(name, *assignments):
    return read_options(EXPERIMENTS[name], assignments)


def run(name, folder, *assignments, seed=0, resume=False):
    options = set_options(name, *assignments)
    setting = Setting(folder, seed=seed, resume=resume, quiet=True)
    return EXPERIMENTS[name].run(options, setting)


@pytest.fixture(scope="module")
def spiral_run(tmp_path_factory):
    """The experiment as it comes."""
    return run("spiral", tmp_path_factory.mktemp("spiral") / "run")


class TestOptions:
    def test_values_are_read_by_type(self):
        given = ["noise=0.5", "n_times=50", "bias=Yes", "hidden=8, 9", "windows=one-step"]
        options = set_options("spiral", *given)
        assert options == SpiralOptions("one-step", 50, 0.5, hidden=(8, 9), bias=True)

    def test_dashes_serve_as_underscores(self):
        assert set_options("spiral", "n-times=50").n_times == 50

    @pytest.mark.parametrize(
        ("assignments", "message"),
        [
            (["nois=1"], "unknown option of spiral 'nois': did you mean 'noise'"),
            (["noise"], "--set takes key=value, got 'noise'"),
            (["=3"], "--set takes key=value"),
            (["noise=loud"], "'loud' is not a number"),
            (["noise=nan"], "finite"),
            (["noise=-1"], "noise is -1"),
            (["epochs=2.5"], "'2.5' is not a whole number"),
            (["epochs=3"], "epochs is 3"),
            (["n_times=2"], "n_times is 2"),
            (["holdout=1"], "holdout is 1"),
            (["learning_rate=0"], "learning_rate is 0"),
            (["hidden=8,x"], "'x' is not a whole number"),
            (["hidden=8,0"], "hidden is"),
            (["bias=perhaps"], "true or false"),
            (["windows=randm"], "unknown value of windows 'randm': did you mean 'random'"),
            (["noise=1", "noise=2"], "twice"),
            (["bias=1", "nonlinear=1"], "not both"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, assignments, message):
        with pytest.raises(InputError) as raised:
            set_options("spiral", *assignments)
        assert message in str(raised.value)

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_option_tells_its_meaning_and_a_default_that_can_be_set(self, name):
        described = describe_options(EXPERIMENTS[name])
        assert all(meaning for _, _, meaning in described)
        again = set_options(name, *(f"{key}={default}" for key, default, _ in described))
        assert again == EXPERIMENTS[name].options()

    def test_the_command_gives_the_options_back(self):
        options = set_options("spiral", "bias=true", "noise=0.5", "hidden=8,8")
        words = shlex.split(EXPERIMENTS["spiral"].command(options, Setting(seed=3, device="cpu")))
        given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        assert words[:3] == ["odeum", "run", "spiral"]
        assert set_options("spiral", *given) == options
        assert words[-4:] == ["--seed", "3", "--device", "cpu"]

    def test_unknown_experiment_and_seed_are_refused(self):
        with pytest.raises(InputError, match="did you mean 'spiral'"):
            find("spirall")
        with pytest.raises(InputError, match="seed is -1"):
            Setting(seed=-1)


class TestWindows:
    head = sample(spiral(), n_times=40).split(0.2)[0]

    def draw(self, kind, seed=0):
        stage = _stages(SpiralOptions(windows=kind), 32)[-1]
        batches = _Batches(kind, self.head, torch.device("cpu"))
        return stage, batches.draw(stage, torch.Generator().manual_seed(seed))

    def test_one_step_windows_end_at_the_next_row(self):
        _, windows = self.draw("one-step")
        y = self.head.trajectories[0].y
        assert torch.equal(windows.y0, y[:-1])
        assert torch.equal(windows.targets[1], y[1:])
        assert len(windows.ts) == 2

    def test_the_whole_is_one_window_of_all_that_was_learned_from(self):
        stage, windows = self.draw("whole")
        y = self.head.trajectories[0].y
        assert stage.window == 32
        assert torch.equal(windows.targets[1:, 0], y[1:])
        assert windows.y0.tolist() == y[:1].tolist()

    def test_random_spans_end_anywhere_and_follow_the_generator(self):
        stage, windows = self.draw("random")
        seen = ~torch.isnan(windows.targets[1:]).any(-1)
        lengths = seen.sum(0)
        # A span is observed up to its end and not beyond.
        assert torch.equal(seen, torch.arange(1, stage.window)[:, None] <= lengths)
        assert lengths.min() >= 1
        assert len(lengths.unique()) > 2
        assert torch.equal(seen, ~torch.isnan(self.draw("random")[1].targets[1:]).any(-1))
        other = ~torch.isnan(self.draw("random", seed=1)[1].targets[1:]).any(-1)
        assert not torch.equal(seen, other)

    @pytest.mark.parametrize("kind", ["random", "one-step", "whole"])
    @pytest.mark.parametrize("epochs", [4, 5, 161])
    def test_stages_share_all_epochs(self, kind, epochs):
        stages = _stages(SpiralOptions(windows=kind, epochs=epochs), 160)
        assert sum(stage.n_epochs for stage in stages) == epochs
        assert all(stage.n_epochs >= 1 for stage in stages)


def test_nearest_linear_map_gives_matrix_and_offset_back():
    model = LearnedDynamics(LinearField(2, bias=True).double(), StateTransform.identity(2))
    offset = torch.tensor([0.5, -2.0], dtype=torch.float64)
    with torch.no_grad():
        model.field.linear.weight.copy_(TRUE_MATRIX + 0.25)
        model.field.linear.bias.copy_(offset)
    found = nearest_linear_map(model, sample(spiral(), n_times=30))
    torch.testing.assert_close(found.matrix, TRUE_MATRIX + 0.25)
    torch.testing.assert_close(found.offset, offset)
    assert found.largest_error == pytest.approx(0.25)


class TestSpiral:
    def test_the_matrix_is_recovered(self, spiral_run):
        recovered = torch.tensor(spiral_run.summary["result"]["recovered_matrix"]).double()
        largest = float((recovered - TRUE_MATRIX).abs().max())
        assert largest < 0.02
        assert spiral_run.summary["result"]["largest_error"] == pytest.approx(largest, rel=1e-4)
        assert spiral_run.summary["result"]["true_matrix"] == TRUE_MATRIX.tolist()

    def test_the_run_directory_is_whole(self, spiral_run):
        names = {path.name for path in spiral_run.path.iterdir()}
        assert names == FILES | {"figures"}
        summary = json.loads((spiral_run.path / "summary.json").read_text())
        assert summary["command"] == "odeum run spiral --seed 0"
        listed = {entry["file"] for entry in summary["figures"]}
        assert listed == {f"figures/{p.name}" for p in (spiral_run.path / "figures").iterdir()}
        assert "figures/matrix.png" in listed
        assert summary["epochs"] == len(
            (spiral_run.path / "metrics.jsonl").read_text().splitlines()
        )

    def test_it_is_read_back_and_predicts(self, spiral_run):
        table = load(spiral_run.path).predict(until=26.0)
        assert list(table.columns) == ["t", "x", "y"]
        start = torch.tensor(table[["x", "y"]].to_numpy()[:1])
        exact = spiral().exact(torch.tensor(table["t"].to_numpy()), start)[:, 0]
        # Noise of 0.02 on a radius of 2 leaves this much.
        assert float((torch.tensor(table[["x", "y"]].to_numpy()) - exact).abs().max()) < 0.1

    def test_one_seed_gives_one_run(self, tmp_path, monkeypatch):
        # The module, not the function of its name that odeum.lab offers.
        finishing = importlib.import_module("odeum.lab.finish")
        monkeypatch.setattr(finishing, "draw", lambda *_: [])
        found = [
            run("spiral", tmp_path / name, "epochs=4", "n_times=20", seed=seed).summary["result"]
            for name, seed in (("a", 1), ("b", 1))
        ]
        assert found[0] == found[1]

    def test_a_finished_run_is_not_overwritten(self, spiral_run):
        before = (spiral_run.path / "checkpoint.pt").read_bytes()
        with pytest.raises(InputError, match="already holds files"):
            run("spiral", spiral_run.path)
        with pytest.raises(InputError, match=r"noise was 0\.02 and is now 0\.5"):
            run("spiral", spiral_run.path, "noise=0.5", resume=True)
        assert (spiral_run.path / "checkpoint.pt").read_bytes() == before

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="no CUDA device"):
            EXPERIMENTS["spiral"].run(SpiralOptions(), Setting(tmp_path / "run", device="cuda"))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("windows", "told"),
    [((2, 2), "Every training window spans 2 rows"), ((2, 4), "Training windows grow")],
)
def test_the_loss_is_told_with_the_windows_it_had(tmp_path, windows, told):
    (tmp_path / FIGURES).mkdir()
    metrics = [
        {"epoch": i + 1, "loss": 1.0 / (i + 1), "held_out": None, "window": window}
        for i, window in enumerate(windows)
    ]
    assert _loss(tmp_path, metrics, 2)["caption"].startswith(told)


@pytest.mark.slow
def test_comparison_holds_three_whole_runs_and_shows_them_side_by_side(tmp_path):
    found = run("spiral-comparison", tmp_path / "run", "epochs=4", "n_times=20")
    kinds = {
        label: load(found.path / folder).config["model"]
        for label, folder in (
            ("linear", "."),
            ("linear with bias", "linear-with-bias"),
            ("nonlinear", "nonlinear"),
        )
    }
    assert kinds["linear"] == {"kind": "linear", "dim": 2, "bias": False}
    assert kinds["linear with bias"]["bias"]
    assert kinds["nonlinear"]["kind"] == "mlp"
    summary = json.loads((found.path / "summary.json").read_text())
    assert [*kinds, "last value", "linear ODE"] == list(summary["scores"])
    for label in kinds:
        error = summary["result"][f"largest error, {label}"]
        matrix = torch.tensor(summary["result"][f"matrix, {label}"], dtype=torch.float64)
        assert error == pytest.approx(float((matrix - TRUE_MATRIX).abs().max()))
    assert summary["epochs"] == 12
    for folder in (found.path, found.path / "linear-with-bias", found.path / "nonlinear"):
        assert {path.name for path in folder.iterdir()} >= FILES
    page = (found.path / "report.html").read_text()
    assert "Side by side" in page


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_the_matrix_is_recovered_for_every_seed(tmp_path, seed):
    assert run("spiral", tmp_path / "run", seed=seed).summary["result"]["largest_error"] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("assignment", "largest"),
    [
        ("bias=true", 0.02),
        ("nonlinear=true", 0.05),
        ("windows=one-step", 0.1),
        ("windows=whole", 0.05),
    ],
)
def test_the_other_ways_come_close(tmp_path, assignment, largest):
    error = run("spiral", tmp_path / "run", assignment).summary["result"]["largest_error"]
    assert math.isfinite(error)
    assert error < largest


@pytest.mark.slow
def test_going_on_with_a_finished_comparison_changes_nothing(tmp_path):
    given = ("epochs=4", "n_times=20")
    found = run("spiral-comparison", tmp_path / "run", *given)
    again = run("spiral-comparison", tmp_path / "run", *given, resume=True)
    assert again.summary["result"] == found.summary["result"]
