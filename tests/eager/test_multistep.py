"""Adams methods: their weights, their order on any grid, their gradients, rows on their own."""

import math

import pytest
import torch
from problems import LOGISTIC_Y0, logistic, logistic_exact
from torch import nn

import odeum
from odeum.eager.multistep import quadrature

ADAMS = ["explicit_adams", "implicit_adams"]


class TestWeights:
    @pytest.mark.parametrize(
        ("nodes", "wanted"),
        [
            ([0, -1, -2, -3], [55 / 24, -59 / 24, 37 / 24, -9 / 24]),
            ([1, 0, -1, -2], [9 / 24, 19 / 24, -5 / 24, 1 / 24]),
            ([0, -1], [3 / 2, -1 / 2]),
        ],
        ids=["Bashforth", "Moulton", "two"],
    )
    def test_of_equal_steps_are_the_published_ones(self, nodes, wanted):
        found = quadrature(torch.tensor([nodes], dtype=torch.float64))
        torch.testing.assert_close(found, torch.tensor([wanted]), rtol=0, atol=1e-14)

    @pytest.mark.parametrize("n", [2, 3, 4, 5])
    def test_integrate_polynomials(self, n):
        torch.manual_seed(0)
        nodes = -torch.rand(20, n).add(0.2).cumsum(1) + 1
        weights = quadrature(nodes)
        powers = nodes.unsqueeze(-1) ** torch.arange(n)
        wanted = 1 / torch.arange(1.0, n + 1).expand(20, n)
        found = (weights.unsqueeze(-1) * powers).sum(1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def uneven(n):
    """Steps in the ratio 2 : 1 by turns, from 0 to 3."""
    steps = torch.tensor([2.0, 1.0]).repeat(n // 2).cumsum(0)
    return torch.cat([torch.zeros(1), steps]) * (3 / float(steps[-1]))


def smooth(n):
    """Steps that grow and shrink smoothly, from 0 to 3."""
    s = torch.linspace(0, 1, n + 1)
    return 3 * (s + 0.05 * torch.sin(2 * math.pi * s))


def slope(n_steps, values):
    x = -torch.tensor(n_steps, dtype=torch.float64).log()
    y = torch.tensor(values).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def error(method, ts, **options):
    sol = odeum.solve(logistic, LOGISTIC_Y0, ts, method=method, gradient="none", **options)
    times = ts if ts.ndim == 2 else ts[:, None].expand(-1, 3)
    return float((sol.ys - logistic_exact(times[..., None], LOGISTIC_Y0)).square().mean().sqrt())


N_STEPS = {"explicit_adams": (64, 128, 256), "implicit_adams": (32, 64, 128)}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", ADAMS)
@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_order_on_an_uneven_grid(name, order):
    method = odeum.methods.get(name, order=order)
    errors = [error(method, uneven(n)) for n in N_STEPS[name]]
    assert slope(N_STEPS[name], errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", ADAMS)
def test_order_on_a_smooth_grid(name):
    errors = [error(name, smooth(n)) for n in N_STEPS[name]]
    assert slope(N_STEPS[name], errors) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", ADAMS)
def test_order_with_times_per_row_and_decreasing(name):
    def backwards(n):
        return -torch.stack([uneven(n), smooth(n), torch.linspace(0, 3, n + 1)], 1)

    errors = [error(name, backwards(n)) for n in N_STEPS[name]]
    assert slope(N_STEPS[name], errors) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", ADAMS)
def test_a_last_step_that_is_cut(name):
    """Many steps of one size and one of two fifths of it."""
    n_steps, errors = (64, 128), []
    for n in n_steps:
        ts = torch.tensor([0.0, 3 * (1 + 0.4 / n)])
        errors.append(error(name, ts, step=odeum.StepOptions(fixed=3 / n)))
    assert slope(n_steps, errors) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", ADAMS)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_integrates_polynomials_exactly(name, order):
    torch.manual_seed(1)
    ts = torch.rand(12).add(0.1).cumsum(0)
    sol = odeum.solve(
        lambda t, y: order * t ** (order - 1) + torch.zeros_like(y),
        ts[:1, None] ** order,
        ts,
        method=odeum.methods.get(name, order=order),
    )
    torch.testing.assert_close(sol.ys[:, 0, 0], ts**order, rtol=1e-12, atol=0)


def by_hand(name, rate, h, n):
    """Adams on ``y' = rate y`` from four exact values, as a recurrence."""
    ys = [math.exp(rate * h * i) for i in range(4)]
    for _ in range(n - 3):
        a, b, c, d = ys[:-5:-1]
        if name == "explicit_adams":
            ys.append(a + rate * h / 24 * (55 * a - 59 * b + 37 * c - 9 * d))
        else:
            known = a + rate * h / 24 * (19 * a - 5 * b + c)
            ys.append(known / (1 - rate * h * 9 / 24))
    return torch.tensor(ys)


@pytest.mark.parametrize("name", ADAMS)
def test_the_published_recurrence(name):
    """The first steps are so small against the tolerance that Runge-Kutta's are exact to it."""
    h, n = 0.01, 20
    ts = torch.arange(n + 1) * h
    ys = odeum.solve(lambda t, y: -y, torch.ones(1), ts, method=name).ys[:, 0]
    torch.testing.assert_close(ys, by_hand(name, -1.0, h, n), rtol=0, atol=5e-12)
    assert float((ys - by_hand(name, -1.0, h, n)).abs().max()) < 0.1 * float(
        (ys - torch.exp(-ts)).abs().max()
    )


def test_only_the_implicit_one_is_stable_at_large_steps():
    """With ``h lambda = -1`` the explicit method, stable down to -0.3, blows up."""
    ts = torch.linspace(0, 6, 61)
    ends = [
        float(odeum.solve(lambda t, y: -10 * y, torch.ones(1), ts, method=name).ys[-1].abs())
        for name in ADAMS
    ]
    assert ends[0] > 1e3
    assert ends[1] < 1e-3


class TestWork:
    def solve(self, name, n):
        return odeum.solve(logistic, LOGISTIC_Y0, torch.linspace(0, 1, n + 1), method=name).stats

    def test_explicit_evaluates_once_a_step(self):
        # The start, three Runge-Kutta steps of three more, and every step's end.
        assert self.solve("explicit_adams", 20).n_evaluations.tolist() == [1 + 9 + 20] * 3
        assert self.solve("explicit_adams", 50).n_evaluations.tolist() == [1 + 9 + 50] * 3

    def test_implicit_has_one_jacobian_a_step_after_the_start(self):
        stats = self.solve("implicit_adams", 20)
        assert stats.n_jacobians.tolist() == stats.n_factorisations.tolist() == [18] * 3
        assert (stats.n_evaluations < 1 + 8 + 18 * 6).all()

    def test_the_users_jacobian_is_used(self):
        calls = []

        def jacobian(t, y):
            calls.append(t)
            return torch.diag_embed((1 - 2 * y) * torch.cos(t))

        method = odeum.methods.get("implicit_adams", jacobian=jacobian)
        ts = torch.linspace(0, 1, 21)
        given = odeum.solve(logistic, LOGISTIC_Y0, ts, method=method)
        found = odeum.solve(logistic, LOGISTIC_Y0, ts, method="implicit_adams")
        assert len(calls) == 18
        torch.testing.assert_close(given.ys, found.ys, rtol=0, atol=1e-14)


def test_described():
    for name, n_stages in zip(ADAMS, (1, 2), strict=True):
        described = odeum.methods.describe(name)
        assert (described.name, described.order, described.dense_order) == (name, 4, 3)
        assert (described.adaptive, described.stiff, described.n_stages) == (False, False, n_stages)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("explicit_adams", {"order": 1}, "give an order from 2 to 5"),
        ("implicit_adams", {"order": 6}, "give an order from 2 to 5"),
        ("explicit_adams", {"jacobian": lambda t, y: y}, "uses no Jacobian"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(odeum.InputError, match=message):
        odeum.methods.get(name, **options)


def bernoulli(t, y):
    """Additions and products alone, so that rows can be compared to the last bit."""
    return y * y - t * y


class TestRowsOnTheirOwn:
    y0 = torch.tensor([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.9]], dtype=torch.float64)
    ts = torch.stack(
        [torch.linspace(0, 2, 17), torch.linspace(0, 1, 17) ** 2, torch.linspace(0, -1, 17)], 1
    ).double()

    def jacobian(self, t, y):
        return torch.diag_embed(2 * y - t)

    def method(self, name):
        if name == "explicit_adams":
            return name
        return odeum.methods.get(name, jacobian=self.jacobian)

    @pytest.mark.parametrize("name", ADAMS)
    def test_to_the_last_bit(self, name):
        ts, method = self.ts.double(), self.method(name)
        together = odeum.solve(bernoulli, self.y0, ts, method=method)
        for row in range(3):
            alone = odeum.solve(bernoulli, self.y0[row : row + 1], ts[:, row], method=method)
            assert torch.equal(together.ys[:, row], alone.ys[:, 0])
            assert together.stats.n_evaluations[row] == alone.stats.n_evaluations[0]

    @pytest.mark.parametrize("gradient", ["none", "discrete"])
    @pytest.mark.parametrize("name", ADAMS)
    def test_beside_a_row_that_fails(self, name, gradient):
        """The row between the others leaves the field's domain before half of its time."""

        def field(t, y, rate):
            return -y * y + rate * torch.sqrt(0.4 - t)

        def solve(rows):
            y0 = self.y0[rows].clone().requires_grad_()
            rate = torch.tensor(0.3, requires_grad=True)
            ts = torch.linspace(0, 1, 13)[:, None] * torch.tensor([0.3, 1.0, 0.35])[rows]
            sol = odeum.solve(
                field, y0, ts, rate, method=name, gradient=gradient, on_failure="mask"
            )
            return sol, y0, rate

        rows = torch.tensor([0, 2])
        alone, *inputs = solve(rows)
        beside, *others = solve(torch.arange(3))
        assert (beside.status == odeum.Status.SUCCESS).tolist() == [True, False, True]
        torch.testing.assert_close(beside.ys[:, rows], alone.ys, rtol=0, atol=1e-14)
        assert beside.ys[-1, 1].isnan().all()
        if gradient == "discrete":
            wanted = torch.autograd.grad(alone.ys.square().sum(), inputs)
            g_y0, g_rate = torch.autograd.grad(beside.ys[:, rows].square().sum(), others)
            torch.testing.assert_close(g_y0[rows], wanted[0], rtol=1e-12, atol=0)
            torch.testing.assert_close(g_rate, wanted[1], rtol=1e-12, atol=0)
            assert not g_y0[1].any()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t, y, scale):
        return scale * self.net(torch.cat([y, t.expand(len(y), 1)], -1)) - y


@pytest.mark.sweep(2)
@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
@pytest.mark.parametrize("decreasing", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", ADAMS)
def test_gradients_against_finite_differences(name, per_row, decreasing):
    torch.manual_seed(2)
    field = Network()
    ts = torch.linspace(0, 1, 8) ** 1.3 + 0.2
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.4, 0.6]) + torch.tensor([0.0, 0.2, -0.4])
    ts = (ts.flip(0) if decreasing else ts).clone().requires_grad_()
    y0, scale = torch.randn(3, 2, requires_grad=True), torch.rand(3, 1, requires_grad=True)

    def loss(y0, ts, scale):
        sol = odeum.solve(field, y0, ts, odeum.per_row(scale), method=name, dense=True)
        return sol.ys.square().sum() + sol(0.6 * ts[-2:-1] + 0.4 * ts[-1:]).sin().sum()

    assert torch.autograd.gradcheck(loss, (y0, ts, scale), fast_mode=True)
    weight = field.net[0].weight
    (found,) = torch.autograd.grad(loss(y0, ts, scale), weight)
    with torch.no_grad():
        values = []
        for shift in (1e-5, -1e-5):
            weight[1, 2] += shift
            values.append(float(loss(y0, ts, scale)))
            weight[1, 2] -= shift
    assert float(found[1, 2]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("name", ADAMS)
def test_gradient_of_a_step_size_of_the_users(name):
    """Equal steps of a given size, whose weights are constants, and a last one that is cut."""
    y0 = LOGISTIC_Y0.clone().requires_grad_()
    ts = torch.tensor([0.0, 1.27], requires_grad=True)
    step = odeum.StepOptions(fixed=0.1)

    def end(y0, ts):
        return odeum.solve(logistic, y0, ts, method=name, step=step).ys[-1]

    assert torch.autograd.gradcheck(end, (y0, ts))


@pytest.mark.parametrize("name", ADAMS)
def test_single_precision(name):
    ts = torch.linspace(0, 2, 41, dtype=torch.float32)
    y0 = LOGISTIC_Y0.float()
    ys = odeum.solve(logistic, y0, ts, method=name).ys
    assert ys.dtype == torch.float32
    wanted = logistic_exact(ts[:, None, None], y0)
    torch.testing.assert_close(ys, wanted, rtol=0, atol=1e-5)
