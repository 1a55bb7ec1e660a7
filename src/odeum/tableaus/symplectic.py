"""Symplectic methods for separable systems ``q' = f_q(t, p)``, ``p' = f_p(t, q)``, as data.

One step alternates kicks ``p += h kick_i f_p(q)`` and drifts ``q += h drift_i f_q(p)``, starting
with a kick (Hairer, Lubich & Wanner, Geometric Numerical Integration, 2006, II.4 and II.5).
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from odeum.errors import InputError
from odeum.tableaus.record import TOLERANCE, Row, row


@dataclass(frozen=True, eq=False)
class SymplecticTableau:
    """A splitting method as data.

    Attributes:
        name: how ``method=`` names it.
        order: order of the solution.
        kicks: fractions of the step by which ``p`` moves, one after the other.
        drifts: fractions by which ``q`` moves between kicks: as many, or one fewer, so that the
            step ends with a kick.
        source: where the coefficients are published.

    Raises:
        InputError: where the lengths do not fit, or kicks or drifts do not sum to 1.

    Example:
        >>> LEAPFROG.kicks, LEAPFROG.drifts, LEAPFROG.reversible
        ((Fraction(1, 2), Fraction(1, 2)), (Fraction(1, 1),), True)
        >>> LEAPFROG.kick_nodes, LEAPFROG.drift_nodes
        ((Fraction(0, 1), Fraction(1, 1)), (Fraction(1, 2),))
    """

    name: str
    order: int
    kicks: Row
    drifts: Row
    source: str

    def __post_init__(self) -> None:
        if len(self.kicks) - len(self.drifts) not in (0, 1):
            raise InputError(
                f"tableau {self.name!r}: {len(self.kicks)} kicks and {len(self.drifts)} drifts do "
                "not alternate from a kick on: give as many drifts as kicks, or one fewer"
            )
        for kind, fractions in (("kicks", self.kicks), ("drifts", self.drifts)):
            if abs(sum(fractions, Fraction(-1))) > TOLERANCE:
                raise InputError(f"tableau {self.name!r}: {kind} must sum to 1")

    @property
    def first_same_as_last(self) -> bool:
        """Whether the step ends with a kick, whose ``f_p`` the next step's first kick needs."""
        return len(self.kicks) == len(self.drifts) + 1

    @property
    def n_stages(self) -> int:
        """Evaluations of ``f_q`` in one step, and of ``f_p`` where the last one is shared."""
        return len(self.drifts)

    @property
    def reversible(self) -> bool:
        """Whether a step by ``-h`` undoes one by ``h``: the coefficients read the same backward."""
        return (
            self.first_same_as_last
            and self.kicks == self.kicks[::-1]
            and self.drifts == self.drifts[::-1]
        )

    @property
    def kick_nodes(self) -> Row:
        """Fraction of the step at which each kick evaluates ``f_p``: the drifts before it."""
        return tuple(accumulate(self.drifts, initial=Fraction(0)))[: len(self.kicks)]

    @property
    def drift_nodes(self) -> Row:
        """Fraction of the step at which each drift evaluates ``f_q``: the kicks before it."""
        return tuple(accumulate(self.kicks))[: len(self.drifts)]


def leapfrogs(name: str, order: int, steps: Row, source: str) -> SymplecticTableau:
    """Leapfrog steps of these fractions of the whole, one after the other, as one method.

    Args:
        name: how ``method=`` names it.
        order: order of the composition.
        steps: fractions, which sum to 1.
        source: where they are published.

    Example:
        >>> leapfrogs("twice", 2, row("1/2", "1/2"), "leapfrog").kicks
        (Fraction(1, 4), Fraction(1, 2), Fraction(1, 4))
    """
    before, after = row(0) + steps, (*steps, Fraction(0))
    kicks = tuple((x + y) / 2 for x, y in zip(before, after, strict=True))
    return SymplecticTableau(name, order, kicks, drifts=steps, source=source)


def _symmetric(*outer: Fraction) -> Row:
    """The fractions that read the same backward, sum to 1 and end with ``outer``."""
    return (*outer[::-1], 1 - 2 * sum(outer, Fraction(0)), *outer)


SEMI_IMPLICIT_EULER = SymplecticTableau(
    name="semi_implicit_euler",
    order=1,
    kicks=row(1),
    drifts=row(1),
    source="de Vogelaere, Notre Dame Math. Report 4 (1956)",
)

LEAPFROG = leapfrogs("leapfrog", 2, row(1), "Verlet, Phys. Rev. 159 (1967) 98-103")

# The outer steps are 1 / (2 - 2^(1/3)).
YOSHIDA4 = leapfrogs(
    "yoshida4",
    4,
    _symmetric(*row("1.351207191959657634047687808971460826922")),
    "Yoshida, Phys. Lett. A 150 (1990) 262-268",
)

# Solution A, published to 15 digits: these meet the order conditions to 40.
YOSHIDA6 = leapfrogs(
    "yoshida6",
    6,
    _symmetric(
        *row(
            "-1.177679984178871006946415680964315734639",
            "0.2355732133593581336847931829785346016865",
            "0.7845136104775572638194976338663498757768",
        )
    ),
    "Yoshida, Phys. Lett. A 150 (1990) 262-268, solution A",
)
