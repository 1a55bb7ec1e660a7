"""The Python state that a trace depended on, as a function that checks it and finds its tensors.

What a field can read is walked once: the code of its functions, what they close over, the globals
they name, the attributes of modules and objects. The walk is written down as straight Python, to
be executed at every solve: a few microseconds where a walk takes hundreds. It starts from the
field of that solve and holds none of its objects, so that another field of the same make passes.
"""

import functools
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from odeum.compile.reading import (
    entry,
    function_of,
    is_empty,
    is_of_users,
    names_of,
    slots_of,
    static,
)
from odeum.compile.sources import is_users
from odeum.eager.field import PerRow
from odeum.errors import TraceError
from odeum.types import Tensor

LARGEST = 5000
"""Lines of a check."""

LONGEST = 256
"""Containers with more entries are told by their identity."""

SMALL = 4096
"""Elements of an integer tensor or an array whose values are compared."""

NUMBERS = (int, float, complex, str, bytes, np.generic)
PLAIN = (
    type,
    types.BuiltinFunctionType,
    types.ModuleType,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Generator,
)
CONTAINERS = (list, tuple, dict, set, frozenset, types.MappingProxyType)
BOOKKEEPING = frozenset(("_parameters", "_buffers", "_modules"))
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
EVERYTHING = frozenset(("getattr", "vars", "__dict__", "__getattribute__"))
"""Code that names one of these may read attributes that it does not name."""


@dataclass(frozen=True)
class Found:
    """A tensor that a field may read.

    Attributes:
        tensor: as it was when the field was walked.
        label: how the user would name it.
        per_row: whether each row of the batch has its own.
    """

    tensor: Tensor
    label: str
    per_row: bool


@dataclass(frozen=True)
class Guard:
    """Checks the state of a field, and collects its tensors.

    Attributes:
        matched: called with the roots that were walked; the tensors in the order in which they
            were found, or the number of the first check that failed.
        labels: what each check looks at, as the user would name it.
        found: the tensors, as they were when the field was walked. Not kept beyond the trace.
        constants: tensors whose values are checked; not kept either.
        assigned: what code of the field assigns to: ``(dict, key, label)``; not kept either.
        code: the check as it is executed.
    """

    matched: Callable[..., tuple[Tensor, ...] | int]
    labels: tuple[str, ...]
    found: tuple[Found, ...] = field(repr=False)
    constants: tuple[Tensor, ...] = field(repr=False)
    assigned: tuple[tuple[dict[str, Any], str, str], ...] = field(repr=False)
    code: str = field(repr=False)

    def released(self) -> "Guard":
        """The guard without what belongs to the field that was walked."""
        return replace(self, found=(), constants=(), assigned=())


def guard(*roots: Any, ignored: frozenset[str] = frozenset()) -> Guard:
    """The guard of whatever can be reached from some objects.

    Args:
        roots: the field, its args, and whatever else is called with them.
        ignored: labels of what is not checked.

    Raises:
        TraceError: where there is too much to watch.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> watch = guard(net)
        >>> [x.shape for x in watch.matched(net)], [x.label for x in watch.found]
        ([torch.Size([3, 2]), torch.Size([3])], ['self.weight', 'self.bias'])
        >>> watch.labels[watch.matched(net.eval())]
        'self.training'
    """
    names: frozenset[str] = frozenset()
    while True:
        walk = _Walk(names, ignored)
        for i, root in enumerate(roots):
            walk.visit(root, f"r{i}", "self" if i == 0 else "args")
        if walk.names == names:
            return walk.written(len(roots))
        names = walk.names


class _Walk:
    """One walk, as the lines it writes."""

    def __init__(self, names: frozenset[str], ignored: frozenset[str]) -> None:
        self.names = names
        self._all = bool(names & EVERYTHING)
        self._ignored = ignored
        self._lines: list[str] = []
        self._labels: list[str] = []
        self._constants: dict[str, Any] = {}
        self._seen: dict[int, tuple[str, Any]] = {}
        self._read: set[tuple[int, str]] = set()
        self._found: list[tuple[str, Found]] = []
        self._compared: list[Tensor] = []
        self._assigned: list[tuple[dict[str, Any], str, str]] = []

    def written(self, n_roots: int) -> Guard:
        roots = "".join(f"r{i}, " for i in range(n_roots))
        tensors = "".join(f"{name}, " for name, _ in self._found)
        body = "\n".join(f"        {line}" for line in self._lines) or "        pass"
        code = (
            f"def matched({roots}):\n    try:\n{body}\n"
            f"        return ({tensors})\n"
            "    except (AttributeError, KeyError, IndexError, TypeError, ValueError):\n"
            f"        return {len(self._labels)}\n"
        )
        scope = dict(self._constants)
        exec(compile(code, "<guard of a field>", "exec"), scope)
        labels = (*self._labels, "what it reads")
        found = tuple(x for _, x in self._found)
        constants, assigned = tuple(self._compared), tuple(self._assigned)
        return Guard(scope["matched"], labels, found, constants, assigned, code)

    # Writing

    def _constant(self, value: Any) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = value
        return name

    def _check(self, condition: str, label: str) -> None:
        """A condition under which the check fails."""
        if label in self._ignored:
            return
        if len(self._lines) > LARGEST:
            raise TraceError(
                f"the field can reach too much Python state to watch it all ({label} and more): "
                "keep what it reads in a module of its own",
                operation="reading Python state",
            )
        self._lines.append(f"if {condition}: return {len(self._labels)}")
        self._labels.append(label)

    def _bind(self, expression: str) -> str:
        name = f"v{len(self._lines)}"
        self._lines.append(f"{name} = {expression}")
        return name

    # Walking

    def visit(self, x: Any, expression: str, label: str) -> None:
        """Writes down what a value has to be like."""
        if x is None or isinstance(x, bool):
            self._check(f"{expression} is not {x}", label)
        elif isinstance(x, NUMBERS):
            name = self._bind(expression)
            kind, value = self._constant(type(x)), self._constant(x)
            nan = f" and {name} == {name}" if x != x else ""
            self._check(f"type({name}) is not {kind} or {name} != {value}{nan}", label)
        elif isinstance(x, PLAIN):
            self._check(f"{expression} is not {self._constant(x)}", label)
            self._plain(x, expression, label)
        elif id(x) in self._seen:
            # Another one in its place would have been told apart from it when it was traced.
            self._check(f"{expression} is not {self._seen[id(x)][0]}", label)
        else:
            name = self._bind(expression)
            self._seen[id(x)] = (name, x)
            self._visit_new(x, name, label)

    def _visit_new(self, x: Any, name: str, label: str) -> None:
        if isinstance(x, torch.Tensor):
            self._tensor(x, name, label, per_row=False)
        elif isinstance(x, PerRow):
            self._check(f"type({name}) is not {self._constant(PerRow)}", label)
            self._tensor(x.tensor, self._bind(f"{name}.tensor"), label, per_row=True)
        elif isinstance(x, types.FunctionType):
            self._function(x, name, label)
        elif isinstance(x, types.MethodType):
            self._check(f"type({name}) is not {self._constant(types.MethodType)}", label)
            self.visit(x.__self__, f"{name}.__self__", label)
            self.visit(x.__func__, f"{name}.__func__", label)
        elif isinstance(x, functools.partial):
            self._check(f"type({name}) is not {self._constant(type(x))}", label)
            for part in ("func", "args", "keywords"):
                self.visit(getattr(x, part), f"{name}.{part}", label)
        elif isinstance(x, CONTAINERS):
            self._container(x, name, label)
        elif isinstance(x, np.ndarray):
            self._array(x, name, label)
        elif isinstance(x, slice | range):
            self._check(f"{name} != {self._constant(x)}", label)
        elif isinstance(x, nn.Module):
            self._module(x, name, label)
        elif is_of_users(type(x)):
            self._object(x, name, label)
        else:
            self._identity(x, name, label)

    def _tensor(self, x: Tensor, name: str, label: str, *, per_row: bool) -> None:
        shape = self._constant(x.shape[1:] if per_row else x.shape)
        dtype, device = self._constant(x.dtype), self._constant(x.device)
        cut = "[1:]" if per_row else ""
        self._check(
            f"{name}.shape{cut} != {shape} or {name}.dtype is not {dtype} "
            f"or {name}.device != {device}",
            label,
        )
        if not x.is_floating_point() and x.numel() <= SMALL and not per_row:
            equal, value = self._constant(torch.equal), self._constant(x.detach().clone())
            self._check(f"not {equal}({name}, {value})", label)
            self._compared.append(x)
        else:
            self._found.append((name, Found(x, label, per_row)))

    def _identity(self, x: Any, name: str, label: str) -> None:
        try:
            self._check(f"{name} is not {self._constant(weakref.ref(x))}()", label)
        except TypeError:  # of a kind that cannot be held weakly
            self._check(f"{name} is not {self._constant(x)}", label)

    def _array(self, x: np.ndarray, name: str, label: str) -> None:
        if x.size > SMALL or x.dtype == object:
            self._identity(x, name, label)
            return
        equal, value = self._constant(np.array_equal), self._constant(x.copy())
        self._check(f"{name}.dtype != {value}.dtype or not {equal}({name}, {value})", label)

    def _container(self, x: Any, name: str, label: str) -> None:
        kind = self._constant(type(x))
        self._check(f"type({name}) is not {kind} or len({name}) != {len(x)}", label)
        if len(x) > LONGEST:
            self._identity(x, name, label)
        elif isinstance(x, set | frozenset):
            self._check(f"{name} != {self._constant(type(x)(x))}", label)
        elif isinstance(x, Mapping):
            keys = self._constant(tuple(x))
            self._check(f"tuple({name}) != {keys}", label)
            for i, (key, value) in enumerate(x.items()):
                self.visit(value, f"{name}[{keys}[{i}]]", entry(label, key))
        else:
            for i, value in enumerate(x):
                self.visit(value, f"{name}[{i}]", f"{label}[{i}]")

    def _plain(self, x: Any, expression: str, label: str) -> None:
        """Modules and classes of the user's: those of their names that code of the field says."""
        if not isinstance(x, type | types.ModuleType) or not is_of_users(x) or id(x) in self._seen:
            return
        name = self._bind(expression)
        self._seen[id(x)] = (name, x)
        for key, value in list(vars(x).items()):
            if key in self.names and not key.startswith("__"):
                self.visit(function_of(value), static(name, key, value), entry(label, key))

    def _module(self, x: nn.Module, name: str, label: str) -> None:
        attributes = self._attributes(x, name, label)
        for key in HOOKS:
            hooks = x.__dict__.get(key)
            if hooks:
                self.visit(dict(hooks), f"dict({attributes}[{key!r}])", entry(label, key))
            elif hooks is not None:
                self._check(f"{attributes}[{key!r}]", entry(label, key))
        for group in ("_parameters", "_buffers", "_modules"):
            members = x.__dict__[group]
            if not members and type(x).__module__.startswith("torch.nn.modules"):
                continue  # a class that has none
            held = self._bind(f"{attributes}[{group!r}]")
            self._check(f"len({held}) != {len(members)}", label)
            for key, value in members.items():
                self.visit(value, f"{held}[{key!r}]", entry(label, key))
        for call in ("forward", "__call__"):
            self._method(type(x), call, attributes, label)

    def _object(self, x: Any, name: str, label: str) -> None:
        attributes = self._attributes(x, name, label)
        self._method(type(x), "__call__", attributes, label)
        for key in slots_of(type(x)):
            if (self._all or key in self.names) and hasattr(x, key):
                self.visit(getattr(x, key), f"{name}.{key}", entry(label, key))

    def _attributes(self, x: Any, name: str, label: str) -> str:
        """What an object holds, and what it finds in its class; returns the name of the former."""
        kind = type(x)
        self._check(f"type({name}) is not {self._constant(kind)}", label)
        own = getattr(x, "__dict__", None)
        if own is None:
            return "{}"
        held = self._bind(f"{name}.__dict__")
        module = isinstance(x, nn.Module)
        every = self._all or not is_of_users(kind)
        for key, value in list(own.items()):
            if module and (key in BOOKKEEPING or (key.startswith("_") and key not in self.names)):
                continue
            if every or key in self.names or (module and key == "training"):
                self.visit(value, f"{held}[{key!r}]", entry(label, key))
        for key in sorted(self.names - set(own)):
            self._method(kind, key, held, label)
        for key in sorted(self.names):
            if f"={key}" in self.names:
                self._assigned.append((own, key, entry(label, key)))
        return held

    def _method(self, kind: type, key: str, attributes: str, label: str) -> None:
        """What an object finds in its class under a name, and in the classes behind it."""
        owners = [owner for owner in kind.__mro__ if key in vars(owner) and is_of_users(owner)]
        if owners and attributes != "{}":
            self._check(f"{key!r} in {attributes}", entry(label, key))
        for owner in owners:
            value = vars(owner)[key]
            if (id(owner), key) in self._read or isinstance(value, types.MemberDescriptorType):
                continue
            self._read.add((id(owner), key))
            place = static(self._constant(owner), key, value)
            self.visit(function_of(value), place, entry(label, key))

    def _function(self, x: types.FunctionType, name: str, label: str) -> None:
        code = x.__code__
        self._check(f"{name}.__code__ is not {self._constant(code)}", label)
        for part in ("__defaults__", "__kwdefaults__"):
            value = getattr(x, part)
            if value:
                self.visit(value, f"{name}.{part}", label)
        if x.__closure__:
            held = self._bind(f"{name}.__closure__")
            for i, key in enumerate(code.co_freevars):
                cell = x.__closure__[i]
                if not is_empty(cell):
                    self.visit(cell.cell_contents, f"{held}[{i}].cell_contents", key)
        if not is_users(code.co_filename):
            return
        own, reads = names_of(code)
        self.names |= own
        scope = x.__globals__
        self._assigned += [(scope, key, key) for key in code.co_names if f"={key}" in own]
        read = [key for key in reads if key in scope and (id(scope), key) not in self._read]
        if read:
            held = self._bind(f"{name}.__globals__")
            for key in read:
                self._read.add((id(scope), key))
                self.visit(scope[key], f"{held}[{key!r}]", key)
