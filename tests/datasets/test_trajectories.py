"""The containers: what they refuse, how they split, and their way back to a table."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odeum.datasets import Trajectories, Trajectory
from odeum.errors import DataError, InputError

NAN = math.nan


def trajectory(name="a", n=10, dim=2, start=0.0):
    t = start + torch.arange(n, dtype=torch.float64)
    return Trajectory(name, t, torch.stack([t + i for i in range(dim)], -1))


def test_counts_and_iteration():
    y = torch.tensor([[1.0, NAN], [NAN, NAN], [3.0, 4.0]], dtype=torch.float64)
    holed = Trajectory("b", torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64), y)
    data = Trajectories((trajectory(), holed), "t", ("u", "v"), "run")
    assert (len(data), data.dim, data.n_observed) == (2, 2, 20 + 3)
    assert [item.name for item in data] == ["a", "b"]
    assert len(holed) == 3
    assert holed.complete.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("n", "holdout", "n_tail"),
    [(10, 0.2, 2), (21, 0.2, 4), (10, 0.25, 3), (10, 0.01, 1), (10, 0.0, 0), (10, 0.8, 8)],
)
def test_split_cuts_off_the_rounded_fraction(n, holdout, n_tail):
    data = Trajectories((trajectory(n=n),), "year", ("u", "v"), source="file.csv")
    head, tail = data.split(holdout)
    (first,), (last,) = head, tail
    assert (len(first), len(last)) == (n - n_tail, n_tail)
    assert torch.equal(torch.cat([first.t, last.t]), data.trajectories[0].t)
    assert torch.equal(torch.cat([first.y, last.y]), data.trajectories[0].y)
    for part in (head, tail):
        assert (part.time_name, part.state_names) == ("year", ("u", "v"))
        assert (part.group_name, part.source) == (None, "file.csv")
        assert part.trajectories[0].name == "a"


def test_split_cuts_every_trajectory_by_its_own_length():
    data = Trajectories((trajectory("a", 10), trajectory("b", 5)), "t", ("u", "v"), "run")
    head, tail = data.split(0.4)
    assert [len(item) for item in head] == [6, 3]
    assert [len(item) for item in tail] == [4, 2]


def test_split_keeps_two_complete_rows_to_learn_from():
    with pytest.raises(DataError, match="9 of the 10 rows of trajectory 'a' leaves 1 complete row"):
        Trajectories((trajectory(n=10),), "t", ("u", "v")).split(0.9)
    y = trajectory(n=4).y.clone()
    y[1, 0] = NAN
    holed = Trajectories((Trajectory("h", trajectory(n=4).t, y),), "t", ("u", "v"))
    assert len(holed.split(0.25)[1].trajectories[0]) == 1
    with pytest.raises(
        DataError, match=r"holding out 2 of the 4 rows.*leaves 1 complete.*hold out"
    ):
        holed.split(0.5)
    y[2, 1] = NAN
    y[3, 1] = NAN
    with pytest.raises(DataError, match=r"holding out 0 of the 4 rows.*leaves 1 complete"):
        holed.split(0.0)


@pytest.mark.parametrize("holdout", [-0.1, 1.0, NAN])
def test_split_refuses_other_fractions(holdout):
    with pytest.raises(InputError, match="holdout must be at least 0 and less than 1, got"):
        Trajectories((trajectory(),), "t", ("u", "v")).split(holdout)


@given(n=st.integers(3, 60), holdout=st.floats(0.0, 0.99))
def test_split_never_loses_or_repeats_a_row(n, holdout):
    data = Trajectories((trajectory(n=n, dim=1),), "t", ("u",))
    try:
        head, tail = data.split(holdout)
    except DataError:
        assert n - max(1, round(holdout * n)) < 3
        return
    n_tail = len(tail.trajectories[0])
    assert abs(n_tail - holdout * n) <= 0.5 or (n_tail == 1 and holdout > 0)
    assert torch.equal(
        torch.cat([head.trajectories[0].t, tail.trajectories[0].t]), data.trajectories[0].t
    )


def test_to_frame_writes_group_time_states():
    y = torch.tensor([[5.0, NAN]], dtype=torch.float64)
    short = Trajectory("b", torch.tensor([7.0], dtype=torch.float64), y)
    data = Trajectories((trajectory("a", 2), short), "year", ("hare", "lynx"), "site")
    expected = pd.DataFrame(
        {
            "site": ["a", "a", "b"],
            "year": [0.0, 1.0, 7.0],
            "hare": [0.0, 1.0, 5.0],
            "lynx": [1.0, 2.0, NAN],
        }
    )
    pd.testing.assert_frame_equal(data.to_frame(), expected, check_dtype=False)
    alone = Trajectories((trajectory("a", 2),), "year", ("hare", "lynx")).to_frame()
    assert list(alone.columns) == ["year", "hare", "lynx"]


def test_malformed_trajectories_are_refused():
    t = torch.arange(3, dtype=torch.float64)
    y = torch.zeros(3, 1, dtype=torch.float64)
    for bad_t, bad_y, message in [
        (t, y[:2], r"t \[time\] and y \[time, dim\], got \[3\] and \[2, 1\]"),
        (t, y[:, 0], r"got \[3\] and \[3\]"),
        (t.float(), y, r"float64.*got torch.float32 and torch.float64"),
        (t.flip(0), y, "times of trajectory 'x' must increase strictly"),
        (t * 0, y, "must increase strictly"),
        (t * NAN, y, "must increase strictly"),
        (t, y + math.inf, "infinite"),
    ]:
        with pytest.raises(InputError, match=message):
            Trajectory("x", bad_t, bad_y)


def test_malformed_sets_are_refused():
    one = trajectory()
    for arguments, message in [
        (((), "t", ("u", "v")), "at least one trajectory"),
        (((one, one), "t", ("u", "v")), "2 trajectories need a group_name"),
        (((one, one), "t", ("u", "v"), "g"), "two trajectories are called 'a'"),
        (((one,), "t", ("u",)), "'a' has 2 states, state_names names 1"),
        (((one,), "t", ("t", "v")), "column name 't' is used twice"),
        (((one,), "t", ("u", "v"), "u"), "column name 'u' is used twice"),
    ]:
        with pytest.raises(InputError, match=message):
            Trajectories(*arguments)
