import json
import math

import pytest
import torch
from torch import nn

from odeum.errors import InputError, SolveError
from odeum.lab import Loss, Stage, train

STAGES = [Stage(window=2, n_epochs=6, learning_rate=0.1), Stage(4, 14, 0.05)]


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([3.0, -2.0]))


def noisy(stage, generator):
    return 0.1 * torch.randn(2, generator=generator)


def bowl(model, shift):
    return Loss((model.x - 1 - shift).square().sum(), n_evaluations=7, n_rejected=1)


def distance(model):
    return (model.x.detach() - 1).norm().item()


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


class Killed(Exception):
    pass


def kill_after(epoch):
    def on_epoch(line):
        if line["epoch"] == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("epoch", [1, 6, 13, 20])
def test_a_run_killed_anywhere_continues_bit_for_bit(tmp_path, epoch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    options = {"evaluate": distance, "seed": 5, "weight_decay": 0.01}
    first = Point()
    expected = train(first, STAGES, noisy, bowl, run_dir=whole, **options)
    with pytest.raises(Killed):
        train(Point(), STAGES, noisy, bowl, run_dir=broken, on_epoch=kill_after(epoch), **options)
    # What a kill in the middle of writing leaves behind.
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "lo')
    second = Point()
    training = train(second, STAGES, noisy, bowl, run_dir=broken, resume=True, **options)
    assert torch.equal(first.x, second.x)
    assert metrics(broken) == metrics(whole)
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, broken)]
    for state in states:
        state["training"].pop("seconds")
    assert str(states[0]) == str(states[1])
    assert (training.best_epoch, training.best_error) == (
        expected.best_epoch,
        expected.best_error,
    )


def test_resuming_an_ended_run_changes_nothing(tmp_path):
    first, second = Point(), Point()
    options = {"evaluate": distance, "run_dir": tmp_path}
    train(first, STAGES, noisy, bowl, **options)
    before = (tmp_path / "metrics.jsonl").read_text()
    training = train(second, STAGES, noisy, bowl, resume=True, **options)
    assert training.epochs == 20
    assert torch.equal(first.x, second.x)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_metrics_tell_every_epoch(tmp_path):
    train(Point(), STAGES, noisy, bowl, evaluate=distance, run_dir=tmp_path)
    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert [line["window"] for line in lines] == [2] * 6 + [4] * 14
    assert lines[0]["lr"] == pytest.approx(0.1)
    assert lines[6]["lr"] == pytest.approx(0.05)
    assert [line["epoch"] for line in lines if line["held_out"] is not None] == [5, 6, 11, 16, 20]
    assert all(line["n_evaluations"] == 7 for line in lines)


def test_the_best_of_the_last_stage_is_kept():
    """A held-out error that is lowest at epoch 11, and lower still in the first stage."""
    errors = iter([0.0, 0.0, 3.0, 7.0, 9.0])
    seen = {}

    def evaluate(model):
        error = next(errors)
        seen[error] = model.x.detach().clone()
        return error

    model = Point()
    options = {"evaluate": evaluate, "good_enough": math.inf}
    training = train(model, STAGES, noisy, bowl, **options)
    assert (training.best_epoch, training.best_error) == (11, 3.0)
    assert torch.equal(model.x, seen[3.0])


def test_an_epoch_that_does_not_fit_cannot_win_by_its_held_out_error():
    stages = [Stage(2, 60, 0.3)]
    seen = []

    def evaluate(model):
        seen.append(bowl(model, 0.0).value.item())
        return float(len(seen))  # gets worse the longer it trains

    model = Point()
    train(model, stages, lambda stage, generator: 0.0, bowl, evaluate=evaluate)
    assert bowl(model, 0.0).value.item() < 0.1 * seen[0]


def test_without_held_out_error_the_lowest_loss_is_kept(tmp_path):
    losses = []

    def measure(model, shift):
        loss = bowl(model, shift)
        losses.append((loss.value.item(), model.x.detach().clone()))
        return loss

    model = Point()
    training = train(model, STAGES, noisy, measure, run_dir=tmp_path)
    lowest, weights = min(losses[6:], key=lambda pair: pair[0])
    assert training.best_error == lowest
    assert torch.equal(model.x, weights)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e6])
def test_a_divergence_steps_back_and_slows_down(tmp_path, bad):
    calls, states = [], []

    def measure(model, shift):
        calls.append(len(calls))
        states.append(model.x.detach().clone())
        loss = bowl(model, 0.0)
        return Loss(loss.value * 0 + bad) if len(calls) == 10 else loss

    stages = [Stage(2, 20, 0.05)]
    model = Point()
    training = train(model, stages, noisy, measure, run_dir=tmp_path, evaluate=distance)
    assert training.n_steps_back == 1
    assert training.epochs == 20
    # Back to where the ninth step started, which had the lowest loss.
    assert torch.equal(states[10], states[8])
    lines = metrics(tmp_path)
    assert lines[9]["loss"] == (bad if bad == 1e6 else None)
    assert lines[10]["lr"] < 0.6 * lines[9]["lr"]
    assert torch.isfinite(model.x).all()


def test_an_infinite_gradient_is_a_divergence():
    calls = []

    def measure(model, shift):
        calls.append(0)
        loss = bowl(model, 0.0).value
        if len(calls) == 5:
            loss = loss + (model.x[0] - model.x[0].detach()).abs().sqrt()  # slope 1/0 at 0
        return Loss(loss)

    model = Point()
    training = train(model, [Stage(2, 20, 0.05)], noisy, measure)
    assert training.n_steps_back == 1
    assert torch.isfinite(model.x).all()


def test_rows_that_newly_fail_are_a_divergence_but_not_at_the_start_of_a_stage():
    calls = []

    def measure(model, shift):
        calls.append(0)
        n_failed = 3 if len(calls) in (4, *range(7, 30)) else 0
        return Loss(bowl(model, 0.0).value, n_failed=n_failed)

    training = train(Point(), STAGES, noisy, measure)
    assert training.n_steps_back == 1


def test_hopeless_training_ends_with_what_there_was():
    calls = []

    def measure(model, shift):
        calls.append(0)
        loss = bowl(model, 0.0).value
        return Loss(loss * math.nan if len(calls) > 7 else loss)

    model = Point()
    training = train(model, [Stage(2, 500, 0.05)], noisy, measure, evaluate=distance)
    assert "nan" in training.stopped
    assert training.epochs < 60
    assert distance(model) < distance(Point())


def test_training_that_never_works_says_so():
    def measure(model, shift):
        return Loss(model.x.sum() * math.nan)

    with pytest.raises(SolveError, match="never reached a finite error"):
        train(Point(), STAGES, noisy, measure)


def test_the_callers_random_numbers_stay():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(Point(), STAGES, lambda stage, generator: torch.randn(2), bowl)
    assert torch.equal(torch.rand(3), expected)


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to train"):
        train(nn.Identity(), STAGES, noisy, bowl)
    with pytest.raises(InputError, match="nothing to train"):
        train(Point(), [], noisy, bowl)
    train(Point(), STAGES, noisy, bowl, run_dir=tmp_path)
    with pytest.raises(InputError, match="of another model"):
        train(nn.Linear(1, 1), STAGES, noisy, bowl, run_dir=tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        train(Point(), STAGES, noisy, bowl, run_dir=tmp_path, resume=True)
