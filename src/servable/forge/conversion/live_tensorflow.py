"""Keras models, ``tf.Module``s and ``tf.function``s as live models. Runs where TensorFlow is imported.

Each becomes a SavedModel through ``ExportArchive`` with one endpoint of named inputs and outputs: the one path that
keeps all names. Every other format is made from that SavedModel.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import ServingError, failed_precondition, invalid_argument, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import Array, as_tensor
from servable.engines.base import Artifact
from servable.forge.arrays import Tensors
from servable.forge.conversion.live import LiveModel, Naming, check_names, fixed, named_outputs, read_spec
from servable.forge.steps import Facts, Task

_MADE_UP_NAME = re.compile(r"keras_tensor(_\d+)?|input_layer(_\d+)?|input_\d+")


def is_keras(model: Any) -> bool:
    """Return whether it is a Keras model or layer."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.layers.Layer)


def is_function(model: Any) -> bool:
    """Return whether it is a ``tf.function``, a concrete function, or a ``tf.Module`` (or restored object) to call."""
    tf = sys.modules["tensorflow"]
    if isinstance(model, tf.types.experimental.GenericFunction | tf.types.experimental.ConcreteFunction):
        return True
    return isinstance(model, tf.Module | tf.__internal__.tracking.Trackable) and _entry(tf, model) is not None


class LiveEndpoint(LiveModel):
    """What TensorFlow traces: a function from named inputs to named outputs, and what holds its variables."""

    def __init__(self, trackable: Any, call: Callable[[dict[str, Any]], Any], inputs: Any, naming: Naming) -> None:
        tf = sys.modules["tensorflow"]
        check_names([naming.signature], "a signature")
        check_names(list(inputs), "an input")
        self._tf, self._trackable = tf, trackable
        wanted = fixed(Signature(naming.signature, inputs, {}), naming.rows).inputs
        self._specs = {name: tf.TensorSpec(spec.shape, spec.dtype.name, name=name) for name, spec in wanted.items()}
        own: list[str] = []

        def first(given: dict[str, Any]) -> list[Any]:
            names, values = _flat_outputs(call(given), self._own_outputs())
            own[:] = names
            return values

        shapes = tf.function(first).get_concrete_function(self._specs).structured_outputs
        places = named_outputs(own, naming.outputs)
        check_names(list(places), "an output")

        def endpoint(given: dict[str, Any]) -> dict[str, Any]:
            _, values = _flat_outputs(call(given), self._own_outputs())
            return {name: values[place] for name, place in places.items()}

        self._endpoint = endpoint
        self._traced: Any = None
        outputs = {name: read_spec(name, shapes[place]) for name, place in places.items()}
        self.signature = Signature(naming.signature, wanted, outputs)

    def _own_outputs(self) -> Sequence[str] | None:
        """Return the model's names of its outputs in order, if it has such."""
        return None

    def answer(self, inputs: Tensors) -> dict[str, Array]:
        """Compute in graph mode, as a server would."""
        if self._traced is None:
            self._traced = self._tf.function(self._endpoint)
        given = {name: self._tf.constant(as_tensor(value)) for name, value in inputs.items()}
        return {name: as_tensor(_numpy(value)) for name, value in self._traced(given).items()}

    def write(self, kind: str, target: Path, task: Task) -> Facts:
        """Write a SavedModel, and any other format from it."""
        if kind == "saved_model":
            return self._save(target)
        from servable.forge.conversion import saved_models as onward

        writers = {
            "onnx": onward.to_onnx,
            "openvino": onward.to_openvino,
            "tflite": onward.to_tflite,
            "graph_def": onward.to_graph_def,
        }
        if kind not in writers:
            raise unimplemented(
                f"a model of {self.framework} does not become {kind}; there are saved_model, {', '.join(writers)}"
            )
        # Beside the target: the files of a large model do not belong on another, smaller disk.
        if kind == "tflite":
            task = replace(task, options={**task.options, "signature": None})  # which holds both names
        with tempfile.TemporaryDirectory(dir=target.parent) as between:
            self._save(Path(between))
            try:
                return writers[kind](Artifact("saved_model", Path(between)), target, task)
            except ServingError as error:  # nobody knows the folder between
                raise ServingError(error.code, error.message.replace(between, self.origin)) from error

    def _save(self, target: Path) -> Facts:
        import keras

        archive = keras.export.ExportArchive()
        if self._trackable is not None:
            archive.track(self._trackable)
        # Any function tracks the variables that it uses; tables and assets need their owner above.
        archive.add_endpoint(self.signature.name, self._endpoint, input_signature=[self._specs])
        try:
            archive.write_out(str(target), verbose=False)
        except (ValueError, TypeError, AssertionError) as error:
            raise failed_precondition(f"TensorFlow cannot save this model: {_line(error)}") from error
        names = dict.fromkeys((self.signature.name, DEFAULT_SIGNATURE))
        return {"signatures": {name: name for name in names}}


class LiveKeras(LiveEndpoint):
    """A Keras model: functional, sequential, or of a class of its own."""

    framework = "Keras"

    def __init__(self, model: Any, naming: Naming) -> None:
        keras = sys.modules["keras"]
        if keras.backend.backend() != "tensorflow":
            raise failed_precondition(
                f"Keras computes with {keras.backend.backend()} here, and a SavedModel needs KERAS_BACKEND=tensorflow"
            )
        if _keras_tensors(keras, naming):
            model, naming = _part(keras, naming)
        self._model = model
        inputs, call = _keras_call(keras, model, naming)
        super().__init__(model, call, inputs, naming)

    def _own_outputs(self) -> Sequence[str] | None:
        functional = getattr(self._model, "_functional", None)
        names = getattr(self._model, "output_names", None) or getattr(functional, "output_names", None)
        return list(names) if names else None


class LiveFunction(LiveEndpoint):
    """A ``tf.function``, or a ``tf.Module`` through its ``__call__`` or ``serve``."""

    framework = "TensorFlow"

    def __init__(self, model: Any, naming: Naming) -> None:
        tf = sys.modules["tensorflow"]
        function = _entry(tf, model)
        parameters = _parameters(tf, function)
        inputs = _function_inputs(parameters, naming)
        positional = isinstance(function, tf.types.experimental.ConcreteFunction)

        def call(given: dict[str, Any]) -> Any:
            if len(given) == 1 and positional:
                return function(*given.values())
            return function(**given)

        if not set(inputs) <= set(parameters) and "**" not in parameters:
            # Renamed: by place.
            def call(given: dict[str, Any]) -> Any:
                return function(*given.values())

        trackable = model if isinstance(model, tf.__internal__.tracking.Trackable) and function is not model else None
        super().__init__(trackable, call, inputs, naming)


def _entry(tf: Any, model: Any) -> Any:
    """Return the function that a model is called by, ``None`` if there is none."""
    if isinstance(model, tf.types.experimental.GenericFunction | tf.types.experimental.ConcreteFunction):
        return model
    for name in ("__call__", "serve", "call"):
        found = getattr(model, name, None)
        if callable(found):
            return found
    return None


def _parameters(tf: Any, function: Any) -> dict[str, Any]:
    """Return the parameters -> the spec that the function itself states, or ``None``; ``**`` if it takes any name."""
    if isinstance(function, tf.types.experimental.ConcreteFunction):
        args, named = function.structured_input_signature
        specs = {spec.name or f"input_{place}": spec for place, spec in enumerate(args)}
        return specs | dict(named)
    stated = getattr(function, "input_signature", None)
    python = getattr(function, "python_function", function)
    parameters = [one for one in inspect.signature(python).parameters.values() if one.name != "self"]
    names = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    found: dict[str, Any] = dict.fromkeys(names)
    if stated is not None:
        found |= dict(zip(names, stated, strict=False))
    required = {one.name for one in parameters if one.default is one.empty}
    found = {name: spec for name, spec in found.items() if spec is not None or name in required}
    return found | ({"**": None} if any(one.kind is one.VAR_KEYWORD for one in parameters) else {})


def _function_inputs(parameters: Mapping[str, Any], naming: Naming) -> dict[str, TensorSpec]:
    if naming.inputs is not None:
        return {name: read_spec(name, said) for name, said in naming.inputs.items()}
    unstated = [name for name, spec in parameters.items() if spec is None]
    if unstated:
        raise invalid_argument(
            f"the function does not say what {', '.join(unstated)} is: give inputs, such as "
            f"{{{unstated[0]!r}: 'float32[?,3]'}}, or an input_signature"
        )
    return {name: read_spec(name, spec) for name, spec in parameters.items()}


def _keras_tensors(keras: Any, naming: Naming) -> bool:
    values = [*(naming.inputs or {}).values()]
    values += naming.outputs.values() if isinstance(naming.outputs, Mapping) else []
    return any(isinstance(value, keras.KerasTensor) for value in values)


def _part(keras: Any, naming: Naming) -> tuple[Any, Naming]:
    """Return the part of a functional model between the Keras tensors that were named."""
    inputs, outputs = naming.inputs or {}, naming.outputs
    given = [*inputs.values(), *(outputs.values() if isinstance(outputs, Mapping) else [None])]
    if not inputs or not all(isinstance(value, keras.KerasTensor) for value in given):
        raise invalid_argument("where one input or output is a Keras tensor, all must be")
    assert isinstance(outputs, Mapping)
    model = keras.Model(list(inputs.values()), list(outputs.values()))
    specs = {name: read_spec(name, tensor) for name, tensor in inputs.items()}
    return model, Naming(naming.signature, specs, list(outputs), naming.rows)


def _keras_call(keras: Any, model: Any, naming: Naming) -> tuple[dict[str, TensorSpec], Callable[..., Any]]:
    """Return the inputs by name, and what calls the model with them, in inference mode."""
    own = getattr(model, "inputs", None)
    if not own:
        return _subclass_call(model, naming)
    struct = getattr(model, "_inputs_struct", None)
    struct = own if struct is None else struct
    flat = keras.tree.flatten(struct)
    names = (
        list(struct) if isinstance(struct, dict) else [_input_name(one, place, flat) for place, one in enumerate(flat)]
    )
    if isinstance(struct, dict):
        flat = [struct[name] for name in names]
    specs = {name: read_spec(name, one) for name, one in zip(names, flat, strict=True)}
    if naming.inputs is not None:
        specs, names = _renamed(specs, naming.inputs)

    def call(given: dict[str, Any]) -> Any:
        values = [given[name] for name in specs]
        if isinstance(struct, dict):
            return model(dict(zip(names, values, strict=True)), training=False)
        if len(values) == 1 and not isinstance(getattr(model, "_inputs_struct", None), list | tuple):
            return model(values[0], training=False)
        return model(values, training=False)

    return specs, call


def _renamed(own: Mapping[str, TensorSpec], wished: Mapping[str, Any]) -> tuple[dict[str, TensorSpec], list[str]]:
    """Return the inputs under the names wished for, and the model's own names of them, in that order."""
    if len(wished) != len(own):
        raise invalid_argument(
            f"inputs {', '.join(wished)}: the model has {len(own)} ({', '.join(own)}); name each once"
        )
    same = set(wished) == set(own)
    pairs = {name: name if same else list(own)[place] for place, name in enumerate(wished)}
    specs = {
        name: TensorSpec(name, own[source].dtype, own[source].shape)
        if wished[name] is None
        else read_spec(name, wished[name])
        for name, source in pairs.items()
    }
    for name, source in pairs.items():
        if specs[name].dtype != own[source].dtype:
            raise invalid_argument(f"input {name}: {specs[name]} was asked for, and the model takes {own[source]}")
    return specs, list(pairs.values())


def _subclass_call(model: Any, naming: Naming) -> tuple[dict[str, TensorSpec], Callable[..., Any]]:
    if naming.inputs is None:
        raise invalid_argument(
            f"{type(model).__name__} is a class of its own, which does not say what it takes: give inputs, "
            "such as {'x': 'float32[?,3]'}"
        )
    specs = {name: read_spec(name, said) for name, said in naming.inputs.items()}
    parameters = inspect.signature(model.call).parameters
    by_name = len(specs) > 1 and set(specs) <= set(parameters)
    training = {"training": False} if "training" in parameters else {}

    def call(given: dict[str, Any]) -> Any:
        if by_name:
            return model(**given, **training)
        return model(next(iter(given.values())) if len(given) == 1 else given, **training)

    return specs, call


def _input_name(tensor: Any, place: int, all_inputs: Sequence[Any]) -> str:
    """Return the name that somebody gave; what Keras counts up on its own is no name."""
    for name in (tensor.name, tensor._keras_history.operation.name):  # noqa: SLF001  # the layer of that input
        if not _MADE_UP_NAME.fullmatch(name):
            return str(name)
    return "input" if len(all_inputs) == 1 else f"input_{place + 1}"


def _flat_outputs(outputs: Any, own: Sequence[str] | None) -> tuple[list[str], list[Any]]:
    if isinstance(outputs, Mapping):
        return list(map(str, outputs)), list(outputs.values())
    if hasattr(outputs, "_fields"):
        return list(outputs._fields), list(outputs)
    values = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    if own is not None and len(own) == len(values) and len(set(own)) == len(own):
        return list(own), values
    return [f"output_{place}" for place in range(len(values))], values


def _numpy(value: Any) -> Array:
    array = value.numpy()
    return np.array(array, dtype=object) if isinstance(array, bytes) else np.asarray(array)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
