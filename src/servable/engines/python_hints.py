"""What a user's function takes and gives, read from its annotations, and held against what really comes and goes."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from types import MappingProxyType
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition, internal, invalid_argument
from servable.core.hints import Tensor
from servable.core.signatures import TensorSpec
from servable.core.tensors import STRING, Array, as_tensor

ONLY_OUTPUT = "output"
"""What the output of a function is called that returns one tensor without a name."""

_EXPECTED_INPUT = 'annotate it as in Tensor["float32", "n", 3]'
_EXPECTED_RETURN = "expected a Tensor, or a TypedDict, NamedTuple or dataclass of them"


class Form:
    """The inputs and outputs of one function. ``title`` is what errors call it ("predict of Sentiment")."""

    def __init__(
        self,
        title: str,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        defaults: Mapping[str, Array],
        *,
        bare: bool,
        streamed: bool = False,
    ) -> None:
        self.title = title
        self.inputs = inputs
        self.outputs = outputs
        self.defaults = defaults
        self.bare = bare
        """Whether it returns one tensor, without a name."""
        self.streamed = streamed
        """Whether it gives its outputs in parts, each of this form."""

    def input_specs(self) -> dict[str, TensorSpec]:
        """Return the inputs as a signature has them."""
        return {name: hint.spec(name) for name, hint in self.inputs.items()}

    def output_specs(self) -> dict[str, TensorSpec]:
        """Return the outputs as a signature has them."""
        return {name: hint.spec(name) for name, hint in self.outputs.items()}

    def arguments(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, int]]:
        """Return what to call the function with, and the free sizes by name.

        INVALID_ARGUMENT names the input whose shape does not fit, or whose bytes are no UTF-8.
        """
        sizes: dict[str, int] = {}
        arguments: dict[str, Any] = {}
        for name, hint in self.inputs.items():
            array = inputs[name]
            misfit = hint.misfit(array, sizes)
            if misfit is not None:
                raise invalid_argument(f"input {name} {misfit}")
            arguments[name] = _decoded(name, array) if hint.decoded else array
        return arguments, sizes

    def results(self, value: Any, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Return what the function returned as tensors by name; INTERNAL says how it is not what it promised."""
        found = self._named(value)
        if found.keys() != self.outputs.keys():
            raise internal(f"{self.title} returned {_names(found)}; its annotation promises {_names(self.outputs)}")
        known = dict(sizes)
        return {name: self._result(name, found[name], known) for name in self.outputs}

    def _named(self, value: Any) -> Mapping[str, Any]:
        if self.bare:
            return dict.fromkeys(self.outputs, value)
        if isinstance(value, Mapping):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return typing.cast("Mapping[str, Any]", value._asdict())
        raise internal(f"{self.title} returned {type(value).__name__}; its annotation promises {_names(self.outputs)}")

    def _result(self, name: str, value: Any, sizes: dict[str, int]) -> Array:
        hint = self.outputs[name]
        try:
            array = _cast(value, hint)
        except (TypeError, ValueError) as error:
            raise internal(f"{self.title} returned as {name} what is no {hint.dtype} tensor: {error}") from None
        misfit = hint.misfit(array, sizes)
        if misfit is not None:
            raise internal(f"{self.title} returned {name}, which {misfit}")
        return array


def read_form(function: Callable[..., Any], title: str, *, may_yield: bool = False) -> Form:
    """Return the form of a function or bound method; FAILED_PRECONDITION says which annotation is missing or wrong."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001  # annotations are the user's expressions
        raise failed_precondition(f"the annotations of {title} cannot be read: {_reason(error)}") from None
    inputs: dict[str, Tensor] = {}
    defaults: dict[str, Array] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise failed_precondition(
                f"{title} takes {parameter}; expected parameters that are called like the inputs, each annotated"
            )
        hint = _tensor(hints.get(name))
        if hint is None:
            raise failed_precondition(f"parameter {name} of {title} is not annotated as a tensor; {_EXPECTED_INPUT}")
        inputs[name] = hint
        if parameter.default is not parameter.empty:
            defaults[name] = _default(parameter, hint, title)
    if "return" not in hints:
        raise failed_precondition(f"the return value of {title} is not annotated; {_EXPECTED_RETURN}")
    part = _part_of(hints["return"])
    yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if yields and part is None:
        raise failed_precondition(
            f"{title} yields, but its annotation promises one answer; "
            'annotate what it yields, as in -> Iterator[Tensor["float32", "n"]], of collections.abc'
        )
    if part is not None and not may_yield:
        raise failed_precondition(f"{title} gives parts; only predict may do that")
    outputs, bare = _outputs(hints["return"] if part is None else part, title)
    return Form(title, inputs, outputs, MappingProxyType(defaults), bare=bare, streamed=part is not None)


_ITERATORS = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)


def _part_of(hint: Any) -> Any:
    """Return the annotation of what a function yields, or ``None`` if it promises one answer."""
    if typing.get_origin(hint) in _ITERATORS:
        return next(iter(typing.get_args(hint)), None)
    return None


def _tensor(hint: Any) -> Tensor | None:
    if isinstance(hint, Tensor):
        return hint
    extras: Iterable[Any] = getattr(hint, "__metadata__", ())
    return next((extra for extra in extras if isinstance(extra, Tensor)), None)


def _outputs(hint: Any, title: str) -> tuple[dict[str, Tensor], bool]:
    single = _tensor(hint)
    if single is not None:
        return {ONLY_OUTPUT: single}, True
    named = isinstance(hint, type) and (
        typing.is_typeddict(hint) or dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")
    )
    if not named:
        raise failed_precondition(f"{title} returns {hint!r}; {_EXPECTED_RETURN}")
    try:
        fields = typing.get_type_hints(hint, include_extras=True)
    except Exception as error:  # noqa: BLE001  # annotations are the user's expressions
        raise failed_precondition(f"the annotations of {hint.__name__} cannot be read: {_reason(error)}") from None
    outputs: dict[str, Tensor] = {}
    for name, field in fields.items():
        found = _tensor(field)
        if found is None:
            raise failed_precondition(f"{hint.__name__}.{name} is not annotated as a tensor; {_EXPECTED_INPUT}")
        outputs[name] = found
    if not outputs:
        raise failed_precondition(f"{hint.__name__}, which {title} returns, has no fields")
    return outputs, False


def _default(parameter: inspect.Parameter, hint: Tensor, title: str) -> Array:
    try:
        array = _cast(parameter.default, hint)
        misfit = hint.misfit(array, {})
    except (TypeError, ValueError) as error:
        misfit = f"is no {hint.dtype} tensor: {error}"
    if misfit is not None:
        raise failed_precondition(f"the default of parameter {parameter.name} of {title} {misfit}")
    return array


def _cast(value: Any, hint: Tensor) -> Array:
    """Return a tensor of the hint's type. What would change a number other than by rounding is a ``TypeError``."""
    dtype = hint.dtype
    if dtype is STRING:
        return as_tensor(value, STRING)
    array = as_tensor(value)
    if array.dtype == dtype.numpy or not array.size:
        return as_tensor(array, dtype)
    if not np.can_cast(array.dtype, dtype.numpy, "same_kind"):
        raise TypeError(f"it is {array.dtype}")
    narrowed = array.astype(dtype.numpy)
    if dtype.numpy.kind in "iu" and not np.array_equal(narrowed, array):
        raise TypeError(f"it is {array.dtype}, with numbers that {dtype} cannot hold")
    return narrowed


def _decoded(name: str, array: Array) -> Array:
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    try:
        for index, item in enumerate(array.reshape(-1).tolist()):
            flat[index] = item.decode()
    except UnicodeDecodeError as error:
        raise invalid_argument(f"input {name} holds bytes that are not UTF-8 text: {error}") from None
    return texts


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
