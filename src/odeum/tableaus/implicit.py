"""Diagonally implicit Runge-Kutta methods for stiff problems, of orders 1 to 5.

Every one starts with the explicit stage ``f(t, y)``, which error estimates and dense output weigh,
and all implicit stages share one diagonal coefficient, so that one factorisation serves a step.
"""

from fractions import Fraction

from odeum.tableaus.record import DenseOutput, RKTableau, Row, difference, root, row

IMPLICIT_EULER = RKTableau(
    name="implicit_euler",
    order=1,
    embedded_order=2,
    a=(row(), row(0, 1)),
    b=row(0, 1),
    b_error=(row("-1/2", "1/2"),),
    c=row(0, 1),
    dense=None,
    source="Curtiss & Hirschfelder, Proc. Natl. Acad. Sci. 38 (1952); embedded trapezoidal rule",
)

# The third stage is f at the middle of the cubic Hermite interpolant: Simpson's rule along it is
# what the trapezoidal rule is compared with.
TRAPEZOID = RKTableau(
    name="trapezoid",
    order=2,
    embedded_order=3,
    a=(row(), row("1/2", "1/2"), row("3/8", "1/8")),
    b=row("1/2", "1/2", 0),
    b_error=(row("1/3", "1/3", "-2/3"),),
    c=row(0, 1, "1/2"),
    dense=None,
    source="Crank & Nicolson, Proc. Camb. Phil. Soc. 43 (1947); embedded Simpson's rule",
)


def _sdirk2() -> RKTableau:
    gamma = 1 - root(2) / 2
    b = (*row(0), 1 - gamma, gamma)
    # Quadrature of order 3 through the nodes 0, gamma and 1.
    middle = 1 / (6 * gamma * (1 - gamma))
    last = (Fraction(1, 3) - gamma / 2) / (1 - gamma)
    return RKTableau(
        name="sdirk2",
        order=2,
        embedded_order=2,
        a=(row(), (*row(0), gamma), b),
        b=b,
        b_error=(difference(b, (1 - middle - last, middle, last)),),
        c=(*row(0), gamma, *row(1)),
        dense=None,
        source="Alexander, SIAM J. Numer. Anal. 14 (1977) 1006-1021",
    )


def _trbdf2() -> RKTableau:
    w = root(2) / 4
    gamma = 1 - root(2) / 2
    b = (w, w, gamma)
    return RKTableau(
        name="trbdf2",
        order=2,
        embedded_order=3,
        a=(row(), (gamma, gamma), b),
        b=b,
        b_error=(difference(b, ((1 - w) / 3, (1 + 3 * w) / 3, gamma / 3)),),
        c=(*row(0), 2 * gamma, *row(1)),
        dense=None,
        source="Bank et al., IEEE Trans. Electron Devices 32 (1985) 1992-2007; "
        "Hosea & Shampine, Appl. Numer. Math. 20 (1996) 21-37",
    )


def _kvaerno(name: str, order: int, a: tuple[Row, ...], dense: DenseOutput | None) -> RKTableau:
    """Kvaerno's pairs: the last stage advances, the one before is its embedded companion."""
    b = a[-1]
    return RKTableau(
        name=name,
        order=order,
        embedded_order=order - 1,
        a=a,
        b=b,
        b_error=(difference(b, a[-2] + row(0)),),
        c=tuple(sum(coefficients, Fraction(0)) for coefficients in a),
        dense=dense,
        source="Kvaerno, BIT 44 (2004) 489-502",
    )


SDIRK2 = _sdirk2()
TRBDF2 = _trbdf2()

# The diagonal is the root near 0.436 of x^3 - 3 x^2 + 3/2 x - 1/6, which makes R(infinity) = 0;
# the order conditions give the rest.
KVAERNO3 = _kvaerno(
    "kvaerno3",
    3,
    a=(
        row(),
        row(
            "0.4358665215084589994160194511935568425293",
            "0.4358665215084589994160194511935568425293",
        ),
        row(
            "0.4905633884217805706284679584665446902307",
            "0.07357009006976042995551259033989846723997",
            "0.4358665215084589994160194511935568425293",
        ),
        row(
            "0.30880996997674652334816246988670051092",
            "1.490563388421780570628467958466544690231",
            "-1.23523987990698609339264987954680204368",
            "0.4358665215084589994160194511935568425293",
        ),
    ),
    dense=None,
)

# The diagonal is the root near 0.573 of x^4 - 4 x^3 + 3 x^2 - 2/3 x + 1/24 (R(infinity) = 0). The
# root near 0.436 of the cubic above, sometimes seen here, damps the embedded solution instead.
# No weights of these stages make an interpolant of order 4: cubic Hermite has the order there is.
KVAERNO4 = _kvaerno(
    "kvaerno4",
    4,
    a=(
        row(),
        row(
            "0.5728160624821348554080013849767683409315",
            "0.5728160624821348554080013849767683409315",
        ),
        row(
            "0.1672354620272107507511591133648429602705",
            "-0.1429465368570341132358602362436394901147",
            "0.5728160624821348554080013849767683409315",
        ),
        row(
            "0.2626032902526958180813003558337580500634",
            "-0.3119043274205631530234673448865229892953",
            "0.4764849746857324795341656040759965983003",
            "0.5728160624821348554080013849767683409315",
        ),
        row(
            "0.197216548312834995837550286999087957007",
            "0.1768437839063721860318241625991435512418",
            "0.81544218135083844739818254520968013159",
            "-0.7623185760521804846755583797846799807703",
            "0.5728160624821348554080013849767683409315",
        ),
    ),
    dense=None,
)

# Published to 17 digits; these are the nearest coefficients that meet the order conditions, stage
# order 2 and R(infinity) = 0 exactly. Of the interpolants of degree 4 that meet all conditions
# up to order 4 and join continuously differentiably, this is the one with the smallest weights of
# the stages' states and of the first derivative: small weights of derivatives may hide large ones
# of states, and in stiff problems it is those that errors are multiplied by.
KVAERNO5 = _kvaerno(
    "kvaerno5",
    5,
    a=(
        row(),
        row(
            "0.26",
            "0.26",
        ),
        row(
            "0.13",
            "0.8403332099679080963171360487915268154051",
            "0.26",
        ),
        row(
            "0.2237196147832050559163143898290529441991",
            "0.4767553231979969983278927937270874162429",
            "-0.06470895363112615133816161180658488282681",
            "0.26",
        ),
        row(
            "0.1664856432324832152535151725360430044452",
            "0.1045001884159172041151167240328967362455",
            "0.03631482272098715161651993758285203251909",
            "-0.1309070445107399857071749645700052401819",
            "0.26",
        ),
        row(
            "0.1385564023126822495054973091161581456582",
            0,
            "-0.04245337201752043098884399725982168512523",
            "0.02446657898003141965963581513879101305561",
            "0.6194303907248067618237108730048725264114",
            "0.26",
        ),
        row(
            "0.1365975117764029144062783844146127033921",
            0,
            "-0.05496908796538376712487773114648630009105",
            "-0.04118626728321046868299776958296295741592",
            "0.6299330489901640319161060392667246534806",
            "0.06962479448202728948549107704811190063421",
            "0.26",
        ),
    ),
    dense=DenseOutput(
        order=4,
        weights=(
            row(
                1,
                "-2.131117784445953749495080768527085092971",
                "1.808625615997519156615275074712620999509",
                "-0.5409103197751624927139159217709232031468",
            ),
            row(0, 0, 0, 0),
            row(
                0,
                "0.4652499614043655587730597382834067337815",
                "-1.150376274670266186045630401152758667927",
                "0.6301572253005168601476929317228656340546",
            ),
            row(
                0,
                "-2.646677469864995150406054444752463314237",
                "5.128609870597148426080117811173074798812",
                "-2.523118668015363744357061136003574441991",
            ),
            row(
                0,
                "3.573689293697905777760448384009053205038",
                "-4.627646391435155427856472610951207796152",
                "1.683890146727413682012130266208879244595",
            ),
            row(
                0,
                "0.5741180950265442168787875999696240081983",
                "-0.8697370121249792758156108917468004138597",
                "0.3652437115804623484223143688252883062956",
            ),
            row(
                0,
                "0.1647379041821333464888394910174644601912",
                "-0.2894758083642666929776789820349289203839",
                "0.3847379041821333464888394910174644601923",
            ),
        ),
    ),
)
