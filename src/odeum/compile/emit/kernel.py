"""What a kernel is compiled for, and the memory it shares with those who call it."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from llvmlite import ir

from odeum.compile.emit.blocks import Fields
from odeum.compile.emit.code import I32, I64, POINTER, Code, bytes_of, vector_of
from odeum.compile.emit.places import Layout
from odeum.compile.emit.values import DOUBLE, Value
from odeum.compile.ir import VIEWS, Graph, Node
from odeum.control import Controller
from odeum.tableaus import RKTableau

RUNNING = -1
"""In place of a Status: the row goes on."""

NO_TIMES = -2
"""In place of a Status: the row's output times are not strictly monotone, or not finite."""

IDLE = -3
"""In place of a Status: the lane has no row."""

NOT_CUT = -1
"""In place of an output's index: the step was not cut to land on one."""


@dataclass(frozen=True)
class Derivatives:
    """The derivatives of a step in the order in which they are evaluated.

    First the stages, then ``f(t1, y1)`` where the last stage is not that already, then those that
    only the dense output needs.

    Attributes:
        rows: what each weighs of those before it.
        nodes: the fraction of the step at which each is evaluated.
        n_stages: how many are stages.
        n_extra: how many only the dense output needs.
        end: which is ``f(t1, y1)``.
        b: weights of ``y1``.
    """

    rows: tuple[tuple[float, ...], ...]
    nodes: tuple[float, ...]
    n_stages: int
    n_extra: int
    end: int
    b: tuple[float, ...]

    @staticmethod
    def of(tableau: RKTableau) -> "Derivatives":
        """Those of a method."""
        rows: list[tuple[Fraction, ...]] = list(tableau.a)
        nodes = list(tableau.c)
        end = tableau.n_stages - 1
        if not tableau.first_same_as_last:
            end = tableau.n_stages
            rows.append(tableau.b)
            nodes.append(Fraction(1))
        interpolant = tableau.interpolant
        rows += interpolant.extra_a
        nodes += interpolant.extra_c
        return Derivatives(
            tuple(tuple(float(x) for x in row) for row in rows),
            tuple(float(c) for c in nodes),
            tableau.n_stages,
            len(interpolant.extra_c),
            end,
            tuple(float(x) for x in tableau.b),
        )

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.rows)

    @property
    def n_without_extra(self) -> int:
        """How many there are without those of the dense output."""
        return self.n - self.n_extra

    @property
    def first_same_as_last(self) -> bool:
        """Whether a stage is ``f(t1, y1)``."""
        return self.end < self.n_stages

    def is_optional(self, j: int) -> bool:
        """Whether a derivative is no stage: it may not be evaluated in a step's every lane."""
        return j >= self.n_stages


@dataclass(frozen=True)
class Program:
    """The graphs of a field.

    Attributes:
        forward: the derivative, "f".
        recording: the same with what ``backward`` needs of it; None without gradients.
        backward: cotangents "state", "time" and those of shared and row inputs by name.
    """

    forward: Graph
    recording: Graph | None = None
    backward: Graph | None = None

    @property
    def shared(self) -> list[Node]:
        """Inputs that all rows share."""
        return self.forward.of_role("shared")

    @property
    def row(self) -> list[Node]:
        """Inputs of which each row has its own."""
        return self.forward.of_role("row")

    @property
    def saved(self) -> list[Node]:
        """What a recorded evaluation keeps."""
        return [] if self.backward is None else self.backward.of_role("saved")

    def wanted(self, role: str) -> list[Node]:
        """Inputs of a role that get a gradient."""
        outputs: Mapping[str, Node] = {} if self.backward is None else self.backward.outputs
        return [node for node in self.forward.of_role(role) if node.name in outputs]


@dataclass(frozen=True)
class Spec:
    """What a kernel is compiled for.

    Attributes:
        program: the field.
        tableau: the method.
        controller: constants of the step-size control; None where steps are fixed.
        lands_on_outputs: whether a step ends on every output time, or on the last alone.
        per_row_times: whether each row has its own output times.
        dim: numbers in a state.
        layout: how rows are laid over vectors.
        time: the floating-point type of times.
        records: whether steps are recorded for a backward sweep.
        dense: whether they are kept for a dense output.
        wants_times: whether output times want a gradient.
    """

    program: Program
    tableau: RKTableau
    controller: Controller | None
    lands_on_outputs: bool
    per_row_times: bool
    dim: int
    layout: Layout
    time: ir.Type
    records: bool
    dense: bool
    wants_times: bool

    @property
    def derivatives(self) -> Derivatives:
        """Those of the method."""
        return Derivatives.of(self.tableau)

    @property
    def times(self) -> ir.Type:
        """The type of one register of times."""
        return vector_of(self.time, self.layout.width)

    @property
    def integers(self) -> ir.Type:
        """The type of one register of whole numbers."""
        return vector_of(I32, self.layout.width)

    @property
    def group(self) -> Fields:
        """What is known of the rows in a thread's lanes between one call and the next."""
        layout = self.layout
        n, lane = layout.registers, layout.lane
        return Fields.of(
            rows=(vector_of(I64, layout.width), n),
            t=(self.times, n),
            h=(self.times, n),
            end=(self.times, n),
            stop=(self.times, n),
            next=(self.times, n),  # the next output time, infinite after the last
            direction=(self.times, n),
            y=(lane, n * self.dim),
            k=(lane, n * self.dim),
            ratio=(lane, n),  # scaled errors of the last two steps
            ratio_before=(lane, n),
            status=(self.integers, n),
            index=(self.integers, n),  # of the next output time
            stop_index=(self.integers, n),
            n_evaluations=(self.integers, n),
            n_accepted=(self.integers, n),
            n_rejected=(self.integers, n),
            met_non_finite=(self.integers, n),
            numbers=(I64, 3),  # BEGUN, TAKEN and RECORDED of groups.py
            row=(lane, n * sum(node.size for node in self.program.row)),
            # Row inputs in a step that not all rows take, see the backward sweep.
            row_alike=(lane, n * sum(node.size for node in self.program.row) * self.records),
            g_rows=(vector_of(I64, layout.width), n),  # -1 before the first
            g_index=(self.integers, n),
            g_y=(lane, n * self.dim * self.records),
            g_k=(lane, n * self.dim * self.records),
            g_t=(self.times, n * self.records),
            g_row=(lane, n * sum(x.size for x in self.program.wanted("row")) * self.records),
        )

    @property
    def keeps_steps(self) -> bool:
        """Whether steps are kept at all."""
        return self.records or self.dense

    @property
    def record(self) -> Fields:
        """What is kept of one tried step of all lanes; steps not accepted have size zero."""
        n, lane = self.layout.registers, self.layout.lane
        return Fields.of(
            rows=(self.integers, n),
            t=(self.times, n),
            h=(self.times, n),
            t1=(self.times, n * self.dense),
            stop_index=(self.integers, n),
            y=(lane, n * self.dim),
            k=(lane, n * self.dim),
            ks=(lane, n * self.dim * self.derivatives.n * self.dense),
        )

    @property
    def thread(self) -> Fields:
        """Gradients of what rows share, as one thread adds them up.

        Of a whole register each, or, where they are outer products, of all rows together.
        """
        return Fields.of(
            **{
                node.name: (
                    self.layout.real if self.is_outer(node) else self.layout.lane,
                    node.size,
                )
                for node in self.program.wanted("shared")
            }
        )

    @property
    def stack_size(self) -> int:
        """About how many bytes of stack a thread takes."""
        number = bytes_of(self.layout.lane) * self.layout.registers
        derivatives = self.derivatives.n
        graphs = (self.program.forward, self.program.recording, self.program.backward)
        sizes = [
            sum(x.size for x in graph.nodes() if x.op != "input" and x.op not in VIEWS)
            for graph in graphs
            if graph is not None
        ]
        # Stages, what each leaves for its way back, and the deepest call.
        own = 4 * derivatives * self.dim
        if self.records:
            matrices = [x for x in self.program.wanted("shared") if self.is_outer(x)]
            factors = sum(sum(x.shape) for x in matrices)
            turned = max((x.shape[1] for x in matrices), default=0)
            own += derivatives * (sum(x.size for x in self.program.saved) + factors + turned)
        return number * (own + max(sizes))

    def is_outer(self, node: Node) -> bool:
        """Whether the gradient of an input is an outer product for each row and stage."""
        assert self.program.backward is not None
        gradient = self.program.backward.outputs[node.name]
        return gradient.op == "matmul" and gradient.inputs[0].shape == (node.shape[0], 1)


ARGUMENTS = (
    *("n_rows", "n_times", "n_threads", "dealt", "n_tries", "max_steps", "capacity"),
    *("n_unfinished", "n_failed", "most_recorded", "first_call", "last_call"),
    *("parallel", "team_size", "team_number"),
    *("ts", "y0", "ys", "groups", "tape", "threads"),
    *("rtol", "atol", "sizes", "shared", "row"),
    *("status", "n_evaluations", "n_accepted", "n_rejected", "n_reached", "n_back"),
    *("row_t", "row_h", "row_y", "row_k"),
    *("g_ys", "g_y0", "g_ts", "g_shared", "g_row"),
)
"""What an entry point is handed: an array of these numbers and addresses.

Of each row: how it ended, its counts, the outputs it reached, the evaluations of its way back, and
where it was when it failed. From ``row_h`` and ``row_k`` it starts: its first step and derivative.
On its way back, cotangents of its initial derivative and time gather in ``row_k`` and ``row_t``.
Of torch's threads: OpenMP's functions, zeros where there is none.
"""

SIZES = ("first", "max", "min", "fixed")
"""Bounds on step sizes, in the array ``sizes``; a first step of zero is chosen."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of an entry point.

    Attributes:
        code: the function that reads them.
        pointer: the array.
    """

    code: Code
    pointer: ir.Value

    def number(self, name: str) -> ir.Value:
        """One that is a whole number."""
        return self.code.load(self.pointer, I64, ARGUMENTS.index(name)).value

    def address(self, name: str) -> ir.Value:
        """One that is an address."""
        return self.code.load(self.pointer, POINTER, ARGUMENTS.index(name)).value

    def count(self, name: str, n: ir.Value) -> None:
        """Adds to one that all threads add to."""
        self._update("add", name, n)

    def raise_to(self, name: str, n: ir.Value) -> None:
        """The most that any thread has said."""
        self._update("max", name, n)

    def _update(self, operation: str, name: str, n: ir.Value) -> None:
        where = self.code.at(self.pointer, I64, ARGUMENTS.index(name))
        self.code.builder.atomic_rmw(operation, where, n, "monotonic")

    def size(self, name: str) -> Value:
        """A bound on step sizes."""
        return self.code.load(self.address("sizes"), DOUBLE, SIZES.index(name))

    def entry(self, table: str, index: int) -> ir.Value:
        """An address in a table of addresses."""
        return self.code.load(self.address(table), POINTER, index).value
