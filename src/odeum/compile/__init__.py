"""The fused engine: a whole solve in one compiled kernel, in pipeline order from trace to runtime.

Loaded when it is first used; nothing outside this package knows how a kernel comes about.
"""

from odeum.compile.explain import Explanation, explain, show

__all__ = ["Explanation", "explain", "show"]
