"""The public face: shapes, structures, times, couplings, statistics; against exact solutions."""

import numpy as np
import pytest
import scipy.integrate
import torch

import odeum
from odeum import InputError, SolveError, Status

SPIRAL = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def spiral(t, y):
    return y @ SPIRAL.T


def exact(y0, ts):
    return torch.stack([y0 @ torch.linalg.matrix_exp(SPIRAL.T * t) for t in ts])


WITH_ANY_FIELD = [
    name
    for name in odeum.methods.names()
    if not isinstance(odeum.methods.get(name), odeum.methods.Symplectic)
]


class TestShapes:
    ts = torch.linspace(0, 2, 5, dtype=torch.float64)

    def test_batch(self):
        y0 = torch.randn(3, 2)
        sol = odeum.solve(spiral, y0, self.ts, **TIGHT)
        assert sol.ys.shape == (5, 3, 2)
        assert sol.status.shape == sol.stats.n_evaluations.shape == (3,)
        torch.testing.assert_close(sol.ys, exact(y0, self.ts), rtol=0, atol=1e-7)
        assert torch.equal(sol.ys[0], y0)

    def test_one_system(self):
        seen = set()

        def field(t, y):
            seen.add((t.shape, y.shape))
            return SPIRAL @ y

        y0 = torch.tensor([1.0, 0.5])
        sol = odeum.solve(field, y0, self.ts, **TIGHT)
        assert sol.ys.shape == (5, 2)
        assert sol.status.shape == sol.stats.n_accepted.shape == ()
        assert seen == {(torch.Size([]), torch.Size([2]))}
        torch.testing.assert_close(sol.ys, exact(y0, self.ts), rtol=0, atol=1e-7)

    def test_time_broadcasts_against_the_state(self):
        seen = set()

        def field(t, y):
            seen.add((t.shape, y.shape))
            return -t * y

        odeum.solve(field, torch.randn(3, 4, 5, 6), self.ts)
        assert seen == {(torch.Size([3, 1, 1, 1]), torch.Size([3, 4, 5, 6]))}

    def test_pytree(self):
        y0 = {"q": torch.randn(3, 2), "p": (torch.randn(3, 1, 2), torch.zeros(3))}

        def field(t, y):
            q, (p, work) = y["q"], y["p"]
            return {"q": p[:, 0], "p": (-q[:, None], work + 1)}

        sol = odeum.solve(field, y0, self.ts, dense=True, **TIGHT)
        assert sol.ys["q"].shape == (5, 3, 2)
        assert sol.ys["p"][0].shape == (5, 3, 1, 2)
        assert sol.ys["p"][1].shape == (5, 3)
        q = y0["q"] * torch.cos(self.ts)[:, None, None]
        q = q + y0["p"][0][:, 0] * torch.sin(self.ts)[:, None, None]
        torch.testing.assert_close(sol.ys["q"], q, rtol=0, atol=1e-7)
        torch.testing.assert_close(sol(2.0)["q"], sol.ys["q"][-1])

    def test_a_field_with_time_appended_works_both_ways(self):
        net = torch.nn.Linear(3, 2)

        def field(t, y):
            return net(torch.cat([y, t.expand(len(y), 1)], -1))

        y0 = torch.randn(4, 2)
        rows = odeum.solve(field, y0, self.ts, **TIGHT).ys
        joint = odeum.solve(field, y0, self.ts, coupling="joint", **TIGHT).ys
        torch.testing.assert_close(rows, joint, rtol=0, atol=1e-6)


class TestTimes:
    def test_backwards(self):
        y0 = torch.randn(3, 2)
        ts = torch.tensor([2.0, 1.0, -1.0])
        sol = odeum.solve(spiral, y0, ts, **TIGHT)
        torch.testing.assert_close(sol.ys, exact(y0, ts - 2.0), rtol=0, atol=1e-7)

    @pytest.mark.sweep(3)
    @pytest.mark.parametrize("method", WITH_ANY_FIELD)
    def test_per_row_either_way(self, method):
        y0 = torch.randn(3, 2)
        ts = torch.tensor([[0.0, 1.0, 5.0], [0.3, 0.0, 4.0], [2.0, -2.0, 3.9]])
        described = odeum.methods.describe(method)
        step, atol = None, 1e-5
        if described.stiff and described.order < 3:
            step, atol = odeum.StepOptions(fixed=0.02), 0.2 if described.order == 1 else 2e-3
        elif described.order < 3:
            step, atol = odeum.StepOptions(fixed=1e-3), 2e-2 if described.order == 1 else 1e-5
        elif not described.adaptive:
            step = odeum.StepOptions(fixed=0.01)
        sol = odeum.solve(spiral, y0, ts, method=method, step=step, rtol=1e-7, atol=1e-7)
        for row in range(3):
            wanted = exact(y0[row], ts[:, row] - ts[0, row])
            torch.testing.assert_close(sol.ys[:, row], wanted, rtol=0, atol=atol)

    def test_integers_and_years(self):
        ts = torch.arange(1900, 1905)
        sol = odeum.solve(lambda t, y: torch.cos(t) * torch.ones_like(y), torch.zeros(1, 1), ts)
        wanted = torch.sin(ts.double()) - np.sin(1900.0)
        torch.testing.assert_close(sol.ys[:, 0, 0], wanted, rtol=0, atol=1e-3)

    def test_long_time_in_float32(self):
        ts = torch.linspace(1900, 1920, 21, dtype=torch.float32)
        y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float32)
        sol = odeum.solve(lambda t, y: y @ SPIRAL.T.float(), y0, ts)
        assert sol.ys.dtype == torch.float32
        wanted = exact(y0.double(), ts.double() - 1900)
        torch.testing.assert_close(sol.ys.double(), wanted, rtol=0, atol=1e-3)

    def test_times_more_precise_than_the_state(self):
        ts = torch.linspace(0, 1, 3, dtype=torch.float64)
        seen = set()

        def field(t, y):
            seen.add(t.dtype)
            return -y

        odeum.solve(field, torch.ones(2, 1, dtype=torch.float32), ts)
        assert seen == {torch.float32}

    def test_times_less_precise_than_the_state(self):
        y0 = torch.randn(3, 2)
        ts = torch.linspace(0, 3, 4, dtype=torch.float32)
        sol = odeum.solve(spiral, y0, ts, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(sol.ys, exact(y0, ts.double()), rtol=0, atol=1e-9)
        assert torch.equal(odeum.solve(spiral, y0, [0.0, 1.0]).ts, torch.tensor([0.0, 1.0]))


class TestAgainstScipy:
    @pytest.mark.parametrize(("method", "theirs"), [("dopri5", "RK45"), ("dopri8", "DOP853")])
    @pytest.mark.parametrize("name", ["lorenz", "lotka_volterra", "van_der_pol"])
    def test_same_accuracy_for_the_same_work(self, name, method, theirs):
        system = odeum.systems.get(name)
        y0 = torch.tensor(system.y0)
        t1 = 3.0
        ts = torch.linspace(0, t1, 7)
        sol = odeum.solve(system, y0, ts, method=method, rtol=1e-6, atol=1e-8)

        def run(method, rtol, atol):
            return scipy.integrate.solve_ivp(
                lambda t, y: system(torch.tensor(t), torch.tensor(y)).numpy(),
                (0, t1),
                y0.numpy(),
                method=method,
                rtol=rtol,
                atol=atol,
                t_eval=ts.numpy(),
            )

        reference = run("DOP853", 1e-13, 1e-13)
        peer = run(theirs, 1e-6, 1e-8)
        ours = np.abs(sol.ys.numpy() - reference.y.T).max()
        assert ours < 5 * np.abs(peer.y - reference.y).max()
        assert int(sol.stats.n_evaluations) < 1.3 * peer.nfev


class TestOptions:
    y0 = torch.ones(2, 1, dtype=torch.float64)
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def test_joint_shares_its_steps(self):
        sol = odeum.solve(spiral, torch.randn(3, 2), self.ts, coupling="joint")
        assert sol.status.tolist() == [0, 0, 0]
        assert len(set(sol.stats.n_accepted.tolist())) == 1

    def test_methods_without_error_estimate_step_from_output_to_output(self):
        ts = torch.tensor([0.0, 0.3, 1.0])
        sol = odeum.solve(lambda t, y: -y, self.y0, ts, method="euler")
        assert sol.ys[:, 0, 0].tolist() == pytest.approx([1.0, 0.7, 0.7 * 0.3])
        assert sol.stats.n_evaluations.tolist() == [2, 2]

    def test_step_bounds(self):
        sol = odeum.solve(
            lambda t, y: -y, self.y0, self.ts, step=odeum.StepOptions(first=1e-3, max=0.01)
        )
        assert int(sol.stats.n_accepted[0]) >= 100
        with pytest.raises(SolveError, match="too small"):
            odeum.solve(
                lambda t, y: torch.sign(torch.sin(300 * t)) * y,
                self.y0,
                self.ts,
                rtol=1e-10,
                step=odeum.StepOptions(min=1e-3),
            )

    def test_tolerances_may_differ_by_component(self):
        y0 = torch.tensor([[1.0, 1.0]])
        loose = odeum.solve(spiral, y0, self.ts, rtol=1e-3, atol=torch.tensor([1e-2, 1e-2]))
        mixed = odeum.solve(spiral, y0, self.ts, rtol=1e-12, atol=torch.tensor([1e-2, 1e-12]))
        assert int(mixed.stats.n_evaluations) > int(loose.stats.n_evaluations)

    def test_pid_controllers(self):
        for controller in (odeum.control.PI, odeum.control.PID):
            method = odeum.methods.get("dopri5", controller=controller)
            sol = odeum.solve(spiral, torch.randn(3, 2), self.ts, method=method, **TIGHT)
            assert sol.status.tolist() == [0, 0, 0]

    def test_zero_absolute_tolerance_and_a_zero_state(self):
        y0 = torch.tensor([[0.0, 1.0]])
        sol = odeum.solve(lambda t, y: -y, y0, self.ts, atol=0.0)
        torch.testing.assert_close(sol.ys[-1], y0 * np.exp(-1), rtol=1e-3, atol=0)

    def test_progress_shows_and_leaves_no_trace(self, capsys):
        odeum.solve(spiral, torch.randn(2, 2), self.ts, progress=True, **TIGHT)

    def test_dense_output_knows_its_span(self):
        ts = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        sol = odeum.solve(spiral, torch.randn(2, 2), ts, dense=True)
        assert torch.isnan(sol(torch.tensor([-0.1, 1.1]))).all()
        assert torch.isfinite(sol(torch.tensor([0.0, 0.5, 1.0]))).all()
        torch.testing.assert_close(sol(ts), sol.ys)
        with pytest.raises(InputError, match="dense=True"):
            odeum.solve(spiral, torch.randn(2, 2), ts)(0.5)
        with pytest.raises(InputError, match="one column for each of its 2 rows"):
            sol(torch.zeros(3, 5))

    def test_dense_output_ends_where_a_row_failed(self):
        y0 = torch.tensor([[1.0], [4.0]])
        sol = odeum.solve(
            lambda t, y: y * y, y0, torch.tensor([0.0, 0.5]), dense=True, on_failure="mask"
        )
        values = sol(torch.tensor([0.1, 0.4]))
        torch.testing.assert_close(
            values[:, 0, 0], 1 / (1 - torch.tensor([0.1, 0.4])), rtol=1e-3, atol=0
        )
        assert torch.isfinite(values[0, 1])
        assert torch.isnan(values[1, 1])

    def test_every_row_failing_at_once(self):
        sol = odeum.solve(lambda t, y: y / 0, self.y0, self.ts, dense=True, on_failure="mask")
        assert sol.status.tolist() == [Status.NON_FINITE] * 2
        assert torch.isnan(sol(0.5)).all()


class TestBoundedWork:
    """No input makes a solve hang."""

    @pytest.mark.parametrize(
        ("field", "t1"),
        [
            (lambda t, y: y * y, 2.0),
            (lambda t, y: torch.full_like(y, torch.inf), 1.0),
            (lambda t, y: torch.where(t > 0.5, torch.nan, y), 1.0),
            (lambda t, y: torch.exp(50 * y), 1.0),
            (lambda t, y: 1 / (0.5 - t) * torch.ones_like(y), 1.0),
        ],
    )
    def test_failures_end(self, field, t1):
        ts = torch.tensor([0.0, t1])
        with pytest.raises(SolveError):
            odeum.solve(field, torch.ones(1, 1), ts)

    def test_a_discontinuity_is_passed(self):
        sol = odeum.solve(
            lambda t, y: torch.where(t > 0.5, 1.0, -1.0) * torch.ones_like(y),
            torch.zeros(1, 1),
            torch.tensor([0.0, 1.0]),
        )
        assert float(sol.ys[-1]) == pytest.approx(0.0, abs=1e-2)

    def test_a_huge_span(self):
        sol = odeum.solve(
            lambda t, y: -y,
            torch.ones(1, 1),
            torch.tensor([0.0, 1e9]),
            step=odeum.StepOptions(max_steps=500),
            on_failure="mask",
        )
        assert int(sol.stats.n_accepted + sol.stats.n_rejected) <= 500


NAN = torch.tensor([[torch.nan]])


class TestMessages:
    y0 = torch.ones(3, 2, dtype=torch.float64)
    ts = torch.linspace(0, 1, 3, dtype=torch.float64)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"method": "dorpi5"}, "unknown method 'dorpi5': did you mean 'dopri5'"),
            ({"method": 5}, "method is a int"),
            ({"gradient": "adjiont"}, "unknown gradient 'adjiont'"),
            ({"coupling": "both"}, "unknown coupling"),
            ({"engine": "fast"}, "unknown engine"),
            ({"on_failure": "ignore"}, "unknown on_failure"),
            ({"rtol": 0.0}, "rtol = 0: give a positive number"),
            ({"rtol": -1e-3}, "rtol = -0.001: give a positive"),
            ({"rtol": float("nan")}, "rtol = nan"),
            ({"rtol": "small"}, "rtol is a str|rtol"),
            ({"atol": -1.0}, "atol = -1: give a zero or positive"),
            ({"atol": torch.ones(3)}, "atol has shape .3.: it must broadcast against one row"),
            ({"ts": torch.tensor([0.0, 1.0, 0.5])}, r"ts is not strictly monotone: ts\[1\] = 1"),
            ({"ts": torch.tensor([0.0, 0.0, 1.0])}, r"ts\[0\] = 0 is followed by ts\[1\] = 0"),
            ({"ts": torch.tensor([0.0])}, "ts holds 1 time: give at least two"),
            ({"ts": torch.tensor([0.0, torch.nan])}, "NaN or infinite"),
            ({"ts": torch.zeros(4, 2)}, r"one column per row \(3 here\)"),
            ({"y0": torch.ones(3, 2, dtype=torch.int64)}, "dtype torch.int64: use float32"),
            ({"y0": [1.0, 2.0]}, "y0 holds a float"),
            ({"y0": ()}, "y0 is empty"),
            ({"y0": torch.tensor(1.0)}, "y0 has no axis"),
            ({"y0": (torch.ones(3, 2), torch.ones(4, 2))}, "3 and 4 rows"),
            ({"y0": (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2).float())}, "mixes"),
            ({"field": "lorenz"}, "field is a str"),
            (
                {"field": lambda t, y: y[:, :1]},
                r"returned shape \[3, 1\] for a state of shape \[3, 2\]",
            ),
            (
                {"field": lambda t, y: y.float()},
                "returned torch.float32 for a state of torch.float64",
            ),
            (
                {"field": lambda t, y: (y, y)},
                "returned a tuple of 2 for a state that is one tensor",
            ),
            ({"field": lambda t, y: 1.0}, "returned a float"),
            (
                {"field": lambda t, y: y if t > 0.5 else -y},
                'choose between values with torch.where, or pass coupling="joint"',
            ),
        ],
    )
    def test_bad_input(self, change, message):
        call = {"field": lambda t, y: -y, "y0": self.y0, "ts": self.ts} | change
        with pytest.raises(InputError, match=message):
            odeum.solve(call.pop("field"), call.pop("y0"), call.pop("ts"), **call)

    def test_branching_on_time_is_fine_where_there_is_one_time(self):
        odeum.solve(lambda t, y: y if t > 0.5 else -y, self.y0, self.ts, coupling="joint")

    @pytest.mark.parametrize(
        "options",
        [{"first": 0.0}, {"max": -1.0}, {"fixed": float("inf")}, {"min": 2.0, "max": 1.0}],
    )
    def test_bad_step_options(self, options):
        with pytest.raises(InputError, match="StepOptions"):
            odeum.StepOptions(**options)

    def test_a_tensor_per_row_must_be_marked(self):
        rates = torch.tensor([[1.0], [2.0], [30.0]])
        with pytest.raises(InputError, match=r"args=odeum.per_row\(tensor\)"):
            odeum.solve(lambda t, y: -rates * y, self.y0, self.ts)

    def test_the_field_s_own_errors_come_through(self):
        def broken(t, y):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            odeum.solve(broken, self.y0, self.ts)
        with pytest.raises(RuntimeError, match="mat1 and mat2") as info:
            odeum.solve(lambda t, y: torch.nn.Linear(3, 3)(y), self.y0, self.ts)
        assert "called with t of shape [3, 1] and 3 rows" in info.value.__notes__[0]

    def test_a_network_of_the_state_alone_is_told_to_take_time(self):
        with pytest.raises(InputError, match=r"lambda t, y: net\(y\)"):
            odeum.solve(torch.nn.Sequential(torch.nn.Linear(2, 2)), self.y0, self.ts)

    def test_a_failure_says_where_why_and_what_to_try(self):
        def field(t, y):
            return torch.where(y > 1.5, torch.nan, y)

        y0 = torch.tensor([[0.1], [1.0]])
        with pytest.raises(SolveError) as info:
            odeum.solve(field, y0, self.ts)
        message = str(info.value)
        assert "row 1 of 2 stopped at t = 0.4" in message
        assert "NaN" in message
        assert "on_failure='mask'" in message

    def test_too_many_steps(self):
        with pytest.raises(SolveError, match=r"took 10 steps without arriving.*max_steps"):
            odeum.solve(
                lambda t, y: torch.cos(100 * t) * y,
                self.y0,
                self.ts,
                step=odeum.StepOptions(max_steps=10),
            )
