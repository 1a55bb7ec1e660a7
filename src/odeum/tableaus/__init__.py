"""Every Runge-Kutta coefficient set: exact data, checked when constructed, read by every engine."""

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
from odeum.tableaus.dop853 import DOPRI8
from odeum.tableaus.record import DenseOutput, RKTableau

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
    )
}

__all__ = ["EXPLICIT", "DenseOutput", "RKTableau"]
