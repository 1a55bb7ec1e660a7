"""Operations as torch executes them, taken down as nodes.

Everything is executed, on values of one row; what does not come from an input is a constant.
Owns what is known about each tensor, writes into tensors among it. Knows no rule of the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from odeum.compile.build import Builder
from odeum.compile.ir import Node
from odeum.compile.lowering import RAW, RULES, Unsupported, constant_of
from odeum.compile.lowering.places import places_of, put, take
from odeum.compile.lowering.pointwise import number_of
from odeum.compile.lowering.products import Factored
from odeum.compile.sources import current_source
from odeum.errors import TraceError
from odeum.types import Tensor

CONSTANT = "constant"
"""Is known about tensors that do not depend on any input: their own value."""

FACTORIES = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_empty_strided",
        "empty_strided",
    ]
)
"""Take a shape from a tensor and no value."""

SHAPES = frozenset(("_has_same_storage_numel", "is_same_size"))
"""Ask tensors about their shapes, and nothing that a node would hold."""

TURNED = frozenset(["squeeze", "unsqueeze", "transpose", "t", "swapaxes"])
"""In place, these change how a tensor is looked at and write nothing."""

PLAIN_WITHOUT_DROPOUT = frozenset(["_scaled_dot_product_flash_attention_for_cpu"])
"""Counted by torch among random operations for an argument that is seldom given."""

REFUSED = frozenset(["convolution"])
"""Torch knows what they are made of, and it would be far too much."""

NUMBERS = {
    "_local_scalar_dense": "turns a tensor into a Python number",
    "equal": "compares tensors in Python",
    "is_nonzero": "branches in Python on a tensor",
}
PASSING = frozenset(("detach", "alias", "_linalg_check_errors", "linalg_lu_solve"))
PASSING |= {"log_sigmoid_backward"}
"""Hand on what is not computed, or do without it."""


@dataclass(frozen=True)
class Lost:
    """A value that no node can hold: it is refused where something reads it.

    Attributes:
        operation: what made it.
        why: in a few words.
    """

    operation: str
    why: str


@dataclass(frozen=True)
class Foreign:
    """A tensor made elsewhere whose numbers are not of the state's dtype: it has to be converted.

    Attributes:
        label: how the user would name it.
        dtype: what it has.
        converted: makes the node of the tensor in the dtype of the state.
    """

    label: str
    dtype: torch.dtype
    converted: Callable[[], Node]


Known = Node | Factored | Lost | Foreign | str


class Recorder(TorchDispatchMode):
    """Takes operations down while it is entered.

    Args:
        dtype: that of the state, which all numbers have.
        find: the node of a tensor that was made elsewhere, CONSTANT where its value is known to
            be watched, None where the tensor cannot be found again.
        users: whether what runs is the user's code, with lines worth remembering.
    """

    def __init__(
        self, dtype: torch.dtype, find: Callable[[Tensor], Known | None], *, users: bool = True
    ) -> None:
        super().__init__()
        self._dtype = dtype
        self._find = find
        self._users = users
        self._known: dict[int, tuple[Tensor, Known, int]] = {}
        self._aliases: dict[Any, int] = {}
        self._frozen: set[int] = set()
        self._contents: dict[int, Node] = {}
        self._writes: dict[int, int] = {}
        self.stopping = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would import all of torch._dynamo at the first operation: two seconds.
        return False

    def define(self, tensor: Tensor, value: Known, *, frozen: bool = False) -> None:
        """What is known about a tensor; into a frozen one nothing may be written."""
        storage = tensor.untyped_storage()._cdata
        # Kept, that nothing else takes its identity or its memory.
        self._known[id(tensor)] = (tensor, value, self._writes.get(storage, 0))
        self._aliases.setdefault(_geometry(tensor), id(tensor))
        if frozen:
            self._frozen.add(storage)

    def value(self, tensor: Tensor) -> Known:
        """What is known about a tensor.

        Raises:
            Unsupported: where it was made elsewhere and cannot be found again.
        """
        known = self._known.get(id(tensor))
        if known is None:
            found = self._find(tensor)
            if found is not None:
                self.define(tensor, found, frozen=True)
                return found
            # Autograd hands what it saved back as another tensor in the same memory.
            known = self._known.get(self._aliases.get(_geometry(tensor), 0))
        if known is None:
            raise Unsupported(
                "reads a tensor that is neither made by the field nor found again at its next "
                "call: hand it over in args, or keep it as an attribute"
            )
        storage = tensor.untyped_storage()._cdata
        if known[2] == self._writes.get(storage, 0):
            return known[1]
        node = take(Builder(self._line()), self._contents[storage], _places(tensor))
        self.define(tensor, node)
        return node

    def _line(self) -> str | None:
        return current_source() if self._users else None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name, source = func.overloadpacket.__name__, self._line()
        try:
            return self._executed(func, name, args, kwargs or {}, Builder(source))
        except Unsupported as error:
            raise refusal(name, source, str(error)) from None

    def _executed(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], b: Builder
    ) -> Any:
        seeded = torch.Tag.nondeterministic_seeded in func.tags
        if seeded and name not in PLAIN_WITHOUT_DROPOUT:
            raise Unsupported("draws random numbers")
        tensors = list(tensors_in((args, kwargs)))
        if name == "lift_fresh" and id(tensors[0]) not in self._known:
            self.define(tensors[0], CONSTANT)  # made of Python numbers, just now
        if name in SHAPES or any(x.is_meta for x in tensors):
            return func(*args, **kwargs)  # about shapes alone
        known = [self.value(x) for x in tensors]
        mutable = func._schema.is_mutable
        target = name.removesuffix("_") if mutable else name
        if mutable and target not in TURNED:
            self._check_writable(func, args)
        if name in FACTORIES or all(x is CONSTANT for x in known):
            result = func(*args, **kwargs)
            for made in tensors_in(result):
                if not made.is_meta:
                    self.define(made, CONSTANT)
            return result
        if name in NUMBERS:
            raise Unsupported(NUMBERS[name])
        if name == "_to_copy" and isinstance(known[0], Foreign):
            result = func(*args, **kwargs)
            self._define_results(name, result, known[0].converted(), b)
            return result
        self._check_read(name, known)
        if mutable:
            return self._changed(func, target, args, kwargs, b)
        rule = RULES.get(name)
        if rule is None:
            return self._decomposed(func, name, args, kwargs)
        nodes = rule(b, *self._as_nodes(args, name, b), **self._as_nodes(kwargs, name, b))
        result = func(*args, **kwargs)
        self._define_results(name, result, nodes, b)
        return result

    def _check_read(self, name: str, known: list[Known]) -> None:
        for x in known:
            if isinstance(x, Lost) and name not in PASSING:
                raise Unsupported(f"reads what {x.operation} returned, {x.why}")
            if isinstance(x, Foreign):
                raise Unsupported(
                    f"reads {x.label}, which has {x.dtype} where the state has {self._dtype}: "
                    "convert it with .to(y.dtype)"
                )

    def _as_nodes(self, x: Any, name: str, b: Builder) -> Any:
        """Arguments with nodes in the place of tensors."""
        if isinstance(x, torch.Tensor):
            known = self.value(x)
            if known is not CONSTANT:
                return known
            return x if name in RAW else constant_of(b, x)
        if isinstance(x, list | tuple):
            return [self._as_nodes(part, name, b) for part in x]
        if isinstance(x, dict):
            return {key: self._as_nodes(part, name, b) for key, part in x.items()}
        return x

    def _define_results(self, name: str, results: Any, nodes: Any, b: Builder) -> None:
        if not isinstance(results, list | tuple):
            results, nodes = (results,), (nodes,)
        for i, result in enumerate(results):
            if not isinstance(result, torch.Tensor):
                if result is None:
                    continue
                raise Unsupported("returns what is no tensor")
            node = nodes[i] if i < len(nodes) else None
            if isinstance(node, Node):
                node = self._checked(name, result, node, b)
            self.define(result, Lost(name, "which is not computed") if node is None else node)

    def _checked(self, name: str, result: Tensor, node: Node, b: Builder) -> Known:
        """A node for a result, if it has the dtype of the state."""
        if result.dtype is not self._dtype and not node.boolean:
            if result.dtype.is_floating_point or result.dtype.is_complex:
                raise Unsupported(f"computes in {result.dtype} for a state of {self._dtype}")
            if name == "sum":  # how many are true
                return node
            return Lost(name, f"which are integers ({result.dtype})")
        assert node.shape == tuple(result.shape), f"{name}: {node.shape} is {result.shape}"
        if self._users and not node.boolean and (self.stopping or not torch.is_grad_enabled()):
            return b("stop", node)
        return node

    def _decomposed(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operation by those that torch knows it to be made of."""
        from torch._decomp import decomposition_table  # takes a while; seldom needed

        decomposition = decomposition_table.get(func)
        with self:
            if decomposition is not None and name not in REFUSED:
                return decomposition(*args, **kwargs)
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise Unsupported("is not among the operations that are compiled")
        return result

    # Writing into tensors

    def _check_writable(self, func: Any, args: tuple[Any, ...]) -> None:
        for argument, x in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if not written or not isinstance(x, torch.Tensor):
                continue
            if x.untyped_storage()._cdata in self._frozen:
                raise Unsupported("writes into a tensor that the field did not make")

    def _changed(
        self, func: Any, target: str, args: tuple[Any, ...], kwargs: dict[str, Any], b: Builder
    ) -> Any:
        """An operation that writes into its first argument, or turns it."""
        changed = args[0]
        if func.overloadpacket.__name__ == target or not isinstance(changed, torch.Tensor):
            raise Unsupported("writes into a tensor given as out")
        operands = self._as_nodes(args, target, b)
        if target == "copy":
            new = operands[1]
        elif target in ("fill", "zero"):
            new = b.node(operands[1] if target == "fill" else 0)
        elif target in RULES:
            new = RULES[target](b, *operands, **self._as_nodes(kwargs, target, b))
        else:
            raise Unsupported("is not among the operations that are compiled")
        if target in TURNED:
            result = func(*args, **kwargs)
            self.define(changed, new)
            return result
        if changed.dtype is not self._dtype and changed.dtype is not torch.bool:
            raise Unsupported(f"writes into a tensor of {changed.dtype}")
        new = new if changed.dtype is torch.bool else number_of(b, new)
        if self._users and not new.boolean and not torch.is_grad_enabled():
            new = b("stop", new)
        new = b.expand(new, tuple(changed.shape))
        contents = self._contents_of(changed, b)
        result = func(*args, **kwargs)
        storage = changed.untyped_storage()._cdata
        self._contents[storage] = put(b, contents, _places(changed), new)
        self._writes[storage] = self._writes.get(storage, 0) + 1
        self.define(changed, new)
        return result

    def _contents_of(self, tensor: Tensor, b: Builder) -> Node:
        """All that lies in the memory of a tensor."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._contents:
            return self._contents[storage._cdata]
        n = storage.nbytes() // tensor.element_size()
        sharing = [
            (x, value)
            for x, value, _ in self._known.values()
            if x.untyped_storage()._cdata == storage._cdata
        ]
        if all(value is CONSTANT for _, value in sharing):
            return constant_of(b, tensor.detach().as_strided((n,), (1,), 0))
        for x, value in sharing:
            if x.numel() == n and isinstance(value, Node):
                order = sorted(range(n), key=_places(x).reshape(-1).tolist().__getitem__)
                return b.gather(value, order, (n,))
        raise Unsupported("writes into part of a tensor that is nowhere whole")


def refusal(operation: str, source: str | None, why: str) -> TraceError:
    """The error for an operation that cannot be compiled."""
    where = f" ({source})" if source else ""
    return TraceError(f"{operation}{where} {why}", operation=operation, source=source)


def tensors_in(x: Any) -> Iterator[Tensor]:
    """The tensors among some arguments."""
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, list | tuple):
        for part in x:
            yield from tensors_in(part)
    elif isinstance(x, dict):
        for part in x.values():
            yield from tensors_in(part)


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    return (
        tensor.untyped_storage()._cdata,
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
    )


def _places(tensor: Tensor) -> Tensor:
    """Which numbers of its memory a tensor's elements are."""
    n = tensor.untyped_storage().nbytes() // tensor.element_size()
    return places_of((n,)).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
