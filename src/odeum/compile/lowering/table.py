"""The table of torch's operations: which rule makes nodes of which.

A rule is called as torch's operation is, with a builder first, nodes for tensors, and returns a
node, or a tuple with something for each of the operation's results.
"""

from collections.abc import Callable
from typing import Any

import torch

from odeum.compile.build import Builder
from odeum.compile.ir import Node

Rule = Callable[..., Any]


class Unsupported(Exception):
    """An operation has no rule for what it was given; the message says why, in a few words."""


RULES: dict[str, Rule] = {}
"""By the name of the operation, without the overload."""

RAW: set[str] = set()
"""Operations whose rules are given constant tensors as they are, not as nodes."""


def lowers(*names: str, raw: bool = False) -> Callable[[Rule], Rule]:
    """Enters a rule for the operations of those names."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f"two rules for {name}"
            RULES[name] = rule
            if raw:
                RAW.add(name)
        return rule

    return enter


def constant_of(b: Builder, tensor: torch.Tensor) -> Node:
    """A tensor whose value is known when the field is traced."""
    if tensor.dtype is not torch.bool:
        tensor = tensor.to(torch.float64)
    if tensor.numel() and bool((tensor == tensor.reshape(-1)[0]).all()):
        return b.constant(tensor.reshape(-1)[0].item(), tuple(tensor.shape))
    return b.constant(_tuples(tensor.tolist()), tuple(tensor.shape))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def number(x: Any, what: str) -> float:
    """An argument that has to be a number.

    Raises:
        Unsupported: where it is not.
    """
    if isinstance(x, int | float):
        return x
    if isinstance(x, Node) and x.op == "constant" and x.size == 1:
        value = x.attributes["value"]
        while isinstance(value, tuple):
            value = value[0]
        return value
    raise Unsupported(f"takes {what} that is known when the field is traced")
