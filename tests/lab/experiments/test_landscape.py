import json

import pandas as pd
import pytest
import torch

import odeum
from odeum.datasets import sample
from odeum.errors import InputError
from odeum.lab.experiments.landscape import LANDSCAPE, run_landscape
from odeum.lab.experiments.landscape_survey import LandscapeOptions, sweeps
from odeum.lab.experiments.starts import SOLVER, Starts, cut, losses
from odeum.lab.registry import Setting
from odeum.models import LinearField
from odeum.systems import spiral

CPU = torch.device("cpu")
TRUTH = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], dtype=torch.float64)
TINY = LandscapeOptions(epochs=8, thin=20, n_slice=5, n_times=60, n_spans=2)


@pytest.fixture(autouse=True, scope="module")
def compiled():
    """An eager solve of a solution that explodes takes a minute of steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ODEUM_ENGINE")
        yield


@pytest.fixture(scope="module")
def trajectory():
    return sample(spiral(), n_times=60, noise=0.02).trajectories[0]


@pytest.fixture
def spans(trajectory):
    return cut(trajectory, torch.tensor([0, 20, 40]), 6, CPU)


def batches(trajectory, n=30):
    generator = torch.Generator().manual_seed(1)
    return [
        cut(trajectory, torch.randint(50, (2,), generator=generator), 2 + i % 4, CPU)
        for i in range(n)
    ]


class TestStarts:
    def test_losses_are_those_of_the_exact_solution(self, spans):
        weights = TRUTH + torch.randn(20, 2, 2) + torch.linspace(-6, 4, 20)[:, None, None]
        flows = torch.linalg.matrix_exp(weights[:, None] * spans.ts[:, None, None])
        ys = torch.einsum("mtij,sj->mtsi", flows, spans.y0)
        exact = (ys - spans.targets).square().mean((1, 2, 3))
        torch.testing.assert_close(losses(weights, spans), exact, rtol=1e-5, atol=1e-8)

    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_side_by_side_each_goes_as_it_would_alone_and_is_lost_as_it_would_be(
        self, clip, trajectory, spans
    ):
        weights = TRUTH + torch.tensor([-15.0, -1.0, 0.0, 1.5, 18.0])[:, None, None]
        given = batches(trajectory)
        starts = Starts(weights, torch.tensor([1]), len(given), 10, clip)
        optimiser = torch.optim.SGD(starts.parameters(), lr=0.01, momentum=0.95)
        descent = starts.descent(optimiser, lambda i, _: given[i], spans, 1e-2)
        for i in range(len(given)):
            optimiser.zero_grad()
            descent.loss(descent.batch(i, torch.Generator())).value.backward()
            descent.adjust()
            optimiser.step()
        alone = torch.stack([train_alone(start, given, clip) for start in weights])
        torch.testing.assert_close(
            starts.weights.detach(), alone, rtol=1e-9, atol=1e-11, equal_nan=True
        )
        lost = torch.isnan(alone).any(-1).any(-1)
        assert lost.tolist() == [False, False, False, False, clip is None]
        assert (starts.lost_at > 0).tolist() == lost.tolist()

    def test_a_gradient_whose_square_overflows_is_clipped_too(self):
        starts = Starts(TRUTH.expand(3, 2, 2), torch.tensor([0]), 1, 1, 1.0)
        gradient = torch.zeros(3, 2, 2)
        gradient[0], gradient[1, 0, 0] = 1e200, 0.5
        starts.weights.grad = gradient
        starts.mend_gradients()
        torch.testing.assert_close(gradient[0], torch.full((2, 2), 0.5))
        assert gradient[1:].flatten().tolist() == [0.5, *[0.0] * 7]


def train_alone(start, given, clip):
    """The usual loop, which ends with an error where a solve fails."""
    field = LinearField(2)
    with torch.no_grad():
        field.linear.weight.copy_(start)
    optimiser = torch.optim.SGD(field.parameters(), lr=0.01, momentum=0.95)
    step = odeum.StepOptions(max_steps=2000)
    for spans in given:
        optimiser.zero_grad()
        try:
            ys = odeum.solve(field, spans.y0, spans.ts, **SOLVER, step=step).ys
        except odeum.SolveError:
            return torch.full_like(start, torch.nan)
        (ys - spans.targets).square().mean().backward()
        if clip is not None:
            gradient = field.linear.weight.grad
            gradient *= min(1.0, clip / float(gradient.norm()))
        optimiser.step()
    return field.linear.weight.detach()


def test_the_sweeps_are_those_of_the_tutorial_with_both_ends():
    whole = sweeps()
    assert sum(len(sweep.alpha) for sweep in whole) == 375
    steps = [(float(x.alpha[0]), float(x.alpha[-1]), float(x.alpha.diff().mean())) for x in whole]
    assert steps == [
        pytest.approx(ends) for ends in [*[(-20, 20, 0.5)] * 3, (17, 23, 0.2), (-5, 5, 0.1)]
    ]
    start = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    shifted = [sweep.starts(start)[-1].tolist() for sweep in whole[:3]]
    assert shifted == [[[21, 22], [23, 24]], [[21, 2], [23, 4]], [[1, 22], [3, 24]]]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, compiled):
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("landscape") / "run"
    run_landscape(TINY, Setting(folder, quiet=True))
    return folder


def test_every_training_leaves_a_row_and_every_picture_is_there(run_dir):
    table = pd.read_csv(run_dir / "predictions.csv")
    n = sum(len(sweep.alpha) for sweep in sweeps(TINY.thin))
    assert len(table) == 2 * n
    assert set(table["sgd"]) == {"plain", "clipped"}
    plain = table[(table["sgd"] == "plain") & (table["sweep"] == "all entries")]
    assert plain["loss_after"].isna().tolist() == (plain["alpha"] > 0).tolist()
    assert (plain["lost_at_epoch"] > 0).tolist() == (plain["alpha"] > 0).tolist()
    healthy = table[table["alpha"].abs() < 1e-9]
    assert (healthy["loss_after"] < healthy["loss_before"]).all()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["result"]["lost, clipped"] == 0
    apart = next(x for x in summary["findings"] if x["what"].startswith("weights trained alone"))
    assert apart["value"] < 1e-10
    for figure in summary["figures"]:
        assert (run_dir / figure["file"]).stat().st_size > 5000


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_draws_the_same(run_dir):
    before = (run_dir / "predictions.csv").read_bytes()
    pictures = {path: path.read_bytes() for path in (run_dir / "figures").iterdir()}
    run_landscape(TINY, Setting(run_dir, quiet=True, resume=True))
    assert (run_dir / "predictions.csv").read_bytes() == before
    assert all(path.read_bytes() == content for path, content in pictures.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"clip": 0.0}, "clip is 0"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"noise": -1.0}, "noise is -1"),
        ({"n_slice": 1}, "n_slice is 1"),
        ({"longest": 0.1}, "longest is 0.1"),
        ({"longest": 20.0}, "longest is 20"),
        ({"n_times": 1}, "n_times 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        LandscapeOptions(**given)


def test_it_is_known_by_its_name():
    assert odeum.lab.experiments.find("landscape") is LANDSCAPE
