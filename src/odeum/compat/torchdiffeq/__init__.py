"""torchdiffeq 0.2.5 on odeum's engine: the same names, arguments, defaults, options and semantics.

Replace ``import torchdiffeq`` by ``from odeum.compat import torchdiffeq``. The whole state is one
system with one step size, as there. What differs: the methods of torchdiffeq's later versions are
known too, with the right coefficients (``gl4`` at its two Gauss nodes, ``tsit5`` advancing its
fifth-order weights); ``dopri8`` is DOP853; errors are odeum's, and also of the class that
torchdiffeq raises; events may have parameters.
"""

from odeum.compat.torchdiffeq.adjoint import odeint_adjoint
from odeum.compat.torchdiffeq.events import odeint_event
from odeum.compat.torchdiffeq.odeint import odeint, odeint_dense

__version__ = "0.2.5"

__all__ = ["odeint", "odeint_adjoint", "odeint_dense", "odeint_event"]
