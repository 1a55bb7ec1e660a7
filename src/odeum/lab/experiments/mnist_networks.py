"""The four networks of Chen et al. (2018, table 1) that tell handwritten digits.

Owns their architectures. Knows neither the digits nor how the networks are trained.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn import functional

from odeum.models import ODEBlock, ODEClassifier
from odeum.types import Tensor

N_CHANNELS = 64
N_CLASSES = 10

_N_GROUPS = 32
_N_RESIDUAL_BLOCKS = 6
_N_HIDDEN = 300


class TimeConvolution(nn.Module):
    """A 3 x 3 convolution of the channels and one more that holds the time everywhere.

    What the time adds does not depend on the state: it is a fixed image, times ``t``. So no channel
    is put beside the others, and their number stays one that processors are fast with.

    Args:
        channels: of state and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_state = nn.Conv2d(channels, channels, 3, padding=1)
        self.of_time = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        # As of one convolution of all the channels.
        bound = 1 / math.sqrt(9 * (channels + 1))
        for weights in self.parameters():
            nn.init.uniform_(weights, -bound, bound)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The channels at time ``t``, one for all or [batch, 1, 1, 1]."""
        everywhere = y.new_ones(1, 1, *y.shape[2:])
        return self.of_state(y) + t * self.of_time(everywhere)


class ConvolutionalField(nn.Module):
    """``f(t, y)`` of images: normalise, cut off, convolve, twice, and normalise.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int = N_CHANNELS) -> None:
        super().__init__()
        self.norms = nn.ModuleList(_norm(channels) for _ in range(3))
        self.convolutions = nn.ModuleList(TimeConvolution(channels) for _ in range(2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The derivative of ``y`` [batch, channels, height, width]."""
        first, second, last = self.norms
        dtype = y.dtype
        for norm, convolve in zip((first, second), self.convolutions, strict=True):
            y = convolve(t, functional.relu(norm(y), inplace=True))
        return last(y).to(dtype)  # of the state, where autocast computes in another


class ResidualBlock(nn.Module):
    """``y + g(y)`` with as many operations as one evaluation of the field.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            _norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, y: Tensor) -> Tensor:
        """The images after the block, [batch, channels, height, width]."""
        return y + self.change(y)


class Classifier(nn.Module):
    """A network without a solve, otherwise as :class:`odeum.models.ODEClassifier`.

    Args:
        layers: from images to logits.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    stats = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.layers(x)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy in nats."""
        return functional.cross_entropy(self(x), labels)


def downsampling(channels: int = N_CHANNELS) -> nn.Sequential:
    """From an image of 28 x 28 to ``channels`` images of 6 x 6."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3),
        _norm(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 4, stride=2, padding=1),
        _norm(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 4, stride=2, padding=1),
    )


def head(channels: int = N_CHANNELS) -> nn.Sequential:
    """From ``channels`` images to logits."""
    return nn.Sequential(
        _norm(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, N_CLASSES),
    )


def ode_net(**options: Any) -> ODEClassifier:
    """Downsampling, the field solved over [0, 1], and the head.

    Args:
        options: of the solve, see :func:`odeum.solve`.
    """
    block = ODEBlock(ConvolutionalField(), **options)
    return ODEClassifier(block, head(), encoder=downsampling())


def residual_net(**_: Any) -> Classifier:
    """Six residual blocks in place of the solve."""
    blocks = (ResidualBlock(N_CHANNELS) for _ in range(_N_RESIDUAL_BLOCKS))
    return Classifier(downsampling(), *blocks, head())


def perceptron(**_: Any) -> Classifier:
    """One hidden layer (LeCun et al. 1998)."""
    return Classifier(
        nn.Flatten(), nn.Linear(28 * 28, _N_HIDDEN), nn.ReLU(), nn.Linear(_N_HIDDEN, N_CLASSES)
    )


Network = ODEClassifier | Classifier

NETWORKS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {
        "ode-net": ode_net,
        "rk-net": ode_net,
        "resnet": residual_net,
        "mlp": perceptron,
    }
)
"""What makes each network, from the options of its solve."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(_N_GROUPS, channels), channels)
