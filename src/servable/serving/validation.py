"""Checks of a request against a signature, with TensorFlow Serving's words. Shapes are the artifact's business."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.core.signatures import Signature
from servable.core.tensors import Array, dtype_of

_TENSORFLOW_WORDS = {"float32": "float", "float64": "double", "float16": "half"}


def missing_signature(name: str) -> ServingError:
    """Return the error for a signature that the model does not have."""
    return failed_precondition(f'Serving signature key "{name}" not found.')


def complete_inputs(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs in the signature's order, defaults filled in; INVALID_ARGUMENT says what does not fit."""
    wanted, given = signature.inputs, inputs
    if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.defaults):
        raise _wrong_count(wanted, given)
    complete: dict[str, Array] = {}
    for position, (name, spec) in enumerate(wanted.items()):
        array = given.get(name)
        if array is None:
            array = signature.defaults.get(name)
        if array is None:
            raise invalid_argument(
                f"Signature input alias: {name}(feed name: {spec.node or name}) not found in request and no default "
                f"value provided. Inputs expected to be in the request {_names(given)}, "
                f"or default input alias set: {_names(signature.defaults)}"
            )
        if array.dtype != spec.dtype.numpy:
            raise invalid_argument(
                f"Expects arg[{position}] to be {_word(spec.dtype.name)} but {_word(dtype_of(array).name)} is provided"
            )
        complete[name] = array
    extra = given.keys() - complete.keys()
    if extra:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_names(given.keys() & wanted.keys())}, "
            f"request input: {_names(given)}"
        )
    return complete


def chosen_outputs(signature: Signature, output_filter: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outputs to compute; an empty filter means all of them."""
    if not output_filter:
        return tuple(signature.outputs)
    seen: set[str] = set()
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_names(signature.outputs)}."
            )
        if name in seen:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
        seen.add(name)
    return output_filter


def _wrong_count(wanted: Iterable[str], given: Iterable[str]) -> ServingError:
    wanted_names, given_names = set(wanted), set(given)
    return invalid_argument(
        f"input size does not match signature: {len(given_names)}!={len(wanted_names)} "
        f"len({_names(given_names)}) != len({_names(wanted_names)}). "
        f"Sent extra: {_names(given_names - wanted_names)}. "
        f"Missing but required: {_names(wanted_names - given_names)}."
    )


def _names(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _word(name: str) -> str:
    return _TENSORFLOW_WORDS.get(name, name)
