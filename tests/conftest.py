"""Tests work in float64, where rounding does not hide what they look for.

Sweeps over methods, fields and options would take most of the time that a test run has. Of methods
alike one stands for its family, and of long sweeps every so-many-th case for the others; the rest
are slow tests, for ``make test-slow``. Every test keeps at least one case.
"""

from collections import defaultdict

import pytest
import torch

ALIKE = {
    *("midpoint", "heun", "heun2", "heun3", "ralston", "kutta38", "fehlberg2", "dopri5", "vern7"),
    *("implicit_euler", "implicit_midpoint", "trapezoid", "gauss6", "radau3"),
    *("sdirk2", "trbdf2", "kvaerno3", "kvaerno4", "rodas4"),
    *("semi_implicit_euler", "yoshida6", "DOP853", "scipy:DOP853", "RK23", "scipy:RK23"),
}
"""Methods for which others of their family stand: whose code is the same and coefficients differ.

Coefficients are tested of all methods, by the order conditions (tests/tableaus).
"""


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    # Torch's own, and not what was there: fixtures of a module are made before this one.
    torch.set_default_dtype(torch.float32)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    sweeps = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and item.get_closest_marker("slow") is None:
            sweeps[item.nodeid.partition("[")[0]].append(item)
    for cases in sweeps.values():
        usual = [case for case in cases if not _is_alike(case)] or cases[:1]
        mark = cases[0].get_closest_marker("sweep")
        if mark is not None:
            usual = usual[:: mark.args[0]]
        for case in cases:
            if case not in usual:
                case.add_marker(pytest.mark.slow)


def _is_alike(case):
    in_tableaus = "tests/tableaus/" in case.nodeid
    return not in_tableaus and any(
        isinstance(x, str) and x in ALIKE for x in case.callspec.params.values()
    )
