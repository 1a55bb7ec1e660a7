"""What is measured: which field, how many rows, which times and tolerance, and what it must show.

Knows no library: `odeum.lab.bench.entrants` has those.
"""

from dataclasses import dataclass

import torch
from torch import nn

from odeum.errors import unknown_name
from odeum.lab.bench.fields import Flow, Hamiltonian, Lorenz, Mlp
from odeum.types import Tensor

FIELDS = {"mlp": Mlp, "hamiltonian": Hamiltonian, "flow": Flow}


@dataclass(frozen=True)
class Workload:
    """A solve that every library does in its own way.

    Attributes:
        name: a short name of one word.
        title: what it is, for a table.
        field: "mlp", "hamiltonian", "flow" or "lorenz".
        sizes: of the field's network.
        dim: numbers in a row's state.
        n_rows: rows solved at once.
        n_times: output times, over [0, ``t1``].
        t1: the last of them.
        tolerance: relative and absolute.
        dtype: of states, times and weights.
        gradient: whether the mean square of all outputs is differentiated to all parameters.
        max_steps: more steps than any row takes, for libraries that must know.
        targets: how many times faster than an entrant odeum is to be, by the entrant's name.
        n_checked: rows whose states are compared with the reference.
    """

    name: str
    title: str
    field: str
    sizes: tuple[int, ...]
    dim: int
    n_rows: int
    n_times: int = 32
    t1: float = 5.0
    tolerance: float = 1e-6
    dtype: torch.dtype = torch.float32
    gradient: bool = False
    max_steps: int = 64
    targets: tuple[tuple[str, float], ...] = ()
    n_checked: int = 4096


@dataclass(frozen=True)
class Case:
    """A workload with its numbers drawn.

    Attributes:
        workload: what it is.
        field: in the workload's dtype; its parameters want gradients if the workload does.
        y0: [batch, dim].
        ts: [time].
    """

    workload: Workload
    field: nn.Module
    y0: Tensor
    ts: Tensor


def draw(workload: Workload) -> Case:
    """The workload's field and initial states, the same in every process.

    Example:
        >>> draw(find("mlp-1")).y0.shape
        torch.Size([1, 2])
    """
    sizes = workload.sizes
    field = Lorenz() if workload.field == "lorenz" else FIELDS[workload.field](sizes)
    generator = torch.Generator().manual_seed(1)
    y0 = torch.randn(workload.n_rows, workload.dim, generator=generator, dtype=torch.float64)
    ts = torch.linspace(0, workload.t1, workload.n_times, dtype=torch.float64)
    field = field.to(workload.dtype).requires_grad_(workload.gradient)
    return Case(workload, field, y0.to(workload.dtype), ts.to(workload.dtype))


def find(name: str) -> Workload:
    """A workload by its name.

    Raises:
        InputError: for an unknown name.
    """
    if name not in WORKLOADS:
        raise unknown_name("workload", name, WORKLOADS)
    return WORKLOADS[name]


def _mlp(n_rows: int, *targets: tuple[str, float], gradient: bool = False) -> Workload:
    return Workload(
        name=f"mlp-{n_rows}{'-gradient' if gradient else ''}",
        title=f"MLP 2-64-64-2, {n_rows} row{'s' if n_rows > 1 else ''}",
        field="mlp",
        sizes=(2, 64, 64, 2),
        dim=2,
        n_rows=n_rows,
        gradient=gradient,
        targets=targets,
    )


_BOTH = ("diffrax, whole batch", "diffrax, vmap")

_ALL = (
    _mlp(128, *((name, 2.0) for name in _BOTH)),
    _mlp(
        128,
        *((name, 2.5) for name in _BOTH),
        ("torchdiffeq, backprop", 12.0),
        ("torchdiffeq, adjoint", 100.0),
        gradient=True,
    ),
    _mlp(1, *((name, 2.0) for name in _BOTH)),
    _mlp(1, *((name, 2.0) for name in _BOTH), gradient=True),
    _mlp(4096, ("diffrax, vmap", 2.5)),
    _mlp(4096, ("diffrax, vmap", 5.0), gradient=True),
    Workload(
        name="mlp-20-gradient",
        title="MLP 6-30-30-6, 20 rows, float64",
        field="mlp",
        sizes=(6, 30, 30, 6),
        dim=6,
        n_rows=20,
        n_times=10,
        t1=0.18,
        tolerance=1e-8,
        dtype=torch.float64,
        gradient=True,
        targets=(*((name, 3.0) for name in _BOTH), ("heyoka, variational, 1 thread", 300.0)),
    ),
    Workload(
        name="lorenz",
        title="Lorenz, 10 000 rows, float64",
        field="lorenz",
        sizes=(),
        dim=3,
        n_rows=10_000,
        n_times=101,
        t1=10.0,
        dtype=torch.float64,
        max_steps=4096,
        targets=(("diffrax, vmap", 15.0), ("heyoka, batch, 1 thread", 1.0)),
        n_checked=64,
    ),
    Workload(
        name="hamiltonian-gradient",
        title="Hamiltonian network 2-32-1, 128 rows",
        field="hamiltonian",
        sizes=(2, 32, 1),
        dim=2,
        n_rows=128,
        gradient=True,
        targets=tuple((name, 2.0) for name in _BOTH),
    ),
    Workload(
        name="flow-gradient",
        title="exact-trace flow 3-32-2, 128 rows",
        field="flow",
        sizes=(3, 32, 2),
        dim=3,
        n_rows=128,
        t1=1.0,
        gradient=True,
        targets=tuple((name, 2.0) for name in _BOTH),
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}
"""All workloads by name."""
