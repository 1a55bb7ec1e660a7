"""Who may take part: odeum, and other libraries where they are installed.

Each library has a module of its own, loaded when it takes part, with ``entrants(case, thorough=)``.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from odeum.errors import unknown_name
from odeum.lab.bench.entrants.record import Answer, Entrant
from odeum.lab.bench.workloads import Case

LIBRARIES = {
    "torchdiffeq": ("torchdiffeq",),
    "diffrax": ("diffrax", "jax"),
    "torchode": ("torchode",),
    "heyoka": ("heyoka",),
    "scipy": ("scipy",),
}
"""What must be installed for each library."""

__all__ = ["LIBRARIES", "Answer", "Entrant", "is_installed", "taking_part"]


def is_installed(library: str) -> bool:
    """Whether a library can take part here.

    Raises:
        InputError: for a library that odeum is not compared with.

    Example:
        >>> is_installed("scipy")
        True
    """
    if library not in LIBRARIES:
        raise unknown_name("library", library, LIBRARIES)
    return all(find_spec(package) is not None for package in LIBRARIES[library])


def taking_part(case: Case, libraries: Iterable[str], *, thorough: bool) -> list[Entrant]:
    """Odeum's entrants, then those of other libraries.

    Args:
        case: what they are to solve; a library may have nothing for it.
        libraries: keys of ``LIBRARIES``, installed.
        thorough: whether to have also what takes long to compile.
    """
    return [
        entrant
        for library in ("odeum", *libraries)
        for entrant in import_module(f"{__name__}.with_{library}").entrants(case, thorough=thorough)
    ]
