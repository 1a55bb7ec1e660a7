"""SciPy on our right-hand sides against end states that others have published.

Sources: Mazzia & Magherini, Test Set for Initial Value Problem Solvers (2008); Hairer, Norsett &
Wanner I (1993) for Arenstorf's orbit; Jacobi's elliptic functions for the rigid body.
"""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipj

from odeum import systems

HIRES = [0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4]
HIRES += [0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2]
HIRES += [0.2849998395185769e-2, 0.2850001604814231e-2]

ROBERTSON = [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050]

OREGO = [0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3]

POLLU = [0.5646255480022769e-1, 0.1342484130422339, 0.4139734331099427e-8]
POLLU += [0.5523140207484359e-2, 0.2018977262302196e-6, 0.1464541863493966e-6]
POLLU += [0.7784249118997964e-1, 0.3245075353396018, 0.7494013383880406e-2]
POLLU += [0.1622293157301561e-7, 0.1135863833257075e-7, 0.2230505975721359e-2]
POLLU += [0.2087162882798630e-3, 0.1396921016840158e-4, 0.8964884856898295e-2]
POLLU += [0.4352846369330103e-17, 0.6899219696263405e-2, 0.1007803037365946e-3]
POLLU += [0.1772146513969984e-5, 0.5682943292316392e-4]

PLEIADES = [0.3706139143970502, 3.237284092057233, -3.222559032418324, 0.6597091455775310]
PLEIADES += [0.3425581707156584, 1.562172101400631, -0.7003092922212495, -3.943437585517392]
PLEIADES += [-3.271380973972550, 5.225081843456543, -2.590612434977470, 1.198213693392275]
PLEIADES += [-0.2429682344935824, 1.091449240428980, 3.417003806314313, 1.354584501625501]
PLEIADES += [-2.590065597810775, 2.025053734714242, -1.155815100160448, -0.8072988170223021]
PLEIADES += [0.5952396354208710, -3.741244961234010, 0.3773459685750630, 0.9386858869551073]
PLEIADES += [0.3667922227200571, -0.3474046353808490, 2.344915448180937, -1.947020434263292]


def scipy_end(system, end, *, method, rtol, atol=1e-14):
    def field(t, y):
        return system(t, torch.from_numpy(y)).numpy()

    solution = solve_ivp(field, (0.0, end), system.y0, method=method, rtol=rtol, atol=atol)
    assert solution.success
    return solution.y[:, -1]


@pytest.mark.parametrize(
    ("name", "published", "atol"),
    [
        ("hires", HIRES, 1e-12),
        ("oregonator", OREGO, 1e-9),
        ("pollu", POLLU, 1e-22),
        ("robertson", ROBERTSON, 1e-20),
    ],
)
def test_stiff_end_states(name, published, atol):
    system = systems.get(name)
    ours = scipy_end(system, system.span[1], method="LSODA", rtol=1e-9, atol=atol)
    np.testing.assert_allclose(ours, published, rtol=2e-6)


def test_van_der_pol_at_mu_1000_plain_and_scaled():
    """The published z = mu x' of the scaled form at t = 2 is our v at t = 2 mu, times mu."""
    end = scipy_end(systems.van_der_pol(mu=1e3), 2000.0, method="LSODA", rtol=1e-9, atol=1e-12)
    plain = [0.1706167732170469e1, -0.8928097010248125e-3]
    scaled = [0.1706167732170483e1, -0.8928097010247975]
    np.testing.assert_allclose(end, plain, rtol=1e-6)
    np.testing.assert_allclose(end * [1.0, 1e3], scaled, rtol=1e-6)


def test_pleiades_end_state():
    ours = scipy_end(systems.pleiades(), 3.0, method="DOP853", rtol=1e-13)
    np.testing.assert_allclose(ours, PLEIADES, rtol=0, atol=1e-9)


def test_arenstorf_orbit_closes():
    system = systems.arenstorf()
    ours = scipy_end(system, system.span[1], method="DOP853", rtol=1e-13)
    np.testing.assert_allclose(ours, system.y0, rtol=0, atol=2e-7)


def test_rigid_body_follows_elliptic_functions():
    ours = scipy_end(systems.rigid_body(), 20.0, method="DOP853", rtol=1e-12)
    np.testing.assert_allclose(ours, ellipj(20.0, 0.51)[:3], rtol=0, atol=1e-11)


def test_kepler_at_many_eccentricities_and_starts():
    generator = torch.Generator().manual_seed(0)
    for eccentricity in (0.0, 0.1, 0.5, 0.9, 0.99):
        system = systems.kepler(eccentricity=eccentricity, gravity=1.3)
        # Any point of the orbit, on its way out or in, and times before it too.
        perihelion = torch.tensor(system.y0, dtype=torch.float64)
        perihelion = perihelion * torch.tensor([1.0, 1.0, 1.3**0.5, 1.3**0.5])
        phases = 6 * torch.rand(5, generator=generator, dtype=torch.float64) - 3
        starts = system.exact(phases, perihelion)
        for start, phase in zip(starts, phases, strict=True):
            ts = torch.linspace(-7.0, 15.0, 6, dtype=torch.float64)
            ours = system.exact(ts, start)
            expected = system.exact(ts + phase, perihelion)
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
        scipys = solve_ivp(
            lambda t, y, f=system: f(t, torch.from_numpy(y)).numpy(),
            (0.0, 5.0),
            perihelion,
            method="DOP853",
            rtol=1e-12,
            atol=1e-12,
        ).y[:, -1]
        five = torch.tensor([5.0], dtype=torch.float64)
        np.testing.assert_allclose(system.exact(five, perihelion)[0], scipys, rtol=0, atol=1e-8)


def test_kepler_solution_is_differentiable_and_takes_batches():
    system = systems.kepler()
    y0 = torch.tensor([system.y0, (1.0, 0.0, 0.0, 1.0), (0.3, 0.4, -1.0, 0.9)]).double()
    y0.requires_grad_()
    gravity = torch.tensor([[1.0], [1.0], [1.2]], dtype=torch.float64, requires_grad=True)
    shared = torch.tensor([0.3, 2.0, 5.0, 9.0], dtype=torch.float64, requires_grad=True)

    def solution(t, y0, gravity):
        return systems.kepler(gravity=gravity).exact(t, y0)

    assert torch.autograd.gradcheck(solution, (shared, y0, gravity), rtol=1e-4)
    own = shared[:, None] * torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
    ys = solution(own, y0, gravity)
    for row in range(3):
        alone = solution(own[:, row], y0[row], gravity[row])
        torch.testing.assert_close(ys[:, row], alone, rtol=1e-12, atol=1e-12)
    at_shared = solution(shared, y0, gravity)
    torch.testing.assert_close(at_shared[:, 0], solution(shared, y0[0], gravity[0]))
    assert at_shared.shape == (4, 3, 4)
