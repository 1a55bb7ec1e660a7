"""How much memory tensors take at the peak of what is run; on CPU, torch itself does not count.

Every storage that an operation makes is counted from then until it is freed: autograd's graphs,
tapes and temporaries alike. Knows nothing of what is run.
"""

import weakref
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside the block, on any device.

    Storages count, so that views cost nothing; what was there before the block does not, nor what
    a kernel takes for itself or libraries outside torch (NumPy, SciPy) hold.

    Attributes:
        n_bytes: bytes held now by tensors made inside.
        peak: the most that they held at once.

    Example:
        >>> with PeakMemory() as memory:
        ...     x = torch.zeros(1000, dtype=torch.float64)
        ...     y = x + 1
        ...     del x
        >>> memory.peak, memory.n_bytes
        (16000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_bytes = 0
        self.peak = 0
        # By the address of the storage, which is its own as long as it lives.
        self._sizes: dict[int, int] = {}
        self._watches: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts the storages that are new in its result."""
        # Forward mode stands zeros in for tangents; below a dispatch mode torch reads them and
        # crashes, for they have no storage.
        args, kwargs = pytree.tree_map_only(torch.Tensor, _stored, (args, kwargs or {}))
        given = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._sizes:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._sizes[address] = size
        self._watches[address] = weakref.ref(storage, lambda _: self._free(address))
        self.n_bytes += size
        self.peak = max(self.peak, self.n_bytes)

    def _free(self, address: int) -> None:
        del self._watches[address]
        self.n_bytes -= self._sizes.pop(address)


def _stored(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or zeros that are in memory."""
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device) if x._is_zerotensor() else x


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]
