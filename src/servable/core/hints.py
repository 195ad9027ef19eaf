"""How Python code says what tensors it takes and gives: ``Tensor["float32", "n", 3]`` as an annotation."""

from __future__ import annotations

from typing import Any

import numpy as np

from servable.core.signatures import Shape, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, STRING, Array, DType, dtype_of

_ANY_SHAPE = "..."


class Tensor:
    """A tensor's element type and shape, for annotations of ``predict`` and of transforms.

    ``Tensor["float32", "n", 3]`` has rows of three: a name is a free size, equal wherever the name stands in one call.
    ``None`` is free and equal to nothing; ``Tensor["float32"]`` has any shape, ``Tensor["float32", ()]`` is one number.
    The type is a name or a numpy type. ``Tensor[str, "n"]`` comes as Python's ``str``, "string" and ``bytes`` as bytes.
    """

    __slots__ = ("decoded", "dtype", "sizes")

    def __init__(self, dtype: DType, sizes: tuple[int | str | None, ...] | None, *, decoded: bool = False) -> None:
        self.dtype = dtype
        self.sizes = sizes
        self.decoded = decoded

    def __class_getitem__(cls, parameters: Any) -> Tensor:
        """Return the annotation; ``TypeError`` says what is no element type or no size."""
        element, *sizes = parameters if isinstance(parameters, tuple) else (parameters,)
        return cls(_element(element), _sizes(sizes), decoded=element is str)

    def __str__(self) -> str:
        """Return a form for people: ``float32[n,3]``."""
        if self.sizes is None:
            return f"{self.dtype}[{_ANY_SHAPE}]"
        return f"{self.dtype}[{','.join('?' if size is None else str(size) for size in self.sizes)}]"

    __repr__ = __str__

    @property
    def shape(self) -> Shape | None:
        """Return the shape with ``None`` for every free size; ``None`` if the rank is free too."""
        if self.sizes is None:
            return None
        return tuple(size if isinstance(size, int) else None for size in self.sizes)

    def spec(self, name: str) -> TensorSpec:
        """Return the specification of a tensor of that name."""
        return TensorSpec(name, self.dtype, self.shape, name)

    def misfit(self, array: Array, known: dict[str, int]) -> str | None:
        """Return what is wrong with an array's shape, or ``None``. Sizes that have names are noted in ``known``."""
        if self.sizes is None:
            return None
        if array.ndim != len(self.sizes):
            return f"has shape {list(array.shape)}; expected {self}"
        for size, found in zip(self.sizes, array.shape, strict=True):
            expected = known.setdefault(size, found) if isinstance(size, str) else size
            if expected is not None and expected != found:
                where = f" with {size} = {expected} as elsewhere in this call" if isinstance(size, str) else ""
                return f"has shape {list(array.shape)}; expected {self}{where}"
        return None


def _element(element: Any) -> DType:
    if element in (str, bytes):
        return STRING
    if isinstance(element, str):
        found = DTYPES_BY_NAME.get(element)
        if found is None:
            raise TypeError(f"{element!r} is no element type; expected one of {', '.join(DTYPES_BY_NAME)}")
        return found
    return dtype_of(np.empty(0, element))


def _sizes(sizes: list[Any]) -> tuple[int | str | None, ...] | None:
    if not sizes or sizes == [...]:
        return None
    if sizes == [()]:
        return ()
    for size in sizes:
        if not (size is None or isinstance(size, str) or (type(size) is int and size >= 0)):
            raise TypeError(f"{size!r} is no size of a tensor; expected a number, a name for a free size, or None")
    return tuple(sizes)
