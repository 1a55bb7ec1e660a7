import json
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import pytest
import torch
from matplotlib.animation import FuncAnimation

from odeum import plots
from odeum.errors import InputError, SolveError
from odeum.lab.descent import Descent, Training, cosine
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Study
from odeum.lab.train import Loss


@dataclass(frozen=True)
class Options:
    n_steps: Annotated[int, "steps"] = 12


def descent_of(model, **changes):
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    options = {
        "n_steps": 12,
        "batch": lambda step, generator: torch.randn(
            8, 1, generator=generator, dtype=torch.float64
        ),
        # Dropout-like noise from torch's own generator: it has to be restored, too.
        "loss": lambda x: (
            (model(x) - 3 * x + 0.01 * torch.randn(8, 1, dtype=torch.float64)).square().mean()
        ),
        "rate": cosine(),
        "every": 3,
    }
    return Descent(optimiser, **{**options, **changes})


def learner():
    torch.manual_seed(5)
    return torch.nn.Linear(1, 1, dtype=torch.float64)


def run(options, setting, *, interrupt_at=None):
    """An experiment of two trainings and a measurement; it may be interrupted."""
    study = Study.begin(EXPERIMENT, options, setting, title="Two lines")
    models = {"first": learner(), "second": learner()}
    measured = []
    for i, (part, model) in enumerate(models.items()):
        n_calls = 0

        def loss(x, model=model, i=i):
            nonlocal n_calls
            n_calls += 1
            if (i, n_calls) == interrupt_at:
                raise KeyboardInterrupt
            return Loss(
                (model(x) - 3 * x).square().mean() + 1e-3 * torch.rand((), dtype=torch.float64),
                0,
                7,
            )

        study.learn(part, model, descent_of(model, n_steps=options.n_steps, loss=loss))
        found = study.once(f"measure {part}", lambda m=model: [m.weight.item(), m.bias.detach()])
        measured.append(found)
    ax = plots.state_space(torch.rand(5, 2))
    study.draw("path.png", ax, title="A path.", caption="Drawn.", alt="A path", section="Paths")
    table = pd.DataFrame({"x": [1.0], "y": [measured[0][0]]})
    error = abs(measured[0][0] - 3)
    findings = [Finding("slope's error", error, target=10.0, published=0.5, unit="m")]
    return study.finish(
        sentence="It learned.", predictions=table, findings=findings, result={"slope": measured[0]}
    )


def lines_of(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


EXPERIMENT = Experiment("two-lines", "learns two lines", Options, run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(Options(), Setting(tmp_path_factory.mktemp("study") / "run", quiet=True))


@pytest.mark.filterwarnings("error")
class TestStudy:
    def test_a_run_directory_is_whole(self, whole):
        names = {path.name for path in whole.path.iterdir()}
        assert names == {
            *("config.json", "metrics.jsonl", "checkpoint.pt", "predictions.csv", "figures"),
            *("summary.json", "report.html"),
        }
        assert whole.summary["findings"][0]["reached"] is True
        assert whole.summary["epochs"] == 24
        assert whole.summary["training"]["n_evaluations"] == 7 * 24
        assert "two-lines --seed 0" in whole.summary["command"]

    def test_metrics_are_told_apart_by_part(self, whole):
        lines = [json.loads(line) for line in lines_of(whole.path)]
        assert [(line["part"], line["step"]) for line in lines] == [
            *(("first", k) for k in (3, 6, 9, 12)),
            *(("second", k) for k in (3, 6, 9, 12)),
        ]
        assert lines[0]["n_evaluations"] == 7

    def test_the_report_shows_what_was_found(self, whole):
        page = (whole.path / "report.html").read_text()
        for text in ("Measured and published", "slope&#39;s error", "Paths", "≤ 10 m", "0.5 m"):
            assert text in page

    @pytest.mark.parametrize("interrupt_at", [(0, 8), (1, 1), (1, 12)])
    def test_an_interrupted_run_goes_on_bit_for_bit(
        self, whole, tmp_path, monkeypatch, interrupt_at
    ):
        monkeypatch.setattr("odeum.lab.study.SAVE_EVERY", 0.0)
        folder = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            run(Options(), Setting(folder, quiet=True), interrupt_at=interrupt_at)
        again = run(Options(), Setting(folder, quiet=True, resume=True))
        assert again.summary["result"] == whole.summary["result"]
        for name in ("predictions.csv", "config.json"):
            assert (folder / name).read_text() == (whole.path / name).read_text()
        ours, theirs = (
            [
                {key: x for key, x in json.loads(line).items() if key != "seconds"}
                for line in lines_of(path)
            ]
            for path in (folder, whole.path)
        )
        assert ours == theirs

    def test_a_finished_run_is_not_learned_again(self, whole, tmp_path):
        again = run(Options(), Setting(whole.path, quiet=True, resume=True), interrupt_at=(0, 1))
        assert again.summary["result"] == whole.summary["result"]

    def test_other_options_are_refused(self, whole):
        with pytest.raises(InputError, match=r"options\.n_steps was 12 and is now 15"):
            run(Options(15), Setting(whole.path, quiet=True, resume=True))

    def test_a_part_has_one_name(self, tmp_path):
        study = Study.begin(EXPERIMENT, Options(), Setting(tmp_path / "a", quiet=True), title="T")
        model = learner()
        study.learn("a", model, descent_of(model))
        with pytest.raises(InputError, match="learned 'a' already"):
            study.learn("a", model, descent_of(model))

    def test_only_data_is_kept(self, tmp_path):
        study = Study.begin(EXPERIMENT, Options(), Setting(tmp_path / "a", quiet=True), title="T")
        with pytest.raises(InputError, match="returned a Linear"):
            study.once("model", lambda: {"a": [learner()]})
        with pytest.raises(InputError, match="predictions"):
            study.finish(sentence="")


class TestDescent:
    def trained(self, model, **changes):
        training = Training(model, descent_of(model, **changes), seed=0)
        return training, list(training.lines())

    def test_the_best_weights_are_kept(self):
        model = learner()
        errors = []

        def evaluate():
            errors.append(abs(float(model.weight.detach()) - 1.2))
            return {"error": errors[-1]}

        training, _ = self.trained(model, n_steps=30, evaluate=evaluate, keep="error")
        best = min(range(len(errors)), key=errors.__getitem__)
        assert best not in (0, len(errors) - 1)
        assert training.progress.best_step == 3 * (best + 1)
        assert abs(model.weight.item() - 1.2) == errors[best]

    def test_an_average_is_what_is_evaluated_and_kept(self):
        model, seen = learner(), []
        self.trained(
            model, average=0.5, evaluate=lambda: {"w": seen.append(model.weight.item()) or 0}
        )
        plain = learner()
        self.trained(plain)
        assert model.weight.item() == seen[-1] != plain.weight.item()

    def test_a_last_short_interval(self):
        _, lines = self.trained(learner(), n_steps=8)
        assert [line["step"] for line in lines] == [3, 6, 8]

    def test_the_rate_follows_its_schedule(self):
        _, lines = self.trained(learner(), every=1, n_steps=4, rate=cosine(0.2, warm_up=0.25))
        assert [line["lr"] for line in lines] == pytest.approx([0.0, 0.1, 0.08, 0.04], abs=1e-12)

    def test_training_leaves_torchs_generator_alone(self):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        self.trained(model_of(7))
        assert torch.equal(torch.rand(2), expected)

    def test_a_loss_that_is_not_finite_is_an_error(self):
        model = learner()
        with pytest.raises(SolveError, match="loss of step 1 is nan"):
            self.trained(model, loss=lambda x: model(x).mean() * float("nan"))

    def test_what_makes_no_sense_is_refused(self):
        model = learner()
        for changes, message in (
            ({"n_steps": 0}, "n_steps is 0"),
            ({"average": 1.0}, "average is 1.0"),
            ({"keep": "error"}, "no evaluate"),
        ):
            with pytest.raises(InputError, match=message):
                descent_of(model, **changes)
        with pytest.raises(InputError, match="keep is 'error', but evaluate gives loss"):
            self.trained(model, keep="error", evaluate=lambda: {"loss": 1.0})


def model_of(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Linear(1, 1, dtype=torch.float64)


class TestFinding:
    @pytest.mark.parametrize(
        ("value", "target", "better", "reached"),
        [
            (1.0, 1.0, "lower", True),
            (1.1, 1.0, "lower", False),
            (1.0, 1.0, "higher", True),
            (0.9, 1.0, "higher", False),
            (float("nan"), 1.0, "higher", False),
            (1.0, None, "lower", None),
        ],
    )
    def test_reached(self, value, target, better, reached):
        assert Finding("x", value, target=target, better=better).reached is reached

    def test_better_is_a_word(self):
        with pytest.raises(InputError, match="'lower' or 'higher'"):
            Finding("x", 1.0, better="less")


def test_an_animation_is_saved_whole(tmp_path):
    figure = plots.state_space(torch.rand(5, 2)).figure
    line = figure.axes[0].plot([0, 1], [0, 1])[0]
    animation = FuncAnimation(figure, lambda i: line.set_ydata([0, i]), frames=3, interval=100)
    path = plots.save(animation, tmp_path / "a.gif")
    assert path.read_bytes()[:6] == b"GIF89a"
    assert [x.name for x in tmp_path.iterdir()] == ["a.gif"]
