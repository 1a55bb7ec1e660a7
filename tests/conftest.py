"""float64, seeded, one thread: what every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def pytest_configure(config):
    torch.set_num_threads(1)
