"""Gradients with first derivatives only: differentiated further they say so, and never drop it."""

import pytest
import torch

import odeum
from odeum.errors import InputError

FIRST_ONLY = ["adjoint", "interpolated", "reversible", "forward"]


def inputs():
    y0 = torch.tensor([[1.0], [0.4]], requires_grad=True)
    ts = torch.tensor([0.0, 0.6, 1.0], requires_grad=True)
    return y0, ts, torch.tensor(0.7, requires_grad=True)


def loss_of(gradient, y0, ts, rate, **options):
    sol = odeum.solve(lambda t, y: -rate * y**3, y0, ts, gradient=gradient, **options)
    return (sol.ys[1:] ** 2).sum()


def refused(gradient):
    return pytest.raises(InputError, match=f'{gradient}" has first derivatives only.*"discrete"')


@pytest.mark.parametrize("gradient", FIRST_ONLY)
def test_a_graph_that_nobody_differentiates_changes_nothing(gradient):
    given = inputs()
    loss = loss_of(gradient, *given)
    plain = torch.autograd.grad(loss, given, retain_graph=True)
    with_graph = torch.autograd.grad(loss, given, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, with_graph, strict=True))
    # What is made of it without differentiating it, in place too, goes on working.
    assert all(g.requires_grad and g.detach().add_(1).isfinite().all() for g in with_graph)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["y0", "ts", "rate"])
@pytest.mark.parametrize("gradient", FIRST_ONLY)
def test_second_derivatives_are_refused(gradient, which):
    """Whatever is differentiated, by whatever: never a None, a zero or a part of the truth."""
    given = inputs()
    for loss in (loss_of(gradient, *given), loss_of(gradient, *given).sqrt()):
        first = torch.autograd.grad(loss, given, create_graph=True)
        for other in given:
            with refused(gradient):
                torch.autograd.grad(first[which].sum(), other, allow_unused=True, retain_graph=True)
        with refused(gradient):
            (loss + first[which].square().sum()).backward()


@pytest.mark.parametrize("gradient", FIRST_ONLY)
def test_so_are_those_by_what_the_inputs_come_from(gradient):
    seed = torch.tensor(0.5, requires_grad=True)
    _, ts, rate = inputs()
    # Breaks: an operation for each of two phases.
    loss = loss_of(gradient, seed.view(1, 1) * 2, ts.detach(), rate, breaks=[0.3])
    (first,) = torch.autograd.grad(loss, rate, create_graph=True)
    with refused(gradient):
        torch.autograd.grad(first, seed, allow_unused=True)


@pytest.mark.parametrize("gradient", FIRST_ONLY)
def test_many_directions_at_once_are_refused_alike(gradient):
    def outputs(y0):
        return odeum.solve(lambda t, y: -(y**3), y0, inputs()[1].detach(), gradient=gradient).ys

    jacobian = torch.autograd.functional.jacobian
    y0 = inputs()[0]
    plain = jacobian(outputs, y0)
    batched = jacobian(outputs, y0, create_graph=True, vectorize=True)
    torch.testing.assert_close(batched.detach(), plain, rtol=1e-12, atol=0)
    with refused(gradient):
        torch.autograd.grad(batched.sum(), y0)


@pytest.mark.parametrize("which", [0, 2], ids=["y0", "rate"])
@pytest.mark.parametrize("gradient", ["adjoint", "interpolated", "reversible"])
def test_dense_output_is_refused_whatever_it_is_differentiated_by(gradient, which):
    given = inputs()
    y0, ts, rate = given
    sol = odeum.solve(lambda t, y: -rate * y, y0, ts.detach(), gradient=gradient, dense=True)
    with pytest.raises(InputError, match=f'"{gradient}" does not reach dense output'):
        torch.autograd.grad(sol(0.5).sum(), given[which], allow_unused=True)
