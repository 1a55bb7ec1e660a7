"""An ensemble is its members solved and trained one by one, in one solve."""

import pytest
import torch

import odeum
from odeum.models import MLPField

N_MEMBERS = 3


def members() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [MLPField(2, hidden=[8], activation="tanh").double() for _ in range(N_MEMBERS)]


@pytest.fixture
def start() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    y0 = torch.randn(N_MEMBERS, 4, 2, dtype=torch.float64)
    return y0, torch.linspace(0, 1, 5, dtype=torch.float64)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_every_member_is_solved_as_if_alone(engine, start):
    y0, ts = start
    fields = members()
    ensemble = odeum.Ensemble(fields, engine=engine, rtol=1e-8, atol=1e-8)
    ys = ensemble(y0, ts)
    assert ys.shape == (5, N_MEMBERS, 4, 2)
    for i, field in enumerate(fields):
        alone = odeum.solve(field, y0[i], ts, engine="eager", rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(ys[:, i], alone.ys, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_training_all_is_training_each(engine, start):
    y0, ts = start
    fields = members()
    ensemble = odeum.Ensemble(fields, engine=engine)
    optimiser = torch.optim.Adam(ensemble.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        ensemble(y0, ts).square().mean((0, 2, 3)).sum().backward()
        optimiser.step()
    for i, field in enumerate(fields):
        optimiser = torch.optim.Adam(field.parameters(), lr=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            odeum.solve(field, y0[i], ts, engine="eager").ys.square().mean().backward()
            optimiser.step()
        trained = ensemble.member(i).state_dict()
        for name, weight in field.state_dict().items():
            torch.testing.assert_close(trained[name], weight, rtol=1e-7, atol=1e-9)


def test_frozen_parameters_stay_frozen_and_members_are_copies():
    fields = members()
    for field in fields:
        next(field.parameters()).requires_grad_(False)
    ensemble = odeum.Ensemble(fields)
    assert sum(p.requires_grad for p in ensemble.parameters()) == sum(
        p.requires_grad for p in fields[0].parameters()
    )
    with torch.no_grad():
        next(ensemble.parameters()).zero_()
    assert bool(next(fields[0].parameters()).any())


def test_what_is_no_ensemble_is_refused(start):
    y0, ts = start
    with pytest.raises(odeum.InputError, match="at least one"):
        odeum.Ensemble([])
    with pytest.raises(odeum.InputError, match="member 1 of the Ensemble differs"):
        odeum.Ensemble([MLPField(2, hidden=[8]), MLPField(2, hidden=[9])])
    with pytest.raises(odeum.InputError, match="with 3 members"):
        odeum.Ensemble(members())(y0[:2], ts)
