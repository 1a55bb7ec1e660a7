"""Errors are measured against truths known otherwise, ratios and marks on entrants to order."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from odeum.errors import InputError
from odeum.lab.bench import Answer, Entrant, draw, entrants, find, is_installed, race, reference
from odeum.lab.bench.race import error_of
from odeum.lab.bench.table import HEADER, Compared, cells, markdown, plain_lines
from odeum.lab.bench.threads import threads

SMALL = {
    name: replace(find(name), **changed)
    for name, changed in {
        "mlp-1": {"sizes": (2, 4, 2)},
        "mlp-128-gradient": {"sizes": (2, 4, 2), "n_rows": 3, "n_times": 4},
        "mlp-20-gradient": {"sizes": (6, 4, 6), "n_rows": 4, "n_times": 3},
        "lorenz": {"n_rows": 8, "n_times": 3, "t1": 0.5},
        "hamiltonian-gradient": {"sizes": (2, 4, 1), "n_rows": 3, "n_times": 4},
        "flow-gradient": {"sizes": (3, 4, 2), "n_rows": 3, "n_times": 4},
    }.items()
}
"""Workloads like the measured ones, too small to take any time."""

TRUTH = Answer(np.ones((2, 1, 1)))


def to_order(name, value, **options):
    """An entrant that answers ``value`` everywhere at once."""
    return Entrant(name, lambda: value, lambda x: Answer(np.full((2, 1, 1), x)), **options)


def test_weights_and_states_are_the_same_everywhere():
    once, again = draw(find("mlp-128")), draw(find("mlp-128-gradient"))
    assert torch.equal(once.y0, again.y0)
    for a, b in zip(once.field.parameters(), again.field.parameters(), strict=True):
        assert torch.equal(a, b)


def test_reference_is_the_solution():
    """Of a field that is linear, because its network has no hidden layer."""
    case = draw(replace(find("mlp-1"), sizes=(2, 2), dtype=torch.float64, n_times=5))
    weight, bias = (p.numpy() for p in case.field.parameters())
    at_rest = -np.linalg.solve(weight, bias)
    values, vectors = np.linalg.eig(weight)
    start = np.linalg.solve(vectors, case.y0[0].numpy() - at_rest)
    exact = [(vectors @ (np.exp(values * t) * start)).real + at_rest for t in case.ts.numpy()]
    assert np.allclose(reference.solve(case).ys[:, 0], exact, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp-128-gradient", "hamiltonian-gradient", "flow-gradient"])
def test_reference_gradient_is_the_slope_of_the_loss(name):
    small = SMALL[name]
    sizes = (small.sizes[0], 2, small.sizes[-1])
    case = draw(replace(small, sizes=sizes, dtype=torch.float64))
    gradient = reference.solve(case).gradient
    step = 1e-4
    slopes = []
    with torch.no_grad():
        for parameter in case.field.parameters():
            for i in range(parameter.numel()):
                losses = []
                for sign in (1, -1):
                    parameter.view(-1)[i] += sign * step
                    only_states = replace(case, workload=replace(case.workload, gradient=False))
                    losses.append((reference.solve(only_states).ys ** 2).mean())
                    parameter.view(-1)[i] -= sign * step
                slopes.append((losses[0] - losses[1]) / (2 * step))
    assert np.allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.sweep(5)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "library",
    [
        "torchdiffeq",
        pytest.param("diffrax", marks=pytest.mark.slow),  # compiles for a minute
        "torchode",
        "heyoka",
        "scipy",
    ],
)
def test_everyone_solves_the_same_problem(library, name):
    """Each library's own words for the field, the loss and its gradient mean the same."""
    if not is_installed(library):
        pytest.skip(f"{library} is not installed")
    case = draw(SMALL[name])
    exact = reference.solve(case)
    for entrant in entrants.taking_part(case, [library], thorough=library == "heyoka"):
        answer = entrant.answer(entrant.run())
        assert answer.ys.shape == (case.workload.n_times, *case.y0.shape)
        assert (answer.gradient is not None) == case.workload.gradient
        assert error_of(answer, exact) < 1e-4, entrant.name
        states_only = replace(answer, gradient=None)
        assert error_of(states_only, replace(exact, gradient=None)) < 1e-4, entrant.name


def test_error_counts_the_gradient_where_there_is_one():
    ys = np.ones((1, 1, 1))
    truth = Answer(ys, np.array([3.0, 4.0]))
    assert error_of(Answer(2 * ys, np.array([3.0, 5.0])), truth) == pytest.approx(0.2)
    assert error_of(Answer(np.full((1, 3, 1), 1.5)), Answer(ys)) == 0.5
    assert error_of(Answer(np.full((1, 1, 1), np.nan)), Answer(ys)) == np.inf


def test_ratio_is_taken_to_the_baseline():
    def slow():
        time.sleep(0.02)
        return 1.0

    slowest = Entrant("peer", slow, lambda x: Answer(np.full((2, 1, 1), x)), baseline="peer")
    results = race(
        [to_order("odeum", 1.0), slowest, replace(slowest, name="other", baseline="odeum")],
        TRUTH,
        3,
    )
    assert [len(result.seconds) for result in results] == [3, 3, 3]
    assert results[1].ratio == 1.0
    assert results[2].ratio > 1.0


def test_who_is_wrong_is_marked():
    found = race(
        [
            to_order("odeum", 1.001),
            to_order("close", 1.009),
            to_order("far", 1.02),
            to_order("lost", np.nan),
        ],
        TRUTH,
        1,
    )
    assert [result.wrong for result in found] == [False, False, True, True]
    lines = plain_lines(Compared(find("mlp-1"), tuple(found)))
    assert "far; lost" in lines[-1]
    assert "2.0e-02!" in lines[2]


def test_the_fastest_variant_that_arrives_is_kept():
    def slow():
        time.sleep(0.02)
        return 1.0

    answer = to_order("odeum", 1.0).answer
    broken = Entrant("odeum", lambda: 1 / 0, answer)
    variants = (to_order("odeum", np.nan), broken, to_order("odeum", 1.5))
    (result,) = race([Entrant("odeum", slow, answer, variants=variants)], TRUTH, 1)
    assert result.error == pytest.approx(0.5)


def test_a_failure_is_told_and_harms_nobody():
    def fail():
        raise RuntimeError("no\nsuch luck")

    broken = Entrant("peer", fail, lambda x: Answer(x))
    results = race([to_order("odeum", 1.0), broken], TRUTH, 2)
    assert results[1].failure == "RuntimeError: no"
    assert len(results[0].seconds) == 2
    assert "failed" in cells(find("mlp-1"), results[1])
    assert (
        plain_lines(Compared(find("mlp-1"), tuple(results)))[-1]
        == "  peer failed: RuntimeError: no"
    )


def test_without_odeum_there_are_no_ratios():
    (result,) = race([to_order("peer", 1.0)], TRUTH, 1)
    assert np.isnan(result.ratio)
    assert not result.wrong


def test_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), threads(1):
        raise ValueError("inside")
    assert torch.get_num_threads() == before


def test_markdown_names_a_workload_once():
    results = race([to_order("odeum", 1.0), to_order("diffrax, vmap", 1.0)], TRUTH, 1)
    lines = markdown([Compared(find("mlp-1"), tuple(results))]).splitlines()
    assert lines[0] == f"| {' | '.join(HEADER)} |"
    assert lines[2].startswith("| MLP 2-64-64-2, 1 row | odeum |")
    assert lines[3].startswith("|  | diffrax, vmap |")
    assert {line.count("|") for line in lines} == {len(HEADER) + 1}


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'diffrax'"):
        is_installed("difrax")
    with pytest.raises(InputError, match="did you mean 'lorenz'"):
        find("lorentz")
