"""Tests work in float64, where rounding does not hide what they look for."""

import pytest
import torch


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
