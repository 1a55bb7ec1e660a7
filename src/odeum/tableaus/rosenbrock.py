"""What a Rosenbrock method is, and two of them: Rodas4 and Rodas5P.

The record is checked when constructed, as Runge-Kutta tableaus are; nothing here knows how a step
is taken. The methods are published to 16 digits; these are the nearest coefficients that meet
their order conditions (also the embedded and dense solutions') to 35.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from odeum.errors import InputError
from odeum.tableaus.record import TOLERANCE, DenseOutput, Row, row


@dataclass(frozen=True, eq=False)
class RosenbrockTableau:
    """A Rosenbrock method as data, in the form that needs no product with the Jacobian.

    One step from ``(t, y)`` with step ``h`` and Jacobian ``J = df/dy`` solves, stage by stage,

        (I - h gamma J) k_i = gamma (f(t + nodes_i h, y + h sum_j a_ij k_j) + sum_j c_ij k_j
                                     + h d_i df/dt),
        y1 = y + h sum_i m_i k_i,    error = h sum_i m_error_i k_i.

    Attributes:
        name: how ``method=`` names it.
        order: order of the solution that is advanced.
        embedded_order: order of the solution it is compared with.
        gamma: the one diagonal coefficient, so that all stages share a factorisation.
        a: weights of earlier stages in a stage's argument, row ``i`` holding ``i`` of them.
        c: weights of earlier stages beside ``f``, row ``i`` holding ``i`` of them.
        m: weights of the advanced solution.
        m_error: weights that estimate the local error.
        nodes: where in the step each stage evaluates ``f``.
        d: weights of ``df/dt``.
        dense: the continuous extension ``y + h sum_i m_i(theta) k_i``.
        source: where the coefficients are published.

    Raises:
        InputError: where shapes, nodes, ``d``, ``sum b = 1``, the error weights' sum of 0 or the
            end of the continuous extension do not fit together.

    Example:
        >>> ROSENBROCK["rodas4"].n_stages, ROSENBROCK["rodas4"].error_order
        (6, 4)

    Source:
        Hairer & Wanner, Solving Ordinary Differential Equations II (1996), IV.7.
    """

    name: str
    order: int
    embedded_order: int
    gamma: Fraction
    a: tuple[Row, ...]
    c: tuple[Row, ...]
    m: Row
    m_error: Row
    nodes: Row
    d: Row
    dense: DenseOutput
    source: str

    def __post_init__(self) -> None:
        n = self.n_stages
        self._require(self.gamma > 0, "gamma must be positive")
        for rows, letter in ((self.a, "a"), (self.c, "c")):
            triangular = [len(weights) for weights in rows] == list(range(n))
            self._require(triangular, f"{letter} must be strictly triangular")
        for given, letter in ((self.m_error, "m_error"), (self.nodes, "nodes"), (self.d, "d")):
            self._require(len(given) == n, f"{letter} must have an entry for every stage")
        for i in range(n):
            self._require_equal(sum(self.alpha[i]), self.nodes[i], f"row {i} of alpha, nodes")
            self._require_equal(sum(self.gamma_matrix[i]), self.d[i], f"row {i} of Gamma, d")
        self._require_equal(sum(self.b), 1, "sum of b, 1")
        error = _through(self.gamma_matrix, self.m_error)
        self._require_equal(sum(error), 0, "sum of the error weights, 0")
        fits = len(self.dense.weights) == n and not self.dense.extra_c
        self._require(fits, "dense output must weigh the stages and nothing else")
        for polynomial, weight in zip(self.dense.weights, self.m, strict=True):
            self._require_equal(sum(polynomial), weight, "dense output's end, m")

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise InputError(f"tableau {self.name!r}: {rule}")

    def _require_equal(self, given: Fraction | int, wanted: Fraction | int, what: str) -> None:
        self._require(abs(Fraction(given - wanted)) < TOLERANCE, f"{what} must be equal")

    @property
    def n_stages(self) -> int:
        """Number of stages of one step: linear solves and evaluations of the field."""
        return len(self.m)

    @property
    def error_order(self) -> int:
        """Power of the step size with which the error estimate shrinks."""
        return min(self.order, self.embedded_order) + 1

    @property
    def adaptive(self) -> bool:
        """Whether it estimates its error: always."""
        return True

    @property
    def interpolant(self) -> DenseOutput:
        """The continuous extension."""
        return self.dense

    @property
    def end_weights(self) -> Row:
        """Weights of the advanced solution over the interpolant's derivatives."""
        return self.m

    @cached_property
    def gamma_matrix(self) -> tuple[Row, ...]:
        """``Gamma = (I / gamma - c)^-1``, untransformed coefficients of ``J k_j``; square."""
        n = self.n_stages
        rows: list[Row] = []
        for i, weights in enumerate(self.c):
            earlier = [self.gamma * _dot(weights, (r[j] for r in rows)) for j in range(i)]
            rows.append((*earlier, self.gamma, *row(0) * (n - 1 - i)))
        return tuple(rows)

    @cached_property
    def alpha(self) -> tuple[Row, ...]:
        """``a Gamma``, the untransformed stage coefficients; square."""
        return tuple(_through(self.gamma_matrix, weights) for weights in self.a)

    @cached_property
    def b(self) -> Row:
        """``m Gamma``, the untransformed weights of the advanced solution."""
        return _through(self.gamma_matrix, self.m)


def _through(gamma_matrix: tuple[Row, ...], weights: Row) -> Row:
    """``weights Gamma``, where missing weights are 0."""
    return tuple(
        _dot(weights, (r[j] for r in gamma_matrix[: len(weights)]))
        for j in range(len(gamma_matrix))
    )


def _dot(weights: Row, values: Iterable[Fraction]) -> Fraction:
    return sum((w * x for w, x in zip(weights, values, strict=True)), Fraction())


_RODAS4_LAST = row(
    "1.221224509226642634061285422747931696697",
    "6.019134481288632135771070655760615222055",
    "12.53708332932087213478263086468871362428",
    "-0.6878860361058952291601939009272757837877",
)
RODAS4 = RosenbrockTableau(
    name="rodas4",
    order=4,
    embedded_order=3,
    gamma=Fraction("0.25"),
    a=(
        row(),
        row("1.544"),
        row(
            "0.9466785280815824749151410244937073248382",
            "0.2557011698983280798541251785563454574261",
        ),
        row(
            "3.314825187068521124179945026181512333992",
            "2.896124015972202078141075532903767328408",
            "0.9986419139977816010157287104974381531877",
        ),
        _RODAS4_LAST,
        _RODAS4_LAST + row(1),
    ),
    c=(
        row(),
        row("-5.6688"),
        row(
            "-2.430093356833874700336723397148054879766",
            "-0.2063599157091915156680810094632187913849",
        ),
        row(
            "-0.1073529058151374834950227390453871317286",
            "-9.594562251023359931290161121389612475466",
            "-20.47028614809615526531215575072067437931",
        ),
        row(
            "7.496443313967648191860951946604524397707",
            "-10.24680431464352522710136639130039631232",
            "-33.99990352819905235070158534266789222948",
            "11.70890893206159698492531542258661848206",
        ),
        row(
            "8.083246795921523237672456761246983713643",
            "-7.981132988064897336700667400363452514424",
            "-31.52159432874371198337301716156240377857",
            "16.31930543123136495461012497093771366252",
            "-6.058818238834053997290542229415206124985",
        ),
    ),
    m=_RODAS4_LAST + row(1, 1),
    m_error=row(0, 0, 0, 0, 0, 1),
    nodes=row(0, "0.386", "0.21", "0.63", 1, 1),
    d=row("0.25", "-0.1043", "0.1035", "-0.0362", 0, 0),
    dense=DenseOutput(
        order=3,
        weights=(
            row(
                "11.3474595926725039853650186137574479704",
                "-10.8025154227259865636720238045906852626",
                "0.6762803392801252123682906135811689888958",
            ),
            row(
                "-1.468861396321539939240026584823524354641",
                "13.57571052929018770453099698261881244637",
                "-6.087714651680015629519899742034672869673",
            ),
            row(
                "-22.26383528623659282342036397006235196145",
                "51.23176182448222489521352893378530571004",
                "-16.43084320892475993701053409903424012431",
            ),
            row(
                "-8.680657743674716718785034383010990199448",
                "32.75999682175268116447545050309297478404",
                "-24.76722511418385967485061002100926036838",
            ),
            row(
                "2.02513772329566196017549108767319150791",
                "-7.619526849012534714199728174811216700229",
                "6.594389125716872754024237087138025192319",
            ),
            row(1, 0, 0),
        ),
    ),
    source="Hairer & Wanner, Solving Ordinary Differential Equations II (1996), IV.7 and VI.4",
)

_RODAS5P_LAST = row(
    "-7.502846399306421977188965844484733399096",
    "2.56184614480390639500928850526154261",
    "-11.6275396562610564069771245297671181743",
    "-0.1826876765994196069968367143514364233341",
    "0.03019817200837797167941640017776511729913",
)
RODAS5P = RosenbrockTableau(
    name="rodas5p",
    order=5,
    embedded_order=4,
    gamma=Fraction("0.21193756319429014"),
    a=(
        row(),
        row(3),
        row(
            "2.849394379747988007053468329673612713952",
            "0.4584224220446513119571907333538753848021",
        ),
        row(
            "-6.954028509809417707558914049318277837738",
            "2.489845061869559305513249258391303727861",
            "-10.35899609847360066290089984279343585659",
        ),
        row(
            "2.802998627562862288884520215162274526847",
            "0.5072464736228223952599706856278970960614",
            "-0.3988312541770661834099329470545494149575",
            "-0.047211872304045900958745669262503798179",
        ),
        _RODAS5P_LAST,
        _RODAS5P_LAST + row(1),
        _RODAS5P_LAST + row(1, 1),
    ),
    c=(
        row(),
        row("-14.15511226412375637483232925825392392517"),
        row(
            "-17.97296035885976484434305635669419154462",
            "-2.85969329545135325112544220105738696609",
        ),
        row(
            "147.1215027571182407878564747997722760455",
            "-1.412214027182096596212066101554366207185",
            "71.68940251302330814119256226275109626546",
        ),
        row(
            "165.4351702487138442699669576003068472424",
            "-0.45928234564911093612335429785941416545",
            "42.90938336958552135254585821885017277411",
            "-5.961986721573165212075076594513852769505",
        ),
        row(
            "24.85486461469118214738543357239904727229",
            "-3.000922700283230874084434095079070839042",
            "47.49311100207623655913515978921918000958",
            "5.581419782155763834622986518730986830603",
            "-0.661069182524952480873281472657874354145",
        ),
        row(
            "30.91273214028645445845969649408448609945",
            "-3.120824334993841448461385907369108254707",
            "77.79954646070772821190651598174550194302",
            "34.28646028294787952502036436501647370874",
            "-19.09733111672596058351746878611433056226",
            "-28.08794316287276266918233244309670314778",
        ),
        row(
            "37.80277123390515431144408593540288877448",
            "-3.257196902907317932560318100812019412801",
            "112.2691884949616173192123077879430557934",
            "66.93472312440546457438306768062953506139",
            "-40.06618937091115216651387354197923282352",
            "-54.66780262878034895803129147188035736334",
            "-9.488616523096226508556645085975780514408",
        ),
    ),
    m=_RODAS5P_LAST + row(1, 1, 1),
    m_error=row(0, 0, 0, 0, 0, 0, 0, 1),
    nodes=row(
        0,
        "0.63581268958287042",
        "0.4095798393397586997262803350883465587574",
        "0.9769306725060713294417827471957288935054",
        "0.4288403609558673288120565027298613408183",
        1,
        1,
        1,
    ),
    d=row(
        "0.21193756319429014",
        "-0.42387512638858028",
        "-0.3384627126235978873699878664693657129669",
        "1.804645287288254692162193393487107298547",
        "2.325825639765001836926189376167355861583",
        0,
        0,
        0,
    ),
    dense=DenseOutput(
        order=4,
        weights=(
            row(
                "18.44594045735786332389344834879480082226",
                "-35.86447536361696885488852485264640692091",
                "21.33559208287422623036370796573838761438",
                "-11.41990357592154267655759730637151491483",
            ),
            row(
                "0.003873660219303279966778715268658219772245",
                "1.588978025173064299545171743640397371171",
                "3.856958974025207419960443033782487139023",
                "-2.887964514613668604463104987430000119966",
            ),
            row(
                "-1.193724251372106209987790124061519334666",
                "-7.390011680591078319710105565630612561751",
                "69.87757623565969823687887240230508460301",
                "-72.9213799599575701141581012423800708809",
            ),
            row(
                "-2.550612778867947660792547140358572867408",
                "-22.12729946394736890756665558126608139136",
                "104.6203429124412008483438767183726943729",
                "-80.12511834622530388698151071109947653743",
            ),
            row(
                "0.555146713329452786577709560525943241295",
                "19.65118979338844584370902327221731398026",
                "-72.24900970086225534301903826546616166947",
                "52.07287136615273468441172183290066956522",
            ),
            row(
                "2.124108831045054376518661653210596955904",
                "14.85655478320146650489054194137618864622",
                "-75.77059986691296742695277385606804715318",
                "59.78993625266644654554357026148126155106",
            ),
            row(
                "1.427287619443170170475585878217108771517",
                "-7.216327922863016351447187525570451048803",
                "6.633213460592326712441682984159784303103",
                "0.1558268428275194685299186631935579741833",
            ),
            row(
                "0.8279777892984450699999999996486449387868",
                "-6.538213859221817069999999993917041215005",
                "11.59332325563709400000000005800911503695",
                "-4.883087185713722000000000063740718760727",
            ),
        ),
    ),
    source="Steinebach, BIT Numer. Math. 63 (2023), 27",
)

ROSENBROCK = {tableau.name: tableau for tableau in (RODAS4, RODAS5P)}
