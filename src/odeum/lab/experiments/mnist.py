"""Handwritten digits told by an ODE-Net, an RK-Net, a residual network and a perceptron.

After Chen et al. (2018), section 3 and figure 3. The RK-Net is the ODE-Net backpropagated through
all operations of the solver; the ODE-Net has odeum's own gradient, the exact one of the steps
taken, or with ``gradient=adjoint`` that of the paper. Owns the training and what is measured of it;
the networks are `mnist_networks`', the pictures `mnist_figures`'.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from torch.nn import functional

from odeum.datasets import Digits, mnist
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import choose_device
from odeum.lab.experiments.mnist_figures import draw
from odeum.lab.experiments.mnist_networks import NETWORKS, Network
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Studied, Study
from odeum.lab.train import Loss
from odeum.lab.wording import number
from odeum.memory import PeakMemory
from odeum.models import ODEClassifier
from odeum.types import Tensor

NetworkChoice = Literal["all", "ode-net", "rk-net", "resnet", "mlp"]
GradientChoice = Literal["adjoint", "discrete", "reversible"]
MethodChoice = Literal["tsit5", "dopri5", "bosh3"]

NAMES = {"ode-net": "ODE-Net", "rk-net": "RK-Net", "resnet": "ResNet", "mlp": "MLP"}
PUBLISHED_ERROR = {"ode-net": 0.42, "rk-net": 0.47, "resnet": 0.41, "mlp": 1.60}
PUBLISHED_WEIGHTS = {"ode-net": 0.22, "rk-net": 0.22, "resnet": 0.60, "mlp": 0.24}
SOURCE = "Chen et al. 2018, table 1"

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
"""At which the trained ODE-Net is solved, to see what it costs."""

_EPOCHS, _EPOCHS_OF_A_SUBSET = 5, 1
_TEST_BATCH = 250
_LINES_PER_EPOCH = 12
_N_TIMED = 3
_N_AT_WORK = 32
_FINEST = 1e-6
"""Tolerance of a fine solve: float32 has no more."""


@dataclass(frozen=True)
class MnistOptions:
    """Options of ``mnist``.

    Raises:
        InputError: for a value outside its range.
    """

    data: Annotated[str, "folder of MNIST's four files; looked for, or fetched, if empty"] = ""
    networks: Annotated[NetworkChoice, "one of the four, or all"] = "all"
    subset: Annotated[int, "images to learn from, a fifth of them to test with; 0 for all"] = 0
    epochs: Annotated[int, "passes through the images; 0 for 5, or for 1 of a subset"] = 0
    batch: Annotated[int, "images in a step"] = 128
    learning_rate: Annotated[float, "of SGD with momentum 0.9, the MLP's half of it"] = 0.1
    tolerance: Annotated[float, "of the solves, relative and absolute"] = 1e-3
    method: Annotated[MethodChoice, "of the solves"] = "bosh3"
    gradient: Annotated[GradientChoice, "of the ODE-Net"] = "discrete"

    def __post_init__(self) -> None:
        if self.subset < 0 or self.epochs < 0 or self.batch < 1:
            raise InputError(
                f"subset is {self.subset}, epochs is {self.epochs} and batch is {self.batch}: "
                "give at least 0, 0 and 1"
            )
        if 0 < self.subset < 5:
            raise InputError(f"subset is {self.subset}: give at least 5 images, or 0 for all")
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.1")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance is {self.tolerance}: give a number such as 1e-3")

    @property
    def n_epochs(self) -> int:
        """Passes through the images."""
        return self.epochs or (_EPOCHS_OF_A_SUBSET if self.subset else _EPOCHS)

    def solver(self, name: str) -> dict[str, Any]:
        """How a network's solves are made; one step size for all images of a batch."""
        return {
            "method": self.method,
            "rtol": self.tolerance,
            "atol": self.tolerance,
            "gradient": "autograd" if name == "rk-net" else self.gradient,
            "coupling": "joint",
            "engine": "eager",
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """What there is to say of a trained network.

    Attributes:
        predicted: the digit it sees in every test image, [n].
        error: of the test images, in percent.
        n_weights: numbers that were learned.
        mebibytes: the most that tensors take in a training step.
        seconds: that a training step takes.
    """

    predicted: Tensor
    error: float
    n_weights: int
    mebibytes: float
    seconds: float


def run_mnist(options: MnistOptions, setting: Setting) -> Studied:
    """Train the networks, and measure what they cost and how often they are wrong.

    Args:
        options: which networks, from what and how.
        setting: where.

    Returns:
        The finished study; its findings are the test errors.

    Raises:
        InputError: if the run directory cannot be used.
        DataError: if the images are missing, or damaged.
        SolveError: if a loss is not finite.
    """
    digits = _part(mnist(options.data or None), options.subset)
    chosen = [name for name in NETWORKS if options.networks in ("all", name)]
    networks = {name: _drawn(name, options, setting.seed) for name in chosen}
    n_weights = max(_n_weights(network) for network in networks.values())
    device = choose_device(setting.device, n_weights)
    study = Study.begin(
        MNIST, options, setting, title="Handwritten digits, told by an ODE-Net", n_weights=n_weights
    )
    measured = {}
    for name, network in networks.items():
        network.to(device)
        _learn(study, name, network, digits, options)
        found = study.once(f"{name}, measured", partial(_measure, network, digits, options))
        measured[name] = Measured(**found)
    work = None
    solved = next((name for name in chosen if isinstance(networks[name], ODEClassifier)), None)
    if solved is not None:
        solving = networks[solved]
        assert isinstance(solving, ODEClassifier)
        work = study.once(f"{solved}, at work", partial(_at_work, solving, digits))
    draw(study, {NAMES[name]: study.metrics(name) for name in chosen}, work)
    return study.finish(
        sentence=_sentence(measured, len(digits.test_labels)),
        predictions=_predictions(digits, measured),
        findings=_findings(measured),
        result={NAMES[name]: _row(found) for name, found in measured.items()},
        solver=options.solver(solved) if solved else None,
    )


MNIST = Experiment(
    "mnist",
    "handwritten digits: ODE-Net, RK-Net, ResNet and MLP side by side",
    MnistOptions,
    run_mnist,
)


def _part(digits: Digits, subset: int) -> Digits:
    """The first images of each kind; all of them where ``subset`` is 0."""
    if not subset:
        return digits
    n_test = subset // 5
    return Digits(
        digits.train_images[:subset],
        digits.train_labels[:subset],
        digits.test_images[:n_test],
        digits.test_labels[:n_test],
    )


def _drawn(name: str, options: MnistOptions, seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name](**options.solver(name))
    network.float()
    return network


def _n_weights(network: Network) -> int:
    return sum(weights.numel() for weights in network.parameters())


def _learn(
    study: Study, name: str, network: Network, digits: Digits, options: MnistOptions
) -> None:
    """Train with SGD and momentum, the rate along half a cosine; test after every epoch."""
    n = len(digits.train_images)
    n_batches = -(-n // options.batch)
    every = max(1, n_batches // _LINES_PER_EPOCH)
    work: dict[str, int] = {}

    def batch(step: int, _: torch.Generator) -> tuple[Tensor, Tensor]:
        work["step"] = step
        epoch, k = divmod(step, n_batches)
        # Each epoch's order follows from its number, so that one can go on in its midst.
        generator = torch.Generator().manual_seed(study.setting.seed * 100_003 + epoch)
        order = torch.randperm(n, generator=generator)[k * options.batch : (k + 1) * options.batch]
        return _batch(digits.train_images, digits.train_labels, order, study.device)

    def loss(batch: tuple[Tensor, Tensor]) -> Loss:
        value = network.loss(*batch)
        stats = network.stats
        return Loss(value, n_evaluations=int(stats.n_evaluations.max()) if stats else 0)

    def count_backward() -> None:
        if network.stats is not None and network.stats.backward is not None:
            work["back"] = work.get("back", 0) + int(network.stats.backward.n_evaluations.max())
            work["n_back"] = work.get("n_back", 0) + 1

    def evaluate() -> dict[str, float]:
        found = {}
        if work.get("n_back"):
            found["n_evaluations_back"] = work.pop("back") / work.pop("n_back")
        # Where a pass has ended since the line before.
        over, over_before = work["step"] + 1, work["step"] // every * every
        if over // n_batches > over_before // n_batches:
            found["held_out"] = _error(network, digits)[0]
        return found

    study.learn(
        name,
        network,
        Descent(
            torch.optim.SGD(
                network.parameters(),
                lr=options.learning_rate * (0.5 if name == "mlp" else 1.0),
                momentum=0.9,
                weight_decay=5e-4,
            ),
            n_steps=options.n_epochs * n_batches,
            batch=batch,
            loss=loss,
            rate=cosine(final=0.001, warm_up=0.05),
            adjust=count_backward,
            every=every,
            evaluate=evaluate,
        ),
    )


def _batch(
    images: Tensor, labels: Tensor, at: Tensor | slice, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Some images, [n, 1, 28, 28] from 0 to 1, and their labels."""
    return images[at, None].to(device).float() / 255, labels[at].to(device)


def _error(network: Network, digits: Digits) -> tuple[float, Tensor]:
    """The share of test images told wrong, in percent, and what each was told to be."""
    device = next(network.parameters()).device
    predicted = []
    with torch.no_grad():
        for first in range(0, len(digits.test_labels), _TEST_BATCH):
            at = slice(first, first + _TEST_BATCH)
            x, _ = _batch(digits.test_images, digits.test_labels, at, device)
            predicted.append(network(x).argmax(-1).cpu())
    told = torch.cat(predicted)
    return 100 * float((told != digits.test_labels).double().mean()), told


def _measure(network: Network, digits: Digits, options: MnistOptions) -> dict[str, Any]:
    error, predicted = _error(network, digits)
    device = next(network.parameters()).device
    x, labels = _batch(digits.train_images, digits.train_labels, slice(options.batch), device)

    def step() -> None:
        network.zero_grad()
        network.loss(x, labels).backward()

    step()
    times = []
    for _ in range(_N_TIMED):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    network.zero_grad()
    with PeakMemory() as memory:
        step()
    network.zero_grad()
    return {
        "predicted": predicted,
        "error": error,
        "n_weights": _n_weights(network),
        "mebibytes": memory.peak / 2**20,
        "seconds": statistics.median(times),
    }


def _at_work(network: ODEClassifier, digits: Digits) -> dict[str, Any]:
    """What solves of a trained network cost at several tolerances, for some test images.

    Returns:
        A list with a number for each tolerance: evaluations of the field ``forward`` and, of the
        adjoint equation, ``backward``; ``seconds`` of a solve; and the ``error`` of the last state
        beside that of a fine solve, as a share of it.
    """
    device = next(network.parameters()).device
    x, labels = _batch(digits.test_images, digits.test_labels, slice(_N_AT_WORK), device)
    block: Any = network.block
    with torch.no_grad():
        y = network.encoder(x)
        ts = y.new_tensor([0.0, 1.0])
        exact = block.solve(y, ts, method="dopri8", rtol=_FINEST, atol=_FINEST).ys[-1]
    found: dict[str, Any] = {"tolerance": list(TOLERANCES)}
    found |= {key: [] for key in ("forward", "backward", "seconds", "error")}
    for tolerance in TOLERANCES:
        allowed = {"rtol": tolerance, "atol": tolerance}
        start = time.perf_counter()
        with torch.no_grad():
            solution = block.solve(y, ts, **allowed)
        found["seconds"].append(time.perf_counter() - start)
        found["forward"].append(int(solution.stats.n_evaluations.max()))
        found["error"].append(float((solution.ys[-1] - exact).norm() / exact.norm()))
        solution = block.solve(y.requires_grad_(), ts, gradient="adjoint", **allowed)
        functional.cross_entropy(network.head(solution.ys[-1]), labels).backward()
        assert solution.stats.backward is not None
        found["backward"].append(int(solution.stats.backward.n_evaluations.max()))
    network.zero_grad()
    return found


def _findings(measured: Mapping[str, Measured]) -> list[Finding]:
    errors = [
        Finding(
            f"test error, {NAMES[name]}",
            found.error,
            target=1.0 if name == "ode-net" else None,
            published=PUBLISHED_ERROR[name],
            unit="%",
            source=SOURCE,
        )
        for name, found in measured.items()
    ]
    weights = [
        Finding(
            f"parameters, {NAMES[name]}",
            found.n_weights / 1e6,
            published=PUBLISHED_WEIGHTS[name],
            unit="M",
            source=SOURCE,
        )
        for name, found in measured.items()
    ]
    return errors + weights


def _row(found: Measured) -> str:
    return (
        f"{number(found.error, 3)} % wrong; {found.n_weights:,} parameters; a training step takes "
        f"{number(found.seconds, 3)} s and {found.mebibytes:.0f} MiB"
    )


def _sentence(measured: Mapping[str, Measured], n_test: int) -> str:
    errors = ", ".join(f"{NAMES[name]} {found.error:.2f} %" for name, found in measured.items())
    return f"Of {n_test} test images told wrong: {errors}."


def _predictions(digits: Digits, measured: Mapping[str, Measured]) -> pd.DataFrame:
    columns = {name: found.predicted.numpy() for name, found in measured.items()}
    truth = digits.test_labels.numpy()
    return pd.DataFrame({"image": range(len(truth)), "digit": truth, **columns})
