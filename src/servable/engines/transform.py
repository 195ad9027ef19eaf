"""``transform.py`` beside a model: ``request`` makes the model's inputs, ``response`` the client's outputs.

Both are functions with annotations like those of ``predict``; either may be missing. The parameters of ``request`` are
what clients send, what it returns are inputs of the model; the parameters of ``response`` are outputs of the model,
what it returns is what clients get. They apply to the default signature, or to the only one. Others stay as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from servable.core.errors import failed_precondition
from servable.core.hints import Tensor
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines.base import Model
from servable.engines.python_code import import_file
from servable.engines.python_function import Function
from servable.engines.python_hints import read_form


class TransformedModel(Model):
    """A model between the two functions of a transform; takes the model over."""

    def __init__(self, model: Model, request: Function | None, response: Function | None, name: str) -> None:
        self.engine = model.engine
        self.precision = model.precision
        self.uses = model.uses
        self._model = model
        self._request = request
        self._response = response
        self._name = name
        inner = model.signatures[name]
        self._defaults = inner.defaults
        served = Signature(
            name,
            request.form.input_specs() if request else inner.inputs,
            response.form.output_specs() if response else inner.outputs,
            inner.method_name,
            request.form.defaults if request else inner.defaults,
            inner.streamed,
        )
        self.signatures = {**model.signatures, name: served}

    def begin_profile(self) -> bool:
        """Look at the model."""
        return self._model.begin_profile()

    def end_profile(self) -> list[Span]:
        """Return what it did."""
        return self._model.end_profile()

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Transform, compute, transform."""
        if signature != self._name:
            return self._model.run(signature, inputs, outputs)
        return self._after(self._model.run(signature, self._before(inputs), self._wanted(outputs)), outputs)

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        """Transform the inputs, and then each part."""
        if signature != self._name:
            yield from self._model.stream(signature, inputs, outputs)
            return
        with contextlib.closing(self._model.stream(signature, self._before(inputs), self._wanted(outputs))) as parts:
            for part in parts:
                yield self._after(part, outputs)

    def _before(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return inputs if self._request is None else {**self._defaults, **self._request(inputs)}

    def _wanted(self, outputs: Sequence[str]) -> Sequence[str]:
        return outputs if self._response is None else tuple(self._response.form.inputs)

    def _after(self, found: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self._response is None:
            return found
        answer = self._response(found)
        return {name: answer[name] for name in outputs}

    def close(self) -> None:
        """Close the model."""
        for function in (self._request, self._response):
            if function is not None:
                function.close()
        self._model.close()


def transformed(model: Model, path: Path) -> Model:
    """Return the model with the transform of that file around it.

    FAILED_PRECONDITION says what is wrong with the file, or where it does not fit the model.
    """
    module = import_file(path)
    name = _signature_name(model, path)
    inner = model.signatures[name]
    request = _function(module, "request", path)
    response = _function(module, "response", path)
    if request is None and response is None:
        raise failed_precondition(f"{path} defines neither request nor response")
    if request is not None:
        _fit_request(request, inner)
    if response is not None:
        form = response.form
        _fit(f"{form.title} takes", form.inputs, "output", inner.outputs)
    return TransformedModel(model, request, response, name)


def _signature_name(model: Model, path: Path) -> str:
    names = list(model.signatures)
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if len(names) == 1:
        return names[0]
    raise failed_precondition(
        f"{path} transforms the signature {DEFAULT_SIGNATURE}, which the model lacks; it has {', '.join(names)}"
    )


def _function(module: ModuleType, name: str, path: Path) -> Function | None:
    function: Callable[..., object] | None = getattr(module, name, None)
    if function is None:
        return None
    if not callable(function):
        raise failed_precondition(f"{name} in {path} is no function")
    return Function(function, read_form(function, f"{name} of {path.name}"), from_client=name == "request")


def _fit_request(request: Function, inner: Signature) -> None:
    form = request.form
    if form.bare:
        if len(inner.inputs) != 1:
            raise failed_precondition(
                f"{form.title} returns one tensor without a name, but the model has the inputs "
                f"{', '.join(inner.inputs)}; return them by name, in a TypedDict"
            )
        (name,), (hint,) = inner.inputs, form.outputs.values()
        form.outputs = {name: hint}
    _fit(f"{form.title} returns", form.outputs, "input", inner.inputs)
    missing = [name for name in inner.inputs if name not in form.outputs and name not in inner.defaults]
    if missing:
        raise failed_precondition(f"{form.title} does not return {', '.join(missing)}, which the model needs")


def _fit(what: str, hints: Mapping[str, Tensor], kind: str, specs: Mapping[str, TensorSpec]) -> None:
    for name, hint in hints.items():
        spec = specs.get(name)
        if spec is None:
            raise failed_precondition(f"{what} {name}, which is no {kind} of the model; it has {', '.join(specs)}")
        if hint.dtype != spec.dtype or not _compatible(hint, spec):
            raise failed_precondition(f"{what} {name} as {hint}; the model's {kind} is {spec}")


def _compatible(hint: Tensor, spec: TensorSpec) -> bool:
    if hint.shape is None or spec.shape is None:
        return True
    return len(hint.shape) == len(spec.shape) and all(
        None in pair or pair[0] == pair[1] for pair in zip(hint.shape, spec.shape, strict=True)
    )
