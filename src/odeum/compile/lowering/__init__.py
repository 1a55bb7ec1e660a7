"""From torch's operations to nodes, by a table; what is not in it is refused by name."""

from odeum.compile.lowering import activations, places, pointwise, products, reductions, views
from odeum.compile.lowering.table import RAW, RULES, Unsupported, constant_of

__all__ = [
    "RAW",
    "RULES",
    "Unsupported",
    "activations",
    "constant_of",
    "places",
    "pointwise",
    "products",
    "reductions",
    "views",
]
