"""What holds for every solve, whatever the rows, times and method: drawn at random."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import odeum

METHODS = ["euler", "rk4", "bosh3", "dopri5", "tsit5", "dopri8"]


def pointwise(t, y):
    """A nonlinear, time-dependent field of exactly rounded operations alone."""
    q, p = y.unbind(-1)
    time = t.squeeze(-1)
    return torch.stack([p - 0.1 * q * time, -q / (1 + p * p)], -1)


@st.composite
def solves(draw):
    n_rows = draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    y0 = torch.randn(n_rows, 2, generator=generator, dtype=torch.float64)
    n_times = draw(st.integers(2, 6))
    gaps = torch.rand(n_times, n_rows, generator=generator, dtype=torch.float64) + 0.05
    ts = gaps.cumsum(0)
    if draw(st.booleans()):
        ts = ts * torch.where(torch.rand(n_rows, generator=generator) > 0.5, 1.0, -1.0)
    if draw(st.booleans()):
        ts = ts[:, 0]
    method = draw(st.sampled_from(METHODS))
    return {"field": pointwise, "y0": y0, "ts": ts, "method": method}


def rows(call, index):
    ts = call["ts"] if call["ts"].ndim == 1 else call["ts"][:, index]
    return call | {"y0": call["y0"][index], "ts": ts}


def counts(sol):
    return [sol.status, sol.stats.n_evaluations, sol.stats.n_accepted, sol.stats.n_rejected]


@given(solves(), st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(call, random):
    order = list(range(len(call["y0"])))
    random.shuffle(order)
    sol, shuffled = odeum.solve(**call), odeum.solve(**rows(call, order))
    assert torch.equal(sol.ys[:, order], shuffled.ys)
    for a, b in zip(counts(sol), counts(shuffled), strict=True):
        assert torch.equal(a[order], b)


@given(solves())
@settings(max_examples=30, deadline=None)
def test_a_row_does_not_know_of_the_others(call):
    sol = odeum.solve(**call)
    for i in range(len(call["y0"])):
        alone = odeum.solve(**rows(call, [i]))
        assert torch.equal(sol.ys[:, [i]], alone.ys)
        for a, b in zip(counts(sol), counts(alone), strict=True):
            assert torch.equal(a[[i]], b)


@given(solves())
@settings(max_examples=30, deadline=None)
def test_dense_output_meets_the_outputs(call):
    sol = odeum.solve(**call, dense=True)
    torch.testing.assert_close(sol(call["ts"]), sol.ys, rtol=1e-12, atol=1e-13)
    assert torch.equal(odeum.solve(**call).ys, sol.ys)


@given(solves())
@settings(max_examples=30, deadline=None)
def test_more_outputs_do_not_change_adaptive_steps(call):
    if not odeum.methods.describe(call["method"]).adaptive:
        call["step"] = odeum.StepOptions(fixed=0.1)
    ts = call["ts"]
    between = (ts[:-1] + ts[1:]) / 2
    more = torch.stack([ts[:-1], between], 1).flatten(0, 1)
    sol, finer = odeum.solve(**call), odeum.solve(**call | {"ts": torch.cat([more, ts[-1:]])})
    assert torch.equal(sol.stats.n_accepted, finer.stats.n_accepted)
    torch.testing.assert_close(finer.ys[::2], sol.ys, rtol=1e-13, atol=1e-14)
