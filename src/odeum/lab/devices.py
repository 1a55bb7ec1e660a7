"""Where training runs: CPU or GPU, one thread or several."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from odeum.errors import InputError

SMALL = 100_000
"""Fields of fewer weights are trained on the CPU, on one thread: more would slow them down."""


def choose_device(device: str, n_weights: int) -> torch.device:
    """Where to train.

    Args:
        device: "auto", "cpu" or "cuda".
        n_weights: weights of the field.

    Returns:
        The device; for "auto" the GPU, if any, where there are 100 000 weights or more: the time
        of smaller fields goes into starting kernels.

    Raises:
        InputError: for another name, or "cuda" where there is none.

    Example:
        >>> choose_device("auto", 1000)
        device(type='cpu')
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {device!r}: give 'auto', 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no CUDA device here: give 'cpu'")
    if device == "auto":
        device = "cuda" if n_weights >= SMALL and torch.cuda.is_available() else "cpu"
    return torch.device(device)


@contextmanager
def single_thread(enabled: bool) -> Iterator[None]:
    """Let torch use one thread: small fields are no faster with more, and vary with their number.

    Args:
        enabled: whether to; otherwise nothing changes.
    """
    before = torch.get_num_threads()
    if enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
