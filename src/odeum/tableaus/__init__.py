"""The coefficients of every one-step method: exact data, checked when constructed."""

from odeum.tableaus.classical import (
    BOSH3,
    DOPRI5,
    EULER,
    FEHLBERG2,
    HEUN,
    HEUN3,
    KUTTA38,
    MIDPOINT,
    RALSTON,
    RK4,
    TSIT5,
)
from odeum.tableaus.collocation import GAUSS4, GAUSS6, IMPLICIT_MIDPOINT, RADAU3, RADAU5
from odeum.tableaus.dop853 import DOPRI8
from odeum.tableaus.implicit import (
    IMPLICIT_EULER,
    KVAERNO3,
    KVAERNO4,
    KVAERNO5,
    SDIRK2,
    TRAPEZOID,
    TRBDF2,
)
from odeum.tableaus.record import DenseOutput, RKTableau
from odeum.tableaus.rosenbrock import ROSENBROCK, RosenbrockTableau
from odeum.tableaus.symplectic import (
    LEAPFROG,
    SEMI_IMPLICIT_EULER,
    YOSHIDA4,
    YOSHIDA6,
    SymplecticTableau,
)
from odeum.tableaus.verner import VERN7, VERN9

EXPLICIT = {
    tableau.name: tableau
    for tableau in (
        EULER,
        MIDPOINT,
        HEUN,
        RALSTON,
        FEHLBERG2,
        HEUN3,
        RK4,
        KUTTA38,
        BOSH3,
        DOPRI5,
        TSIT5,
        DOPRI8,
        VERN7,
        VERN9,
    )
}

IMPLICIT = {
    tableau.name: tableau
    for tableau in (
        IMPLICIT_EULER,
        TRAPEZOID,
        SDIRK2,
        TRBDF2,
        KVAERNO3,
        KVAERNO4,
        KVAERNO5,
        IMPLICIT_MIDPOINT,
        GAUSS4,
        GAUSS6,
        RADAU3,
        RADAU5,
    )
}

SYMPLECTIC = {
    tableau.name: tableau for tableau in (SEMI_IMPLICIT_EULER, LEAPFROG, YOSHIDA4, YOSHIDA6)
}

__all__ = [
    "EXPLICIT",
    "IMPLICIT",
    "ROSENBROCK",
    "SYMPLECTIC",
    "DenseOutput",
    "RKTableau",
    "RosenbrockTableau",
    "SymplecticTableau",
]
