"""Says which tensors of a call do not fit its signature: one wording for the engines that look themselves."""

from __future__ import annotations

from collections.abc import Mapping

from servable.core.errors import ServingError, invalid_argument
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.tensors import Array


def check_shapes(signature: Signature, inputs: Mapping[str, Array]) -> None:
    """Raise INVALID_ARGUMENT if a shape is not the one declared; free dimensions take any size."""
    for name, spec in signature.inputs.items():
        if not is_like(inputs[name].shape, spec.shape):
            raise misfit(signature, inputs)


def is_like(sizes: tuple[int, ...], shape: Shape | None) -> bool:
    """Return whether an array of these sizes has the shape."""
    if shape is None:
        return True
    return len(sizes) == len(shape) and all(
        wanted is None or wanted == size for size, wanted in zip(sizes, shape, strict=True)
    )


def misfit(signature: Signature, inputs: Mapping[str, Array], detail: str = "") -> ServingError:
    """Return the error that says what came and what is expected."""
    sent = ", ".join(f"{name}: {list(inputs[name].shape)}" for name in signature.inputs)
    expected = ", ".join(f"{name}: {_declared(spec)}" for name, spec in signature.inputs.items())
    because = f" ({detail})" if detail else ""
    return invalid_argument(f"inputs of shapes {sent} do not fit; expected {expected}{because}")


def ranges(inputs: Mapping[str, Array]) -> str:
    """Return from where to where the integers of a call go: an index too high is seldom named by who looks it up."""
    return "; ".join(
        f"{name} holds {array.min()} to {array.max()}"
        for name, array in inputs.items()
        if array.dtype.kind in "iu" and array.size
    )


def _declared(spec: TensorSpec) -> str:
    return "any shape" if spec.shape is None else str(["?" if size is None else size for size in spec.shape])
