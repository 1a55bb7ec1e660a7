"""Small linear systems, one for each row: Gaussian elimination with partial pivoting, written out.

Rows of a batch pivot differently, so a pivot is not moved by a branch but by comparing and
exchanging whole equations lane by lane.
"""

from itertools import product

from odeum.compile.emit.code import Code
from odeum.compile.emit.places import Layout, Place
from odeum.compile.emit.values import Value, where


def emit_solve(code: Code, layout: Layout, matrix: Place, right: Place, result: Place) -> None:
    """``result`` with ``matrix @ result = right`` over batches.

    Args:
        code: the function.
        layout: how rows are laid over vectors.
        matrix: [*batch, n, n]; singular ones give infinities or NaN.
        right: [*batch, n, m].
        result: [*batch, n, m].
    """
    *batch, n, m = right.shape
    for index in product(*(range(length) for length in batch)):
        for register in range(layout.registers):
            equations = [
                [matrix.load(code, layout, (*index, i, j), register) for j in range(n)]
                + [right.load(code, layout, (*index, i, j), register) for j in range(m)]
                for i in range(n)
            ]
            for i, unknowns in enumerate(_solved(equations)):
                for j, x in enumerate(unknowns):
                    result.store(code, layout, x, (*index, i, j), register)


def _solved(equations: list[list[Value]]) -> list[list[Value]]:
    """The unknowns of ``[A | B]``, [n, m]."""
    n = len(equations)
    for pivot in range(n):
        for below in range(pivot + 1, n):
            larger = abs(equations[below][pivot]) > abs(equations[pivot][pivot])
            pairs = list(zip(equations[pivot], equations[below], strict=True))
            equations[pivot] = [where(larger, b, a) for a, b in pairs]
            equations[below] = [where(larger, a, b) for a, b in pairs]
        inverse = 1.0 / equations[pivot][pivot]
        for below in range(pivot + 1, n):
            factor = equations[below][pivot] * inverse
            equations[below] = [
                x if column <= pivot else x - factor * y
                for column, (x, y) in enumerate(
                    zip(equations[below], equations[pivot], strict=True)
                )
            ]
    unknowns: list[list[Value]] = [[] for _ in range(n)]
    for i in reversed(range(n)):
        for column in range(n, len(equations[i])):
            total = equations[i][column]
            for j in range(i + 1, n):
                total = total - equations[i][j] * unknowns[j][column - n]
            unknowns[i].append(total / equations[i][i])
    return unknowns
