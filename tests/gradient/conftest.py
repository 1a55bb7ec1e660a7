"""Here gradients are those of the eager engine, whatever the fused one would take from it."""

import pytest


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setenv("ODEUM_ENGINE", "eager")
