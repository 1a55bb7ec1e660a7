"""Mixed precision is for the field: a solve keeps its own arithmetic in the dtype of the state.

Owns what autocast was like when a solve began, for every evaluation of its field, the backward
pass's too, which runs where autocast is off.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Autocast:
    """Autocast as it was somewhere.

    Attributes:
        device_type: as "cpu".
        dtype: what operations are cast to.

    Example:
        >>> autocast = Autocast("cpu", torch.bfloat16)
        >>> with autocast.field():
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.bfloat16
    """

    device_type: str
    dtype: torch.dtype

    @staticmethod
    def now(device: torch.device) -> "Autocast | None":
        """As it is here, for tensors on a device; None where it is off."""
        kind = device.type
        if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return None
        return Autocast(kind, torch.get_autocast_dtype(kind))

    def field(self) -> AbstractContextManager[object]:
        """For evaluations of the field."""
        # A weight cast where no gradient is recorded must not be met again where one is.
        return torch.autocast(self.device_type, self.dtype, cache_enabled=False)

    def solver(self) -> AbstractContextManager[object]:
        """For everything else in a solve."""
        return torch.autocast(self.device_type, enabled=False)
