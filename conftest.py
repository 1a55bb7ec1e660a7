"""Seeded, on one thread, with the eager engine: what every test and every example starts from."""

import os
import shutil
import tempfile

import pytest
import torch

# Their libraries are no dependencies of odeum: each is imported by the benchmark that it enters.
collect_ignore_glob = ["src/odeum/lab/bench/entrants/with_*.py"]

_own_cache: list[str] = []


def pytest_configure(config):
    torch.set_num_threads(1)
    # Where a test says nothing of the engine, nothing is compiled.
    os.environ.setdefault("ODEUM_ENGINE", "eager")
    if "ODEUM_CACHE" not in os.environ:
        # One folder a run: the processes that share a run's tests are started with it.
        _own_cache.append(tempfile.mkdtemp(prefix="odeum-kernels-"))
        os.environ["ODEUM_CACHE"] = _own_cache[0]


def pytest_unconfigure(config):
    for folder in _own_cache:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
