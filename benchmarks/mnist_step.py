"""One training step of the ODE-Net of ``odeum run mnist``: odeum against torchdiffeq, one run.

    python benchmarks/mnist_step.py                    # weights as they are drawn
    python benchmarks/mnist_step.py --trained 100      # after so many steps of training
    python benchmarks/mnist_step.py --threads 1 --rounds 3

Forward, loss and backpropagation of a batch of 128 digits of MNIST (found as `odeum.datasets.mnist`
finds them) in float32; the same network, weights, batch and tolerance for everyone. Ratios are
medians over rounds in which everyone takes a turn, against torchdiffeq's `odeint_adjoint`. Errors
are those of the gradient of all weights, relative, against odeum's discrete gradient by dopri8 at
1e-6 (float32 has no more). `torchdiffeq` is odeum's extra `bench`.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torchdiffeq
from against_torchdiffeq import seconds
from torch.nn import functional

from odeum.datasets import mnist
from odeum.lab.experiments.mnist_networks import ode_net
from odeum.memory import PeakMemory
from odeum.models import ODEClassifier

THEIRS = {
    "torchdiffeq adjoint": torchdiffeq.odeint_adjoint,
    "torchdiffeq": torchdiffeq.odeint,
}
OURS = {
    "odeum adjoint": {"gradient": "adjoint"},
    "odeum discrete": {"gradient": "discrete"},
    "odeum discrete, dopri5": {"gradient": "discrete", "method": "dopri5"},
    "odeum discrete, bosh3": {"gradient": "discrete", "method": "bosh3"},
    "odeum discrete, rows": {"gradient": "discrete", "coupling": "independent"},
    "odeum autograd": {"gradient": "autograd"},
}


def learn(model: ODEClassifier, name: str, x: torch.Tensor, labels: torch.Tensor, tol: float):
    """One training step without the optimiser's; leaves the gradient in the weights."""
    model.zero_grad()
    if name in THEIRS:
        y0 = model.encoder(x)
        ts = y0.new_tensor([0.0, 1.0])
        field = model.block.field
        state = THEIRS[name](field, y0, ts, method="dopri5", rtol=tol, atol=tol)[-1]
        functional.cross_entropy(model.head(state), labels).backward()
    else:
        model.block.options = {"coupling": "joint", "rtol": tol, "atol": tol, **OURS[name]}
        model.loss(x, labels).backward()


def gradient(model: ODEClassifier) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double()


def exact_gradient(model: ODEClassifier, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    model.block.options = {"method": "dopri8", "rtol": 1e-6, "atol": 1e-6, "coupling": "joint"}
    model.loss(x, labels).backward()
    return gradient(model)


def counted(model: ODEClassifier, run: Callable[[], object]) -> int:
    """Calls of the field."""
    calls = []
    handle = model.block.field.register_forward_pre_hook(lambda *_: calls.append(1))
    run()
    handle.remove()
    return len(calls)


def train(model: ODEClassifier, images: torch.Tensor, labels: torch.Tensor, n_steps: int) -> None:
    model.block.options = {"coupling": "joint", "rtol": 1e-3, "atol": 1e-3}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for k in range(n_steps):
        batch = slice(128 * k % 50_000, 128 * k % 50_000 + 128)
        optimiser.zero_grad()
        model.loss(images[batch], labels[batch]).backward()
        optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trained", type=int, default=0, help="steps of training before")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", default=[*THEIRS, *OURS], choices=[*THEIRS, *OURS])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = mnist()
    images, labels = digits.train_images[:, None] / 255, digits.train_labels
    torch.manual_seed(0)
    model = ode_net()
    train(model, images, labels, options.trained)
    x, y = images[-128:], labels[-128:]
    exact = exact_gradient(model, x, y)
    print(f"torch {torch.__version__}, {options.threads} threads, tolerance {options.tolerance:g}")
    rounds, rows = [], {}
    for name in options.only:
        with PeakMemory() as memory:
            learn(model, name, x, y, options.tolerance)
        error = float((gradient(model) - exact).norm() / exact.norm())
        n_calls = counted(model, lambda name=name: learn(model, name, x, y, options.tolerance))
        rows[name] = (n_calls, memory.peak / 2**20, error)
    for _ in range(options.rounds):
        times = {}
        for name in options.only:
            times[name] = seconds(lambda name=name: learn(model, name, x, y, options.tolerance))
        rounds.append(times)
    header = ("", "s a step", "ratio", "calls", "MiB", "error")
    print("{:>24} {:>9} {:>6} {:>6} {:>6} {:>8}".format(*header))
    for name, (n_calls, mebibytes, error) in rows.items():
        middle = statistics.median(times[name] for times in rounds)
        ratio = statistics.median(times[name] / times[options.only[0]] for times in rounds)
        print(
            f"{name:>24} {middle:>9.3f} {ratio:>6.2f} {n_calls:>6} {mebibytes:>6.0f} {error:>8.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
