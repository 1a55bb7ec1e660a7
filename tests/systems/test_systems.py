"""Every system against hand-written equations, SciPy, and truths from the literature."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipk

from odeum import systems
from odeum.errors import InputError

TIGHT = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}

EQUATIONS = {
    "spiral": lambda t, y: [-0.1 * y[0] - y[1], y[0] - 0.1 * y[1]],
    "lorenz": lambda t, y: [
        10 * (y[1] - y[0]),
        y[0] * (28 - y[2]) - y[1],
        y[0] * y[1] - 8 / 3 * y[2],
    ],
    "lotka_volterra": lambda t, y: [1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]],
    "pendulum": lambda t, y: [y[1], -9.81 * math.sin(y[0])],
    "van_der_pol": lambda t, y: [y[1], (1 - y[0] ** 2) * y[1] - y[0]],
}


@pytest.fixture(params=systems.names())
def system(request):
    return systems.get(request.param)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def near_start(system, generator, *leading):
    """Random float64 states within 30% of the default one, so that populations stay positive."""
    y0 = torch.tensor(system.y0, dtype=torch.float64)
    noise = torch.rand(*leading, system.dim, generator=generator, dtype=torch.float64)
    return y0 * (0.7 + 0.6 * noise) + 0.1 * noise


def numpy_field(system):
    return lambda t, y: system(t, torch.from_numpy(y)).numpy()


def test_every_system_has_an_independent_equation_and_a_public_name(system):
    assert system.name in EQUATIONS
    assert system.name in systems.__all__
    assert getattr(systems, system.name)().name == system.name


def test_derivative_is_the_published_equation(system, generator):
    for y in near_start(system, generator, 20):
        expected = EQUATIONS[system.name](0.0, y.tolist())
        np.testing.assert_allclose(system(0.0, y).numpy(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_leading_axes_and_dtype(system, generator, dtype):
    y = near_start(system, generator, 3, 4, 5).to(dtype)
    dy = system(torch.zeros(()), y)
    assert dy.shape == y.shape
    assert dy.dtype == dtype
    assert torch.equal(dy[1, 2, 3], system(0.0, y[1, 2, 3]))
    column_of_times = torch.zeros(5, 1, dtype=dtype)
    assert torch.equal(system(column_of_times, y[0, 0]), dy[0, 0])


def test_metadata_is_complete(system):
    assert len(system.state_names) == system.dim == len(system.y0)
    assert len(set(system.state_names)) == system.dim
    assert system.span[0] < system.span[1]
    assert any(part.strip("();,").isdigit() for part in system.reference.split())
    assert system.description.endswith(".")
    assert system.constants


def test_invariants_are_conserved_where_they_are_claimed(system, generator):
    y = near_start(system, generator, 50).requires_grad_()
    for name, invariant in system.invariants.items():
        value = invariant(y)
        assert value.shape == (50,)
        (slope,) = torch.autograd.grad(value.sum(), y)
        rate = (slope * system(0.0, y)).sum(-1)
        assert rate.abs().max() < 1e-12 * (1 + value.abs().max()), name
        assert slope.abs().min(-1).values.max() > 1e-3, "a constant would be conserved too"


def test_systems_with_an_invariant():
    conserving = {name for name in systems.names() if systems.get(name).invariants}
    assert conserving == {"lotka_volterra", "pendulum"}


def test_invariants_stay_constant_along_scipy_solutions():
    for system in (systems.lotka_volterra(alpha=0.7), systems.pendulum(length=0.5)):
        solution = solve_ivp(numpy_field(system), system.span, system.y0, **TIGHT)
        (invariant,) = system.invariants.values()
        values = invariant(torch.from_numpy(solution.y.T))
        assert (values - values[0]).abs().max() < 1e-9


def test_exact_solutions_agree_with_scipy(system):
    if system.exact is None:
        assert system.name != "spiral"
        return
    ts = np.linspace(0.0, system.span[1], 7)
    expected = solve_ivp(EQUATIONS[system.name], (0.0, ts[-1]), system.y0, t_eval=ts, **TIGHT).y.T
    y0 = torch.tensor(system.y0, dtype=torch.float64)
    assert torch.equal(system.exact(torch.zeros(1, dtype=torch.float64), y0)[0], y0)
    np.testing.assert_allclose(system.exact(torch.from_numpy(ts), y0).numpy(), expected, atol=1e-9)


def test_exact_spiral_by_hand():
    """Rotation at rate 1 and decay at rate 0.1, from the eigenvalues -0.1 +- i."""
    ts = torch.linspace(0, 5, 6, dtype=torch.float64)
    ys = systems.spiral().exact(ts, torch.tensor([2.0, 0.0], dtype=torch.float64))
    by_hand = 2 * torch.exp(-0.1 * ts)[:, None] * torch.stack([ts.cos(), ts.sin()], -1)
    torch.testing.assert_close(ys, by_hand, rtol=0, atol=1e-14)


def test_exact_takes_batches_times_per_row_and_a_matrix_per_row(generator):
    y0 = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    a = torch.randn(4, 2, 2, generator=generator, dtype=torch.float64)
    shared = torch.linspace(0, 1, 5, dtype=torch.float64)
    own = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    per_row = systems.spiral(a)
    assert per_row.exact(shared, y0[:, None].expand(4, 3, 2)[:, 0]).shape == (5, 4, 2)
    ys = per_row.exact(own, y0)
    for row in range(4):
        alone = systems.spiral(a[row]).exact(own[:, row], y0[row])
        torch.testing.assert_close(ys[:, row], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(per_row(0.0, y0)[row], a[row] @ y0[row])
    assert systems.spiral().exact(shared, y0[:, None].expand(4, 3, 2)).shape == (5, 4, 3, 2)


def test_lorenz_rests_at_its_three_fixed_points_and_contracts_volume():
    sigma, rho, beta = 10.0, 20.0, 2.0
    system = systems.lorenz(sigma, rho, beta)
    r = math.sqrt(beta * (rho - 1))
    rest = torch.tensor([[0, 0, 0], [r, r, rho - 1], [-r, -r, rho - 1]], dtype=torch.float64)
    assert system(0.0, rest).abs().max() < 1e-13
    jacobian = torch.func.jacrev(lambda y: system(0.0, y))(torch.ones(3, dtype=torch.float64))
    assert jacobian.trace() == pytest.approx(-(sigma + 1 + beta))


def test_pendulum_period_is_the_elliptic_integral():
    gravity, length, amplitude = 9.81, 0.7, 2.5
    period = 4 * math.sqrt(length / gravity) * ellipk(math.sin(amplitude / 2) ** 2)
    system = systems.pendulum(gravity=gravity, length=length)
    end = solve_ivp(numpy_field(system), (0, period), [amplitude, 0.0], **TIGHT).y[:, -1]
    np.testing.assert_allclose(end, [amplitude, 0.0], atol=1e-8)


def test_damped_pendulum_loses_energy_and_claims_no_invariant():
    damped = systems.pendulum(damping=0.3)
    assert damped.invariants == {}
    assert systems.pendulum(damping=torch.tensor(0.0)).invariants == {}
    y = torch.tensor([0.4, 2.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(systems.pendulum().invariants["energy"](y), y)
    assert (slope * damped(0.0, y)).sum().item() == pytest.approx(-0.3 * 2.0**2)


def test_van_der_pol_cycle_has_the_published_amplitude_and_period():
    """Amplitude 2.00862 and period 6.66329 at mu = 1."""
    solution = solve_ivp(
        numpy_field(systems.van_der_pol()),
        (0, 100),
        [2.0, 0.0],
        events=lambda t, y: y[1] if t > 50 else 1.0,
        **TIGHT,
    )
    tops = [(t, y[0]) for t, y in zip(solution.t_events[0], solution.y_events[0], strict=True)]
    tops = [(t, x) for t, x in tops if x > 0]
    assert tops[-1][1] == pytest.approx(2.00862, abs=1e-5)
    assert tops[-1][0] - tops[-2][0] == pytest.approx(6.66329, abs=1e-5)


@pytest.mark.parametrize("name", [n for n in systems.names() if n != "spiral"])
def test_gradients_flow_to_tensor_constants_scalar_and_per_row(name, generator):
    system = systems.get(name)
    y = near_start(system, generator, 3)
    keys = list(system.constants)
    base = torch.tensor([float(v) for v in system.constants.values()], dtype=torch.float64)

    def call(*values):
        return systems.get(name, **dict(zip(keys, values, strict=True)))(0.0, y)

    scalars = [value.clone().requires_grad_() for value in base]
    assert torch.autograd.gradcheck(call, scalars)
    rows = [
        (v * (1 + 0.1 * torch.arange(3.0, dtype=torch.float64)))[:, None].requires_grad_()
        for v in base
    ]
    assert torch.autograd.gradcheck(call, rows)
    per_row = call(*rows)
    for i in range(3):
        alone = systems.get(name, **{k: v[i].item() for k, v in zip(keys, rows, strict=True)})
        torch.testing.assert_close(per_row[i], alone(0.0, y[i]), rtol=1e-14, atol=1e-14)


def test_gradients_flow_to_the_spiral_matrix(generator):
    a = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(systems.spiral(a)(0.0, y), y @ a.T)
    assert torch.autograd.gradcheck(lambda a: systems.spiral(a)(0.0, y), (a,))
    assert torch.autograd.gradcheck(lambda a: systems.spiral(a).exact(t, y), (a,))


def test_constants_are_replaced_call_by_call(generator):
    y = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    rho = torch.tensor(13.0, dtype=torch.float64, requires_grad=True)
    system = systems.lorenz()
    replaced = system(0.0, y, {"rho": rho})
    assert torch.equal(replaced, systems.lorenz(rho=13.0)(0.0, y))
    assert not torch.equal(replaced, system(0.0, y))
    (slope,) = torch.autograd.grad(replaced.sum(), rho)
    torch.testing.assert_close(slope, y[:, 0].sum())
    with pytest.raises(InputError, match=r"unknown constant of lorenz 'roh'.*did you mean 'rho'"):
        system(0.0, y, {"roh": rho})


def test_tensor_constants_follow_the_dtype_of_the_state():
    rho = torch.tensor([[28.0], [30.0]], dtype=torch.float64)
    assert (
        systems.lorenz(rho=rho)(0.0, torch.ones(2, 3, dtype=torch.float32)).dtype == torch.float32
    )


def test_systems_can_be_copied_and_pickled(system):
    y = torch.tensor([system.y0], dtype=torch.float64)
    for copied in (copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
        assert torch.equal(copied(0.0, y), system(0.0, y))


def test_names_are_sorted_and_complete():
    assert list(systems.names()) == sorted(EQUATIONS)


def test_unknown_names_are_refused_with_the_nearest_and_the_known():
    with pytest.raises(
        InputError, match=r"unknown system 'lorentz': did you mean 'lorenz'.*spiral"
    ):
        systems.get("lorentz")
    with pytest.raises(InputError, match=r"unknown constant of lorenz 'sigm'.*'sigma'.*beta, rho"):
        systems.get("lorenz", sigm=3.0)


def test_wrong_constants_and_states_are_refused():
    with pytest.raises(InputError, match=r"constant 'mu' of van_der_pol must be a number .* 'x'"):
        systems.van_der_pol(mu="x")
    with pytest.raises(InputError, match="2 x 2 matrix"):
        systems.spiral(((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)))
    with pytest.raises(InputError, match=r"2 x 2 matrix, got \[3, 3\]"):
        systems.spiral(torch.eye(3))
    with pytest.raises(InputError, match=r"lorenz has 3 components \(x, y, z\).*\[4, 2\]"):
        systems.lorenz()(0.0, torch.ones(4, 2))
    with pytest.raises(InputError, match="lorenz has 3 components"):
        systems.lorenz()(0.0, torch.tensor(1.0))
