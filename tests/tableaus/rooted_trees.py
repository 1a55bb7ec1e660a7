"""Rooted trees and the order conditions they state (Butcher; Hairer, Norsett & Wanner I, II.2).

A tree is the sorted tuple of its root's subtrees; the single node is ``()``. A method with
weights ``b`` has order p when ``b . phi(tree) = 1 / gamma(tree)`` for all trees of up to p nodes.
"""

from functools import cache

Tree = tuple


@cache
def order(tree: Tree) -> int:
    return 1 + sum(order(subtree) for subtree in tree)


@cache
def gamma(tree: Tree) -> int:
    density = order(tree)
    for subtree in tree:
        density *= gamma(subtree)
    return density


@cache
def forests(n_nodes: int, largest: int) -> tuple[tuple[Tree, ...], ...]:
    """Every multiset of trees of ``n_nodes`` nodes in total, each of at most ``largest``."""
    if n_nodes == 0:
        return ((),)
    found = set()
    for size in range(1, min(n_nodes, largest) + 1):
        for tree in trees(size):
            for rest in forests(n_nodes - size, size):
                found.add(tuple(sorted((tree, *rest))))
    return tuple(sorted(found))


@cache
def trees(n_nodes: int) -> tuple[Tree, ...]:
    """Every rooted tree with ``n_nodes`` nodes: 1, 1, 2, 4, 9, 20, 48, 115, 286 of them."""
    return forests(n_nodes - 1, n_nodes - 1)


def trees_up_to(n_nodes: int) -> list[Tree]:
    return [tree for size in range(1, n_nodes + 1) for tree in trees(size)]


class Weights:
    """Elementary weights ``phi(tree)`` per stage for a square matrix ``a``, each computed once."""

    def __init__(self, a):
        self.a = a
        self.n_stages = len(a)
        self._phi = {}

    def phi(self, tree: Tree) -> list:
        if tree not in self._phi:
            product = [1] * self.n_stages
            for subtree in tree:
                inner = self.phi(subtree)
                product = [
                    value * sum(aij * x for aij, x in zip(row, inner, strict=True) if aij)
                    for value, row in zip(product, self.a, strict=True)
                ]
            self._phi[tree] = product
        return self._phi[tree]

    def sum(self, weights, tree: Tree):
        return sum(w * x for w, x in zip(weights, self.phi(tree), strict=True) if w)
