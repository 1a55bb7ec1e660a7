import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import odeum
from odeum import datasets, lab
from odeum.datasets import Trajectories, Trajectory
from odeum.errors import DataError, InputError
from odeum.lab import specs
from odeum.models import LinearField, MLPField, NeuralODE

SHORT = {"epochs": 8, "hidden": (8,), "quiet": True}
LYNX_HARE = Path(__file__).parents[2] / "examples" / "data" / "lynx_hare.csv"


@pytest.fixture(scope="module")
def data():
    """Three short groups of different lengths at times of their own, one with an empty cell."""
    torch.set_default_dtype(torch.float64)
    sampled = datasets.sample(
        odeum.systems.get("spiral"), n_trajectories=3, n_times=12, irregular=True, noise=0.01
    )
    parts = []
    for n_rows, trajectory in zip((12, 9, 7), sampled, strict=True):
        y = trajectory.y[:n_rows].clone()
        y[0, 0] = torch.nan if n_rows == 9 else y[0, 0]
        parts.append(Trajectory(trajectory.name, trajectory.t[:n_rows], y))
    return Trajectories(tuple(parts), "t", ("x", "y"), "trajectory", "spiral.csv")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    return lab.fit(None, data, out=tmp_path_factory.mktemp("fit") / "run", seed=3, **SHORT)


def test_a_seed_gives_the_same_weights_whatever_the_default_dtype(data, tmp_path):
    def first_weights(dtype):
        def stop(line):
            raise Killed

        torch.set_default_dtype(dtype)
        out = tmp_path / str(dtype)
        with pytest.raises(Killed):
            lab.fit(None, data, out=out, on_epoch=stop, **SHORT)
        assert torch.get_default_dtype() == dtype
        return torch.load(out / "checkpoint.pt", weights_only=True)["model"]

    single, double = first_weights(torch.float32), first_weights(torch.float64)
    assert single.keys() == double.keys()
    for name, value in single.items():
        assert torch.equal(value, double[name])


class Killed(Exception):
    pass


def metrics_of(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def read(path):
    return json.loads(path.read_text())


def test_a_run_leaves_everything_behind(run, data):
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "config.json",
        "data.csv",
        "metrics.jsonl",
        "checkpoint.pt",
        "predictions.csv",
        "figures",
        "summary.json",
        "report.html",
    }
    pictures = {path.name for path in (run.path / "figures").iterdir()}
    assert pictures == {"fit.png", "fit_2.png", "fit_3.png", "phase_portrait.png", "loss.png"}
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 8
    assert "beats" in (run.path / "report.html").read_text(encoding="utf-8")


def test_the_summary_has_its_shape(run):
    summary = read(run.path / "summary.json")
    assert list(summary) == [
        "name", "title", "sentence", "finished", "seed", "device", "command", "versions",
        "seconds", "epochs", "best_epoch", "scores", "solver", "training", "result", "figures",
    ]  # fmt: skip
    assert list(summary["scores"]) == ["model", "last value", "linear ODE"]
    for splits in summary["scores"].values():
        assert list(splits) == ["in_sample", "held_out"]
        for states in splits.values():
            assert list(states) == ["x", "y"]
            assert all(set(score) == {"rmse", "r2"} for score in states.values())
    assert set(summary["solver"]) == {"method", "engine", "evaluations_per_epoch", "n_rejected"}
    assert summary["training"] == {"n_steps_back": 0, "stopped_early": ""}
    assert summary["result"] == {}
    assert set(summary["versions"]) == {"odeum", "torch", "python"}
    assert (summary["epochs"], summary["seed"], summary["device"]) == (8, 3, "cpu")


def test_scores_are_those_of_the_predictions_written(run, data):
    frame = pd.read_csv(run.path / "predictions.csv", dtype={"trajectory": str})
    assert list(frame.columns) == ["trajectory", "t", "x", "y"]
    observed = data.to_frame()
    np.testing.assert_array_equal(frame["t"], observed["t"])
    position = observed.groupby("trajectory").cumcount().to_numpy()
    n_head = observed["trajectory"].map({"1": 10, "2": 7, "3": 6}).to_numpy()
    start = np.where(observed["trajectory"] == "2", 1, 0)
    for state in ("x", "y"):
        for split, rows in (
            ("in_sample", (position > start) & (position < n_head)),
            ("held_out", position >= n_head),
        ):
            error = (frame[state] - observed[state])[rows]
            expected = run.summary["scores"]["model"][split][state]["rmse"]
            assert np.sqrt((error**2).mean()) == pytest.approx(expected, rel=1e-12)
    # The first complete row is where a solve starts; nothing is said before it.
    second = frame[frame["trajectory"] == "2"]
    assert second[["x", "y"]].iloc[0].isna().all()
    assert second["x"].iloc[1] == data.trajectories[1].y[1, 0]


def test_a_run_is_read_back_as_it_was(run, data):
    again = lab.load(run.path)
    for name, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert again.summary == run.summary
    for ours, theirs in zip(again.data, data, strict=True):
        assert ours.name == theirs.name
        assert torch.equal(ours.t, theirs.t)
        torch.testing.assert_close(ours.y, theirs.y, rtol=0, atol=0, equal_nan=True)
    pd.testing.assert_frame_equal(again.predict(), lab.predict(run.path))
    pd.testing.assert_frame_equal(
        again.predict(), pd.read_csv(run.path / "predictions.csv", dtype={"trajectory": str})
    )


def test_predictions_reach_beyond_the_data(run, data):
    longer = run.predict(until=40.0)
    for trajectory in data:
        rows = longer[longer["trajectory"] == trajectory.name]
        extra = rows["t"].to_numpy()[len(trajectory) :]
        gap = float(trajectory.t.diff().median())
        np.testing.assert_allclose(np.diff([float(trajectory.t[-1]), *extra]), gap)
        assert 40 - gap < extra[-1] <= 40 + 1e-9
    short = run.predict()
    same = longer.merge(short, on=["trajectory", "t"], suffixes=("", "_short"))
    assert len(same) == len(short)
    np.testing.assert_allclose(same["x"], same["x_short"], rtol=1e-3, atol=1e-3)
    pd.testing.assert_frame_equal(run.predict(until=0.0), short)
    with pytest.raises(InputError, match="closer to the data"):
        run.predict(until=1e12)
    with pytest.raises(InputError, match="finite"):
        run.predict(until=float("nan"))


def test_predictions_from_other_data(run):
    t = torch.tensor([3.0, 3.5, 4.0])
    y = torch.tensor([[1.0, 1.0], [torch.nan] * 2, [torch.nan] * 2])
    other = Trajectories((Trajectory("new", t, y),), "t", ("x", "y"))
    frame = run.predict(other)
    assert list(frame.columns) == ["t", "x", "y"]
    expected = run.model(y[:1], t)[:, 0].detach()
    np.testing.assert_allclose(frame[["x", "y"]].to_numpy(), expected, rtol=1e-9)
    renamed = Trajectories((Trajectory("new", t, y),), "t", ("x", "z"))
    with pytest.raises(DataError, match="learned the states x, y"):
        run.predict(renamed)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("epoch", [3, 8])
def test_a_run_killed_and_resumed_is_the_run_itself(run, data, tmp_path, epoch):
    def kill(line):
        if line["epoch"] == epoch:
            raise Killed

    out = tmp_path / "run"
    with pytest.raises(Killed):
        lab.fit(None, data, out=out, seed=3, on_epoch=kill, **SHORT)
    assert not (out / "summary.json").exists()
    resumed = lab.fit(None, data, out=out, seed=3, resume=True, **SHORT)
    for name, value in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
    for name in ("predictions.csv", "config.json", "data.csv"):
        assert (out / name).read_text() == (run.path / name).read_text()
    lines = [
        [{**json.loads(line), "seconds": 0} for line in metrics_of(path)]
        for path in (out, run.path)
    ]
    assert lines[0] == lines[1]


def test_resuming_as_another_run_is_refused(run, data, tmp_path):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"training\.epochs was 8 and is now 9"):
        lab.fit(None, data, out=run.path, seed=3, resume=True, **{**SHORT, "epochs": 9})
    with pytest.raises(InputError, match="seed was 3 and is now 4"):
        lab.fit(None, data, out=run.path, seed=4, resume=True, **SHORT)
    y = data.trajectories[0].y.clone()
    y[2, 0] += 1e-12
    first = Trajectory(data.trajectories[0].name, data.trajectories[0].t, y)
    changed = Trajectories(
        (first, *data.trajectories[1:]), "t", ("x", "y"), "trajectory", "spiral.csv"
    )
    with pytest.raises(InputError, match=r"data\.sha256"):
        lab.fit(None, changed, out=run.path, seed=3, resume=True, **SHORT)
    with pytest.raises(InputError, match="already holds files"):
        lab.fit(None, data, out=run.path, seed=3, **SHORT)
    with pytest.raises(InputError, match="resume needs out"):
        lab.fit(None, data, resume=True, **SHORT)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        lab.fit(None, data, out=blocked / "run", **SHORT)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_runs_without_a_folder_are_numbered(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stop(line):
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            lab.fit("linear", data, quiet=True, on_epoch=stop)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["spiral-1", "spiral-2"]


def test_a_single_short_trajectory_of_one_state_is_learned(tmp_path):
    t = torch.linspace(0, 3, 7)
    data = Trajectories((Trajectory("decay", t, 3 + 2 * (-t).exp()[:, None]),), "t", ("x",))
    run = lab.fit("linear", data, out=tmp_path / "run", epochs=200, quiet=True)
    assert run.summary["scores"]["model"]["in_sample"]["x"]["r2"] > 0.99
    assert run.summary["scores"]["model"]["held_out"]["x"]["rmse"] < 0.1
    assert {path.name for path in (run.path / "figures").iterdir()} == {"fit.png", "loss.png"}


def test_modules_are_trained_in_place_and_need_themselves_to_load(tmp_path, data):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.1, 0.1]))

        def forward(self, t, y):
            return self.scale * y

    field = Own()
    run = lab.fit(field, data, out=tmp_path / "own", holdout=0.0, **SHORT)
    assert run.model.field is field
    assert run.summary["scores"]["model"]["held_out"] == {}
    assert not torch.equal(field.scale.detach(), torch.tensor([0.1, 0.1]))
    with pytest.raises(InputError, match="pass one like it"):
        lab.load(run.path)
    assert torch.equal(lab.load(run.path, model=Own()).model.field.scale, field.scale)


def test_the_options_of_a_neural_ode_are_used():
    spec = specs.model_spec(NeuralODE(MLPField(2, hidden=(3,), activation="sin")), 2, (), "tanh")
    assert (spec["hidden"], spec["activation"]) == ([3], "sin")
    options = NeuralODE(LinearField(2), method="bosh3", step=odeum.StepOptions(max=0.5)).options
    solver = specs.solver_spec(options)
    assert (solver["method"], solver["step"]["max"]) == ("bosh3", 0.5)
    rebuilt = specs.build_model(LinearField(2), odeum.models.StateTransform.identity(2), solver)
    assert rebuilt.ode.options["step"] == odeum.StepOptions(max=0.5)


def test_units_are_chosen_from_what_was_observed():
    t = torch.linspace(100, 110, 11)
    y = torch.stack([t.sin(), (0.5 * (t - 100)).exp(), 10 + t.cos(), torch.full_like(t, 4.0)], -1)
    y[3, 1] = torch.nan
    data = Trajectories((Trajectory("a", t, y),), "t", ("a", "b", "c", "d"))
    transform = specs.normalisation(data)
    assert transform.log.tolist() == [False, True, False, False]
    z = transform.encode(y)
    torch.testing.assert_close(torch.nanmean(z, 0), torch.zeros(4), rtol=0, atol=1e-9)
    seen = z[:, 1][~torch.isnan(z[:, 1])]
    assert float(seen.std(correction=0)) == pytest.approx(1)
    assert float(transform.encode_time(t[0])) == 0
    rates = z.diff(dim=0) / transform.encode_time(t).diff()[:, None]
    assert float(torch.nanmean(rates.square())) == pytest.approx(1)


def test_a_loss_counts_observed_cells_only(data):
    """Against the sum done by hand, with a field whose solutions are known: they stand still."""
    head = data.split(0.2)[0]
    field = LinearField(2)
    nn.init.zeros_(field.linear.weight)
    transform = specs.normalisation(head)
    model = odeum.models.LearnedDynamics(field, transform)
    recipe = lab.Recipe(head, data, model)
    stage = lab.Stage(window=3, n_epochs=1, learning_rate=0.1)
    loss = recipe.loss(model, recipe.batch(stage, torch.Generator()))
    loss.value.backward()
    squares = []
    for trajectory in head:
        z = transform.encode(trajectory.y)
        for start in range(len(z) - 2):
            if trajectory.complete[start]:
                squares.append((z[start + 1 : start + 3] - z[start]).square())
    expected = torch.nanmean(torch.cat(squares))
    torch.testing.assert_close(loss.value.detach(), expected)
    assert torch.isfinite(field.linear.weight.grad).all()
    errors = []
    spread = specs.spread(head)
    for known, trajectory in zip(head, data, strict=True):
        first = trajectory.y[int(trajectory.complete.nonzero()[0])]
        errors.append(((trajectory.y[len(known) :] - first) / spread).square())
    expected = torch.cat(errors).mean().sqrt()
    assert recipe.held_out_error(model) == pytest.approx(float(expected))


def test_failed_rows_leave_the_loss_and_its_gradient_finite():
    """One row runs away within its window; what it gave before still counts."""

    class Runaway(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(1.0))

        def forward(self, t, y):
            return self.rate * torch.where(y > 1.2, y**6, 0.1 * y)

    t = torch.linspace(0, 4, 9)
    y = torch.cat([torch.linspace(1, 2, 8), torch.tensor([-20.0])])[:, None]
    data = Trajectories((Trajectory("a", t, y),), "t", ("x",))
    field = Runaway()
    options = {"step": odeum.StepOptions(max_steps=60)}
    model = odeum.models.LearnedDynamics(field, odeum.models.StateTransform.identity(1), **options)
    recipe = lab.Recipe(data, data, model)
    loss = recipe.loss(model, recipe.batch(lab.Stage(4, 1, 0.1), torch.Generator()))
    loss.value.backward()
    assert loss.n_failed > 0
    assert torch.isfinite(loss.value)
    assert torch.isfinite(field.rate.grad)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mpl"}, "did you mean 'mlp'"),
        ({"model": 3}, "model is a int"),
        ({"data": [1, 2]}, "data is a list"),
        ({"epochs": 1}, "epochs is 1"),
        ({"holdout": 1.5}, "holdout must be"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"method": "tsit"}, "did you mean 'tsit5'"),
        ({"activation": "tahn"}, "did you mean 'tanh'"),
        ({"rtol": 0.0}, "rtol is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"model": nn.Identity()}, "no weights"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(data, tmp_path, changes, message):
    given = {"model": None, "data": data, "out": tmp_path / "run", **SHORT, **changes}
    with pytest.raises(InputError, match=message):
        lab.fit(given.pop("model"), given.pop("data"), **given)
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_or_damaged_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        lab.load(tmp_path)
    for name in ("config.json", "data.csv"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(InputError, match=r"checkpoint\.pt is missing"):
        lab.load(tmp_path)
    text = (tmp_path / "data.csv").read_text()
    (tmp_path / "data.csv").write_text(text.replace("0.0", "0.5", 1))
    with pytest.raises(InputError, match="it was changed"):
        lab.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        lab.load(tmp_path)


def test_a_positive_state_is_not_predicted_from_what_is_not(tmp_path):
    t = torch.linspace(0, 3, 8)
    data = Trajectories((Trajectory("growth", t, t.exp()[:, None]),), "t", ("x",))
    run = lab.fit(None, data, out=tmp_path / "run", **SHORT)
    assert run.config["learned_as_logarithms"] == ["x"]
    assert (run.predict(until=30.0)["x"] > 0).all()
    zero = Trajectories((Trajectory("zero", t, (t.exp() - 1)[:, None]),), "t", ("x",))
    with pytest.raises(DataError, match="'zero' starts from a state that is not positive"):
        run.predict(zero)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_learning_on_a_gpu_leaves_a_run_that_reads_back_on_the_cpu(data, tmp_path):
    run = lab.fit(None, data, out=tmp_path / "run", seed=3, device="cuda", **SHORT)
    assert run.model.transform.shift.is_cuda
    assert run.summary["device"] == "cuda"
    again = lab.load(run.path)
    assert not again.model.transform.shift.is_cuda
    pd.testing.assert_frame_equal(again.predict(), run.predict(), rtol=1e-6)
    resumed = lab.fit(None, data, out=run.path, seed=3, device="cuda", resume=True, **SHORT)
    assert resumed.summary["epochs"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_lynx_and_hare_are_learned(tmp_path, seed):
    data = datasets.read(LYNX_HARE, "year")
    scores = lab.fit(None, data, out=tmp_path / "run", seed=seed, quiet=True).summary["scores"]
    for state in ("hare", "lynx"):
        assert scores["model"]["in_sample"][state]["r2"] >= 0.9
        for rival in ("last value", "linear ODE"):
            held_out = scores[rival]["held_out"][state]["rmse"]
            assert scores["model"]["held_out"][state]["rmse"] < held_out
