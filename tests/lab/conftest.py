import matplotlib.pyplot as plt
import pytest
import torch

from odeum.datasets import Trajectories, Trajectory


@pytest.fixture(autouse=True)
def no_windows():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def exact_linear():
    """Two trajectories of ``dy/dt = A (y - c)``, exact, at irregular times; with their A and c."""
    matrix = torch.tensor([[-0.1, -1.0], [1.0, -0.1]])
    centre = torch.tensor([5.0, -2.0])
    generator = torch.Generator().manual_seed(1)
    trajectories = []
    for name, n_times, y0 in (("a", 16, [2.0, 0.0]), ("b", 11, [0.0, -1.0])):
        gaps = 0.2 + 0.3 * torch.rand(n_times - 1, generator=generator)
        t = torch.cat([torch.zeros(1), gaps.cumsum(0)])
        y = torch.matrix_exp(matrix * t[:, None, None]) @ torch.tensor(y0) + centre
        trajectories.append(Trajectory(name, t, y))
    return Trajectories(tuple(trajectories), "t", ("x", "y"), "who"), matrix, centre


@pytest.fixture
def holed(exact_linear):
    """The same with empty cells, one trajectory starting with an incomplete row."""
    data, _, _ = exact_linear
    first, second = (trajectory.y.clone() for trajectory in data)
    first[0, 0] = first[4, 1] = first[5] = torch.nan
    second[3, 0] = torch.nan
    return Trajectories(
        tuple(Trajectory(x.name, x.t, y) for x, y in zip(data, (first, second), strict=True)),
        "t",
        ("x", "y"),
        "who",
    )
