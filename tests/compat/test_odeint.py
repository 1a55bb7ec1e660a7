"""States: those of torchdiffeq, to rounding on a grid and to the tolerance where steps adapt."""

import pytest
import torch
from peers import ADAPTIVE, FIXED, ours, start, swing, theirs, truth
from torch.testing import assert_close

# Both libraries say so of the tight default tolerances, and both go on.
pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")

SINGLE, DOUBLE = torch.float32, torch.float64
TIMES = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.7, 2.0], dtype=torch.float64)


def both(*args, **kwargs):
    return ours.odeint(*args, **kwargs), theirs.odeint(*args, **kwargs)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_on_a_grid_states_agree_to_rounding(method, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    options = {"step_size": 0.07}
    if method == "explicit_adams":
        # Of its order 11 no step here is short enough to be stable: rounding errors grow.
        options["max_order"] = 5
    mine, wanted = both(swing, start(), t, method=method, options=options)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", FIXED)
def test_without_a_step_size_the_outputs_are_the_grid(method):
    mine, wanted = both(swing, start(), TIMES, method=method)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_where_steps_adapt_states_agree_to_the_tolerance(method, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if "2" in method or "heun" in method else {}
    mine, wanted = both(swing, start(), t, method=method, **tolerance)
    exact = truth(t=t)
    error, their_error = ((x - exact).abs().max() for x in (mine, wanted))
    assert error < max(3 * their_error, 1e-8)


def test_the_default_method_and_tolerances_are_those_of_torchdiffeq():
    mine, wanted = both(swing, start(), TIMES)
    assert_close(mine, wanted, rtol=3e-7, atol=3e-8)
    assert not torch.equal(mine, ours.odeint(swing, start(), TIMES, rtol=1e-4))


@pytest.mark.parametrize("method", ["rk4", "implicit_adams", "dopri5"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 1, 3, 1)], ids=str)
def test_a_state_has_any_shape(method, shape):
    y0 = torch.linspace(0.5, 1.5, max(1, torch.Size(shape).numel())).reshape(shape)
    mine, wanted = both(lambda t, y: -y * y + t, y0, TIMES, method=method)
    assert mine.shape == (len(TIMES), *shape)
    assert_close(mine, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["midpoint", "explicit_adams", "implicit_adams", "dopri5"])
def test_a_state_may_be_a_tuple_of_tensors(method):
    def field(t, y):
        q, p, _ = y
        return p, -torch.sin(q), (q * p).sum() + t

    y0 = (torch.tensor([[1.0], [0.3]]), torch.zeros(2, 1), torch.tensor(0.0))
    mine, wanted = both(field, y0, TIMES, method=method)
    assert isinstance(mine, tuple)
    for x, y in zip(mine, wanted, strict=True):
        assert_close(x, y, rtol=1e-6, atol=1e-7)


def test_the_tensors_of_a_tuple_are_promoted_to_one_dtype():
    y0 = (torch.ones(2, dtype=torch.float32), torch.ones(1, dtype=torch.float64))
    mine, wanted = both(lambda t, y: (-y[0], y[1]), y0, TIMES, method="rk4")
    assert [x.dtype for x in mine] == [x.dtype for x in wanted] == [torch.float64] * 2
    assert_close(mine, wanted)


def test_derivatives_of_a_tuple_need_the_number_of_elements_alone():
    y0 = (torch.ones(2, 1), torch.ones(3))
    mine, wanted = both(lambda t, y: [-y[0].reshape(2), y[1].reshape(3, 1)], y0, TIMES)
    assert_close(mine, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["rk4", "explicit_adams", "implicit_adams", "dopri5"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_state_may_be_complex(method, dtype):
    y0 = torch.tensor([1 + 0.5j, -0.3j], dtype=dtype)
    t = TIMES.to(dtype.to_real())
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.complex64 else {}
    mine, wanted = both(lambda t, y: 1j * y - 0.1 * y * y.abs(), y0, t, method=method, **tolerance)
    assert mine.dtype == wanted.dtype == dtype
    close = 1e-4 if dtype == torch.complex64 else 1e-6
    assert_close(mine, wanted, rtol=close, atol=close)


def test_a_tuple_with_a_complex_tensor_is_complex():
    def field(t, y):
        return 1j * y[0], y[0].sum() * y[1]

    y0 = (torch.tensor([1 + 0.5j]), torch.tensor([0.3]))
    mine, wanted = both(field, y0, TIMES)
    assert [x.dtype for x in mine] == [torch.complex128] * 2
    assert_close(mine, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["rk4", "implicit_adams", "dopri5"])
@pytest.mark.parametrize(
    ("of_state", "of_times"),
    [(SINGLE, SINGLE), (SINGLE, DOUBLE), (DOUBLE, SINGLE)],
    ids=["32-32", "32-64", "64-32"],
)
def test_precisions_may_differ(method, of_state, of_times):
    seen = []

    def field(t, y):
        seen.append((t.dtype, t.ndim, y.dtype))
        return swing(t, y)

    mine = ours.odeint(
        field, start().to(of_state), TIMES.to(of_times), method=method, rtol=1e-5, atol=1e-6
    )
    assert set(seen) == {(of_state, 0, of_state)}
    assert mine.dtype == of_state
    wanted = theirs.odeint(
        swing, start().to(of_state), TIMES.to(of_times), method=method, rtol=1e-5, atol=1e-6
    )
    assert_close(mine, wanted, rtol=1e-4, atol=2e-5)


def test_a_field_of_another_dtype_or_a_shape_that_broadcasts_is_taken():
    y0 = torch.ones(1, dtype=torch.float32)
    mine = ours.odeint(lambda t, y: -y.double().sum(), y0, TIMES)
    assert mine.dtype == torch.float32
    assert_close(mine[-1].double(), torch.exp(torch.tensor([-2.0])), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "implicit_adams", "dopri5"])
def test_one_time_gives_the_start(method):
    mine, wanted = both(swing, start(), TIMES[:1], method=method)
    assert_close(mine, wanted)


@pytest.mark.parametrize("tolerance", [1e-5, torch.tensor(1e-5), [1e-5, 1e-9], (1e-5, 1e-9)])
def test_the_tensors_of_a_tuple_may_have_tolerances_of_their_own(tolerance):
    def field(t, y):
        return -y[0], 3 * torch.cos(3 * t) * torch.ones(2)

    y0 = (torch.ones(3), torch.zeros(2))
    mine = ours.odeint(field, y0, TIMES, rtol=tolerance, atol=tolerance)
    assert_close(mine[1][-1], torch.sin(3 * TIMES[-1]).expand(2), rtol=1e-4, atol=1e-4)
    if not isinstance(tolerance, float | torch.Tensor):
        assert_close(mine[1][-1], torch.sin(3 * TIMES[-1]).expand(2), rtol=1e-7, atol=1e-7)


def test_a_tensor_of_tolerances_belongs_to_the_elements():
    def field(t, y):
        return torch.stack([torch.cos(t), 30 * torch.cos(30 * t)])

    exact = torch.sin(TIMES[-1] * torch.tensor([1.0, 30.0]))
    n_evaluations = []
    for atol in (torch.tensor([1e-9, 1e-9]), torch.tensor([1e-9, 10.0])):
        count = []
        y = ours.odeint(
            lambda t, y, count=count: (count.append(1), field(t, y))[1],
            torch.zeros(2), TIMES, rtol=1e-9, atol=atol,
        )  # fmt: skip
        n_evaluations.append(len(count))
        assert abs(y[-1, 0] - exact[0]) < 1e-7
    assert n_evaluations[1] < n_evaluations[0] / 3
