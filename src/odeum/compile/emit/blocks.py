"""Memory that native code and Python share: named fields at fixed places."""

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, bytes_of
from odeum.compile.emit.values import Value

ALIGNMENT = 64


@dataclass(frozen=True)
class Fields:
    """Where the fields of a block lie.

    Attributes:
        kinds: the type of each field's values.
        offsets: where each field starts, in bytes.
        size: of a block, in bytes.
    """

    kinds: Mapping[str, ir.Type]
    offsets: Mapping[str, int]
    size: int

    @staticmethod
    def of(**fields: tuple[ir.Type, int]) -> "Fields":
        """Fields given by the type of their values and how many there are."""
        offsets, at = {}, 0
        for name, (kind, n) in fields.items():
            offsets[name] = at
            at += -(-bytes_of(kind) * n // ALIGNMENT) * ALIGNMENT
        return Fields({name: kind for name, (kind, _) in fields.items()}, offsets, at)


@dataclass(frozen=True)
class Block:
    """One block of memory, read and written by the names of its fields.

    Attributes:
        code: the function that does.
        fields: where they lie.
        pointer: the block.
    """

    code: Code
    fields: Fields
    pointer: ir.Value

    def where(self, name: str) -> ir.Value:
        """Where a field starts."""
        return self.code.offset(self.pointer, self.fields.offsets[name])

    def get(self, name: str, index: Index = 0) -> Value:
        """A value of a field."""
        return self.code.load(self.where(name), self.fields.kinds[name], index)

    def set(self, name: str, value: Value, index: Index = 0) -> None:
        """Puts a value of a field."""
        self.code.store(value, self.where(name), index)
