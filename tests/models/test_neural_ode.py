import copy

import pytest
import torch
from scipy.integrate import solve_ivp

import odeum
from odeum.errors import InputError, SolveError
from odeum.models import LearnedDynamics, LinearField, MLPField, NeuralODE, StateTransform


def linear(matrix):
    field = LinearField(len(matrix))
    field.load_state_dict({"linear.weight": torch.tensor(matrix)})
    return field


MATRIX = [[-0.1, -1.0], [1.0, -0.1]]


def test_solves_its_field():
    model = NeuralODE(linear(MATRIX), method="dopri5", rtol=1e-9, atol=1e-9)
    ts = torch.linspace(0, 3, 4)
    y0 = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    exact = torch.matrix_exp(ts[:, None, None] * torch.tensor(MATRIX)) @ y0.T
    torch.testing.assert_close(model(y0, ts), exact.transpose(1, 2), rtol=1e-7, atol=1e-7)


def test_options_reach_the_solver_and_can_be_changed_for_one_call():
    ts, y0 = torch.linspace(0, 3, 4), torch.ones(1, 2)
    model = NeuralODE(linear(MATRIX), step=odeum.StepOptions(max_steps=1))
    with pytest.raises(SolveError):
        model(y0, ts)
    masked = model.solve(y0, ts, on_failure="mask")
    assert masked.status.tolist() == [odeum.Status.MAX_STEPS]
    assert model.solve(y0, ts, step=None).status.tolist() == [odeum.Status.SUCCESS]
    with pytest.raises(InputError, match="unknown method"):
        NeuralODE(linear(MATRIX), method="dopri")(y0, ts)


def test_gradients_reach_the_weights():
    model = NeuralODE(MLPField(2, hidden=(3,)), method="rk4", step=odeum.StepOptions(fixed=0.25))
    y0, ts = torch.randn(2, 2), torch.tensor([0.0, 0.5, 1.0])
    model(y0, ts).square().sum().backward()
    step = 1e-6
    for weights in model.parameters():
        with torch.no_grad():
            ends = []
            for change in (step, -2 * step):
                weights.view(-1)[0] += change
                ends.append(model(y0, ts).square().sum())
            weights.view(-1)[0] += step
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(weights.grad.view(-1)[0], slope, rtol=1e-7, atol=1e-8)


def test_models_are_copied_and_restored():
    model = NeuralODE(MLPField(2, hidden=(4,)))
    y0, ts = torch.randn(2, 2), torch.linspace(0, 1, 3)
    twin = copy.deepcopy(model)
    other = NeuralODE(MLPField(2, hidden=(4,)))
    other.load_state_dict(model.state_dict())
    expected = model(y0, ts)
    assert torch.equal(twin(y0, ts), expected)
    assert torch.equal(other(y0, ts), expected)


def test_a_plain_function_is_refused():
    with pytest.raises(InputError, match=r"odeum\.solve"):
        NeuralODE(lambda t, y: -y)


def transform():
    return StateTransform(
        shift=torch.tensor([0.5, 1.0]),
        scale=torch.tensor([2.0, 0.3]),
        log=torch.tensor([False, True]),
        t_shift=1900.0,
        t_scale=4.0,
    )


def test_transform_goes_there_and_back():
    y = torch.tensor([[1.5, 2.0], [-3.0, 0.1]])
    z = transform().encode(y)
    expected = torch.stack([(y[:, 0] - 0.5) / 2, (y[:, 1].log() - 1) / 0.3], -1)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(transform().decode(z), y)
    assert float(transform().encode_time(torch.tensor(1908.0))) == 2.0


def test_transform_has_no_logarithm_of_what_is_not_positive():
    z = transform().encode(torch.tensor([[-1.0, -1.0], [0.0, 0.0]]))
    assert torch.isfinite(z[:, 0]).all()
    assert torch.isnan(z[:, 1]).all()


def test_decoding_a_runaway_stays_finite_and_differentiable():
    z = torch.tensor([[1e30, 1e30]], requires_grad=True)
    y = transform().decode(z)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(z.grad).all()


def test_transform_refuses_what_is_no_scale():
    with pytest.raises(InputError, match="scales must be positive"):
        StateTransform(torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="one number per component"):
        StateTransform(torch.zeros(2), torch.ones(3))


def test_learned_dynamics_solve_the_field_they_show():
    """What the model predicts is the SciPy solution of its own field in the data's units."""
    model = LearnedDynamics(
        MLPField(2, hidden=(8,), time_dependent=True), transform(), rtol=1e-9, atol=1e-9
    )
    ts = torch.tensor([1900.0, 1903.0, 1910.0])
    y0 = torch.tensor([[1.0, 2.0]])

    def rate(t, y):
        with torch.no_grad():
            return model.field_in_data_units(float(t), torch.tensor(y)[None])[0].numpy()

    truth = solve_ivp(rate, (1900, 1910), y0[0].numpy(), t_eval=ts, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        model(y0, ts)[:, 0].detach(), torch.tensor(truth.y.T), rtol=1e-6, atol=1e-6
    )


def test_learned_dynamics_keep_the_options_of_a_neural_ode():
    ode = NeuralODE(LinearField(2), method="bosh3")
    assert LearnedDynamics(ode, StateTransform.identity(2)).ode is ode


def test_learned_dynamics_restore_their_units():
    model = LearnedDynamics(LinearField(2), transform())
    other = LearnedDynamics(LinearField(2), StateTransform.identity(2))
    other.load_state_dict(model.state_dict())
    y0, ts = torch.tensor([[1.0, 2.0]]), torch.tensor([1900.0, 1901.0])
    assert torch.equal(other(y0, ts), model(y0, ts))
