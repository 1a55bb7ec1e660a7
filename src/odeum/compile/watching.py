"""What no operation of torch tells of: derivatives that are cut, memory that is read in Python."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from odeum.compile.record import CONSTANT, Recorder, refusal, tensors_in
from odeum.compile.sources import current_source

READING = {
    torch.Tensor.__array__: "numpy",
    **{
        getattr(torch.Tensor, name): name
        for name in ("numpy", "tolist", "data_ptr", "storage", "__dlpack__", "apply_", "map_")
    },
}
"""Read a tensor's memory, which no operation tells of."""

MAKING = frozenset((torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor))
"""Read the memory of tensors in the lists they are given."""

CUTTING = (
    torch.detach,
    torch.detach_,
    torch.Tensor.detach,
    torch.Tensor.detach_,
    torch.Tensor.data.__get__,  # type: ignore[attr-defined]
)
"""Give tensors that derivatives do not go through."""


class Watching(TorchFunctionMode):
    """Sees what no operation tells of: derivatives that are cut, memory that is read.

    Args:
        recorder: what takes the operations down.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in READING:
            self._refuse_known(args[:1], READING[func])
        elif func in MAKING:
            self._refuse_known([x for x in args if isinstance(x, list | tuple)], "tensor")
        elif func in CUTTING:
            return self._cut(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _refuse_known(self, given: Any, operation: str) -> None:
        """Only constants may be read in Python."""
        for x in tensors_in(given):
            if self._recorder.value(x) is not CONSTANT:
                raise refusal(operation, current_source(), "takes a tensor out of torch")

    def _cut(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recorder = self._recorder
        before, recorder.stopping = recorder.stopping, True
        try:
            return func(*args, **kwargs)
        finally:
            recorder.stopping = before
