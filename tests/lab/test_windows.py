import pytest
import torch

from odeum.datasets import Trajectories, Trajectory
from odeum.errors import DataError
from odeum.lab.windows import cut, first_complete, whole

NAN = float("nan")


def trajectories(*columns):
    items = []
    for i, rows in enumerate(columns):
        y = torch.tensor(rows)
        items.append(Trajectory(str(i), torch.arange(len(y), dtype=torch.float64) ** 2, y))
    return Trajectories(tuple(items), "t", ("x", "y"), "group")


def test_windows_start_only_at_complete_rows_and_mask_what_is_empty():
    data = trajectories([[0.0, 0.0], [1.0, NAN], [2.0, 2.0], [NAN, 3.0]])
    windows = cut(data, 2)
    assert windows.y0.tolist() == [[0.0, 0.0], [2.0, 2.0]]
    assert windows.ts.T.tolist() == [[0.0, 1.0], [4.0, 9.0]]
    assert torch.isnan(windows.targets[0]).all()
    torch.testing.assert_close(
        windows.targets[1], torch.tensor([[1.0, NAN], [NAN, 3.0]]), equal_nan=True
    )


def test_a_window_with_nothing_to_match_is_left_out():
    data = trajectories([[0.0, 0.0], [NAN, NAN], [2.0, 2.0], [3.0, 3.0]])
    assert cut(data, 2).y0.tolist() == [[2.0, 2.0]]


def test_shorter_trajectories_are_padded_just_beyond_their_end():
    data = trajectories([[0.0, 0.0]] * 5, [[1.0, 1.0]] * 3)
    windows = cut(data, 5)
    assert len(windows) == 2
    assert (windows.ts.diff(dim=0) > 0).all()
    assert windows.ts[:3, 1].tolist() == [0.0, 1.0, 4.0]
    assert float(windows.ts[-1, 1]) == pytest.approx(4.0, rel=0.01)
    assert torch.isnan(windows.targets[3:, 1]).all()
    assert torch.isfinite(windows.targets[1:3, 1]).all()


def test_whole_starts_at_the_first_complete_row():
    data = trajectories([[NAN, 0.0], [1.0, 1.0], [2.0, 2.0]], [[5.0, 5.0]])
    windows = whole(data)
    assert windows.y0.tolist() == [[1.0, 1.0], [5.0, 5.0]]
    assert windows.ts[:, 0].tolist() == [1.0, 4.0]
    assert [first_complete(x) for x in data] == [1, 0]
    with pytest.raises(DataError, match="trajectory '0' has no row"):
        whole(trajectories([[NAN, 0.0], [1.0, NAN]]))


def test_nothing_to_learn_from_is_said():
    with pytest.raises(DataError, match="nothing to learn from"):
        cut(trajectories([[0.0, 0.0], [NAN, NAN]]), 2)


def test_choosing_keeps_windows_whole_and_follows_the_generator():
    data = trajectories([[float(i), float(-i)] for i in range(40)])
    windows = cut(data, 3)
    chosen = windows.choose(5, torch.Generator().manual_seed(3))
    again = windows.choose(5, torch.Generator().manual_seed(3))
    assert len(chosen) == 5
    assert torch.equal(chosen.y0, again.y0)
    assert len(set(chosen.y0[:, 0].tolist())) == 5
    torch.testing.assert_close(chosen.targets[1, :, 0], chosen.y0[:, 0] + 1)
    torch.testing.assert_close(chosen.ts[0].sqrt(), chosen.y0[:, 0])
    assert windows.choose(1000, torch.Generator()) is windows
