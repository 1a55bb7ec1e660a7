"""Who takes part in the work-precision sweep, and whose errors its verdict compares."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entrant:
    """A solver by the name it is drawn with; ``finest`` is the smallest rtol it is given."""

    name: str
    theirs: bool = False
    finest: float = 0.0


@dataclass(frozen=True)
class Contest:
    """A class of methods: who takes part, and whose errors the verdict compares."""

    title: str
    stiff: bool
    entrants: tuple[Entrant, ...]
    ours: tuple[str, ...]
    against: str


CONTESTS = (
    Contest(
        title="nonstiff",
        stiff=False,
        entrants=(
            Entrant("tsit5"),
            Entrant("dopri5"),
            Entrant("dopri8"),
            Entrant("vern7"),
            Entrant("vern9"),
            Entrant("RK45", theirs=True),
            Entrant("DOP853", theirs=True),
            Entrant("LSODA", theirs=True),
        ),
        ours=("dopri8", "vern9"),
        against="DOP853",
    ),
    Contest(
        title="stiff",
        stiff=True,
        entrants=(
            Entrant("trbdf2", finest=1e-3),
            Entrant("kvaerno3", finest=1e-4),
            Entrant("kvaerno4", finest=1e-5),
            Entrant("kvaerno5", finest=1e-7),
            Entrant("radau5"),
            Entrant("rodas4", finest=1e-5),
            Entrant("rodas5p", finest=1e-9),
            Entrant("auto", finest=1e-7),
            Entrant("Radau", theirs=True),
            Entrant("BDF", theirs=True),
            Entrant("LSODA", theirs=True),
        ),
        ours=("radau5", "kvaerno5", "rodas5p"),
        against="Radau",
    ),
)
