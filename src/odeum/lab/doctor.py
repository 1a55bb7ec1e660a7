"""What odeum runs on, and whether it solves and differentiates right there.

Owns the self-check: a solve and its gradient on every device, against the exact solution.
"""

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch

from odeum.api import solve
from odeum.systems import spiral

PACKAGES = ("odeum", "torch", "numpy", "scipy", "pandas", "matplotlib", "typer", "rich", "jinja2")

LARGEST_ERROR = 1e-6
"""Of the self-check, solved to 1e-9: what a right machine never reaches."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: what was looked at.
        text: what was found.
        ok: False where something is broken.
    """

    topic: str
    text: str
    ok: bool = True


def examine() -> list[Finding]:
    """Versions, devices, threads, then a self-check on every device.

    Example:
        >>> all(finding.ok for finding in examine())
        True
    """
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    findings = [
        Finding("python", f"{platform.python_version()} at {sys.executable}"),
        Finding("system", system),
    ]
    findings += [_version(package) for package in PACKAGES]
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    gpus = [f"{device} {torch.cuda.get_device_name(device)}" for device in devices[1:]]
    findings += [
        Finding("devices", ", ".join(["cpu", *gpus]) if gpus else "cpu; torch finds no CUDA GPU"),
        Finding("threads", _threads()),
    ]
    return findings + [self_check(device) for device in devices]


def self_check(
    device: str, exact: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
) -> Finding:
    """Solve the spiral in float64 and compare states and gradient with the exact ones.

    Args:
        device: where, as torch names it.
        exact: ``(t, y0) -> [time, batch, dim]`` to compare with; the spiral's own if None.

    Returns:
        The finding; not ok where the largest error exceeds 1e-6, or the solve itself fails.

    Example:
        >>> self_check("cpu").ok
        True
    """
    system = spiral()
    truth = exact or system.exact
    assert truth is not None
    topic = f"self-check on {device}"
    try:
        y0 = torch.tensor([[2.0, 0.0], [0.5, -1.0]], dtype=torch.float64, device=device)
        ts = torch.linspace(0, 10, 21, dtype=torch.float64, device=device)
        states: list[torch.Tensor] = []
        gradients: list[torch.Tensor] = []
        for way in (lambda t, y: solve(system, y, t, rtol=1e-9, atol=1e-9).ys, truth):
            start = y0.clone().requires_grad_()
            ys = way(ts, start)
            gradients += torch.autograd.grad(ys.square().sum(), start)
            states.append(ys.detach())
    except RuntimeError as error:
        return Finding(topic, f"failed: {str(error).splitlines()[0]}", ok=False)
    errors = [float((x[0] - x[1]).abs().max()) for x in (states, gradients)]
    text = f"solution within {errors[0]:.0e} and gradient within {errors[1]:.0e} of the exact ones"
    # Written so that NaN fails too.
    ok = all(error <= LARGEST_ERROR for error in errors)
    return Finding(topic, text if ok else f"wrong: {text}", ok)


def _version(package: str) -> Finding:
    try:
        return Finding(package, metadata.version(package))
    except metadata.PackageNotFoundError:
        return Finding(package, "not installed", ok=False)


def _threads() -> str:
    variables = [
        f"{name}={os.environ[name]}"
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        if name in os.environ
    ]
    said = f" ({', '.join(variables)})" if variables else ""
    return f"torch uses {torch.get_num_threads()} of {os.cpu_count()}{said}"
