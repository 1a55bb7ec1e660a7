"""Tests work in float64, where rounding does not hide what they look for."""

import pytest
import torch


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    # Torch's own, and not what was there: fixtures of a module are made before this one.
    torch.set_default_dtype(torch.float32)
