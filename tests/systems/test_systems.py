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
    "rigid_body": lambda t, y: [y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]],
    "kepler": lambda t, y: [
        *y[2:],
        -y[0] / math.hypot(y[0], y[1]) ** 3,
        -y[1] / math.hypot(y[0], y[1]) ** 3,
    ],
    "arenstorf": lambda t, y: arenstorf_by_hand(y),
    "pleiades": lambda t, y: pleiades_by_hand(y),
    "brusselator": lambda t, y: [
        1 + y[0] ** 2 * y[1] - 4 * y[0],
        3 * y[0] - y[0] ** 2 * y[1],
    ],
    "robertson": lambda t, y: [
        -0.04 * y[0] + 1e4 * y[1] * y[2],
        0.04 * y[0] - 1e4 * y[1] * y[2] - 3e7 * y[1] ** 2,
        3e7 * y[1] ** 2,
    ],
    "oregonator": lambda t, y: [
        77.27 * (y[1] + y[0] * (1 - 8.375e-6 * y[0] - y[1])),
        (y[2] - (1 + y[0]) * y[1]) / 77.27,
        0.161 * (y[0] - y[2]),
    ],
    "hires": lambda t, y: [
        -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
        1.71 * y[0] - 8.75 * y[1],
        -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
        8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
        -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
        -280 * y[5] * y[7] + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
        280 * y[5] * y[7] - 1.81 * y[6],
        -280 * y[5] * y[7] + 1.81 * y[6],
    ],
    "pollu": lambda t, y: pollu_by_hand(y),
    "oscillator_chain": lambda t, y: [
        *y[3:],
        -2.5 * y[0] + 2 * y[1] - 3.5,
        2 * y[0] - 5.4 * y[1] + 3.4 * y[2] + 0.26,
        3.4 * y[1] - 3.4 * y[2] + 3.74,
    ],
    "switching": lambda t, y: switching_by_hand(y),
}

CONSERVING = {
    "lotka_volterra",
    "pendulum",
    "rigid_body",
    "kepler",
    "arenstorf",
    "pleiades",
    "robertson",
    "hires",
    "pollu",
    "oscillator_chain",
}

STIFF = {"robertson", "oregonator", "hires", "pollu"}


def switching_by_hand(y):
    left, right = (1 / (1 + math.exp(side * y[0])) for side in (1, -1))
    return [
        left * (-0.1 * (y[0] + 1) - 0.5 * y[1]) + right * (0.2 * (y[0] - 1) + y[1]),
        left * (0.5 * (y[0] + 1) - 0.1 * y[1]) + right * (-(y[0] - 1) + 0.2 * y[1]),
    ]


def arenstorf_by_hand(y):
    mu = 0.012277471
    earth = ((y[0] + mu) ** 2 + y[1] ** 2) ** 1.5
    moon = ((y[0] - (1 - mu)) ** 2 + y[1] ** 2) ** 1.5
    return [
        y[2],
        y[3],
        y[0] + 2 * y[3] - (1 - mu) * (y[0] + mu) / earth - mu * (y[0] - (1 - mu)) / moon,
        y[1] - 2 * y[2] - (1 - mu) * y[1] / earth - mu * y[1] / moon,
    ]


def pleiades_by_hand(y):
    accelerations = [[0.0] * 7, [0.0] * 7]
    for i in range(7):
        for j in range(7):
            if i != j:
                cube = math.hypot(y[j] - y[i], y[7 + j] - y[7 + i]) ** 3
                accelerations[0][i] += (j + 1) * (y[j] - y[i]) / cube
                accelerations[1][i] += (j + 1) * (y[7 + j] - y[7 + i]) / cube
    return [*y[14:], *accelerations[0], *accelerations[1]]


def pollu_by_hand(y):
    """The published right-hand side, numbered from 1 as there."""
    y = [0.0, *y]
    r = [
        0.0,
        0.35 * y[1],
        26.6 * y[2] * y[4],
        1.23e4 * y[5] * y[2],
        8.6e-4 * y[7],
        8.2e-4 * y[7],
        1.5e4 * y[7] * y[6],
        1.3e-4 * y[9],
        2.4e4 * y[9] * y[6],
        1.65e4 * y[11] * y[2],
        9e3 * y[11] * y[1],
        2.2e-2 * y[13],
        1.2e4 * y[10] * y[2],
        1.88 * y[14],
        1.63e4 * y[1] * y[6],
        4.8e6 * y[3],
        3.5e-4 * y[4],
        1.75e-2 * y[4],
        1e8 * y[16],
        4.44e11 * y[16],
        1.24e3 * y[17] * y[6],
        2.1 * y[19],
        5.78 * y[19],
        4.74e-2 * y[1] * y[4],
        1.78e3 * y[19] * y[1],
        3.12 * y[20],
    ]
    plus_minus = [
        ((2, 3, 9, 11, 12, 22, 25), (1, 10, 14, 23, 24)),
        ((1, 21), (2, 3, 9, 12)),
        ((1, 17, 19, 22), (15,)),
        ((15,), (2, 16, 17, 23)),
        ((4, 4, 6, 7, 13, 20), (3,)),
        ((3, 18, 18), (6, 8, 14, 20)),
        ((13,), (4, 5, 6)),
        ((4, 5, 6, 7), ()),
        ((), (7, 8)),
        ((7, 9), (12,)),
        ((8, 11), (9, 10)),
        ((9,), ()),
        ((10,), (11,)),
        ((12,), (13,)),
        ((14,), ()),
        ((16,), (18, 19)),
        ((), (20,)),
        ((20,), ()),
        ((23, 25), (21, 22, 24)),
        ((24,), (25,)),
    ]
    return [sum(r[i] for i in plus) - sum(r[i] for i in minus) for plus, minus in plus_minus]


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
        expected = np.array(EQUATIONS[system.name](0.0, y.tolist()))
        # Sums of terms that nearly cancel: close in the units of the largest.
        rounding = 1e-13 + 1e-14 * abs(expected).max()
        np.testing.assert_allclose(system(0.0, y).numpy(), expected, rtol=1e-13, atol=rounding)


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
        terms = (slope * system(0.0, y)).abs().sum(-1)
        assert (rate.abs() / (1 + terms)).max() < 1e-13, name
        assert slope.abs().max() > 1e-3, "a constant would be conserved too"


def test_systems_with_an_invariant():
    conserving = {name for name in systems.names() if systems.get(name).invariants}
    assert conserving == CONSERVING


def test_invariants_stay_constant_along_scipy_solutions():
    for system in (
        systems.lotka_volterra(alpha=0.7),
        systems.pendulum(length=0.5),
        systems.rigid_body(a1=0.7),
        systems.kepler(eccentricity=0.3, gravity=1.2),
        systems.arenstorf(mass=0.1),
        systems.pleiades(masses=(2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
    ):
        solution = solve_ivp(
            numpy_field(system), (0.0, min(system.span[1], 2.0)), system.y0, **TIGHT
        )
        for name, invariant in system.invariants.items():
            values = invariant(torch.from_numpy(solution.y.T))
            assert (values - values[0]).abs().max() < 1e-9 * (1 + values[0].abs()), name


def test_exact_solutions_agree_with_scipy(system):
    assert (system.exact is not None) == (system.name in {"spiral", "kepler"})
    if system.exact is None:
        return
    ts = np.linspace(0.0, system.span[1], 7)
    expected = solve_ivp(EQUATIONS[system.name], (0.0, ts[-1]), system.y0, t_eval=ts, **TIGHT).y.T
    y0 = torch.tensor(system.y0, dtype=torch.float64)
    at_start = system.exact(torch.zeros(1, dtype=torch.float64), y0)[0]
    torch.testing.assert_close(at_start, y0, rtol=1e-15, atol=1e-15)
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


def scaled(system, factors):
    """The system's constants times factors, scalar or ``[batch, 1]`` for each constant."""
    constants = {}
    for (name, value), factor in zip(system.constants.items(), factors, strict=True):
        constants[name] = torch.tensor(value, dtype=torch.float64) * factor
    return systems.get(system.name, **constants)


@pytest.mark.parametrize("name", [n for n in systems.names() if n not in {"spiral", "switching"}])
def test_gradients_flow_to_tensor_constants_scalar_and_per_row(name, generator):
    system = systems.get(name)
    y = near_start(system, generator, 3)
    with torch.no_grad():
        unit = system(0.0, y).abs().amax(dim=0) + 1e-3
    n_constants = len(system.constants)

    def call(*factors):
        return scaled(system, factors)(0.0, y) / unit

    scalars = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(n_constants)]
    assert torch.autograd.gradcheck(call, scalars)
    row = (1 + 0.1 * torch.arange(3.0, dtype=torch.float64))[:, None]
    rows = [row.clone().requires_grad_() for _ in range(n_constants)]
    assert torch.autograd.gradcheck(call, rows)
    per_row = scaled(system, rows)(0.0, y)
    for i in range(3):
        alone = scaled(system, [factor[i] for factor in rows])(0.0, y[i])
        torch.testing.assert_close(per_row[i], alone, rtol=1e-13, atol=1e-13)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, at first use
@pytest.mark.parametrize("name", systems.names())
def test_forward_mode_and_vmap_agree_with_reverse_mode(name, generator):
    """What a stiff solver asks for: one Jacobian a row by ``jvp`` under ``vmap``."""
    system = systems.get(name)
    y = near_start(system, generator, 4)
    t = torch.zeros(4, 1, dtype=torch.float64)
    forward = torch.func.vmap(torch.func.jacfwd(system, argnums=1))(t, y)
    reverse = torch.stack([torch.func.jacrev(lambda y: system(0.0, y))(row) for row in y])
    torch.testing.assert_close(forward, reverse, rtol=1e-12, atol=1e-12)
    basis = torch.eye(system.dim, dtype=torch.float64)
    columns = [
        torch.func.jvp(lambda y: system(t, y), (y,), (direction.expand_as(y),))[1]
        for direction in basis
    ]
    torch.testing.assert_close(torch.stack(columns, -1), forward, rtol=1e-12, atol=1e-12)


def test_gradients_flow_to_the_matrices_of_switching(generator):
    a, b = (
        torch.randn(2, 2, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    centre = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    y = torch.randn(4, 2, dtype=torch.float64, generator=generator)

    def call(a, b, centre):
        return systems.switching(a, b, centre)(0.0, y)

    side = torch.sigmoid(y @ centre)[:, None]
    expected = side * ((y - centre) @ a.T) + (1 - side) * ((y + centre) @ b.T)
    torch.testing.assert_close(call(a, b, centre), expected)
    assert torch.autograd.gradcheck(call, (a, b, centre))


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
    with pytest.raises(InputError, match="'b' of switching must be a 2 x 2 matrix"):
        systems.switching(b=((1.0,), (2.0,)))
    with pytest.raises(InputError, match="'centre' of switching must be two numbers"):
        systems.switching(centre=(1.0,))
    with pytest.raises(InputError, match=r"lorenz has 3 components \(x, y, z\).*\[4, 2\]"):
        systems.lorenz()(0.0, torch.ones(4, 2))
    with pytest.raises(InputError, match="lorenz has 3 components"):
        systems.lorenz()(0.0, torch.tensor(1.0))
    with pytest.raises(InputError, match=r"masses of pleiades have shape \[3\]: give 7"):
        systems.pleiades(masses=(1.0, 2.0, 3.0))
    with pytest.raises(InputError, match=r"rates of pollu have shape \[2, 24\]: give 25"):
        systems.pollu(rates=torch.ones(2, 24))
    for eccentricity in (1.0, -0.1, torch.tensor(0.5)):
        with pytest.raises(InputError, match=r"eccentricity of kepler is .*from 0 to below 1"):
            systems.kepler(eccentricity=eccentricity)
