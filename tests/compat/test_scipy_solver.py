"""``scipy_solver``: SciPy's solvers by torchdiffeq's name for them."""

import pytest
import torch
from peers import ours, start, swing, theirs
from torch.testing import assert_close

TIMES = torch.tensor([0.0, 0.3, 0.8, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("solver", [None, "RK45", "DOP853", "Radau", "BDF"])
def test_states_are_those_of_scipy(solver, reverse):
    options = {} if solver is None else {"solver": solver}
    t = TIMES.flip(0) if reverse else TIMES
    mine = ours.odeint(swing, start(), t, method="scipy_solver", options=options)
    wanted = theirs.odeint(swing, start(), t, rtol=1e-10, atol=1e-12)
    assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
    assert mine.dtype == torch.float64


def test_no_step_is_larger_than_the_largest():
    counts = []
    for options in ({}, {"max_step": 0.01}):
        seen = []
        ours.odeint(
            lambda t, y, seen=seen: (seen.append(1), -y)[1],
            torch.ones(1), TIMES, method="scipy_solver", options=options,
        )  # fmt: skip
        counts.append(len(seen))
    assert counts[1] >= 200 > 2 * counts[0]


def test_tuples_and_complex_states_are_taken():
    y0 = (torch.ones(2), torch.tensor(1 + 1j))
    y = ours.odeint(lambda t, y: (-y[0], 1j * y[1]), y0, TIMES, method="scipy_solver")
    assert_close(y[1][-1], (1 + 1j) * torch.exp(torch.tensor(2j)), rtol=1e-5, atol=1e-6)
