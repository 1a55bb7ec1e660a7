"""A process that has compiled nothing yet, and how much it compiles."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from odeum.compile import again, known
from odeum.compile.runtime import kernels


@dataclass
class Compilations:
    """What has been compiled.

    Attributes:
        n: how many kernels.
        forget: lets the process forget every field and kernel, as a new one would know none.
    """

    forget: Callable[[], None]
    found: list[None] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.found)


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """An empty folder of kernels, a process that knows no field, and a count."""
    monkeypatch.setenv("ODEUM_CACHE", str(tmp_path / "kernels"))

    def forget() -> None:
        monkeypatch.setattr(known, "_known", OrderedDict())
        monkeypatch.setattr(again, "_remembered", OrderedDict())

    counted = Compilations(forget)
    compiled = kernels.compiled

    def counting(*arguments):
        counted.found.append(None)
        return compiled(*arguments)

    monkeypatch.setattr(kernels, "compiled", counting)
    forget()
    return counted
