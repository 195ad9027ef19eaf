"""Engines with memory: they compute something simple, and remember how they were called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import Shape, Signature, TensorSpec
from servable.core.tensors import FLOAT32, Array, DType
from servable.engines.base import Model

Compute = Callable[[Mapping[str, Array]], dict[str, Array]]


def signature_of(
    name: str = "serving_default",
    *,
    inputs: Mapping[str, tuple[DType, Shape | None]] | None = None,
    outputs: Mapping[str, tuple[DType, Shape | None]] | None = None,
) -> Signature:
    def specs(given: Mapping[str, tuple[DType, Shape | None]]) -> dict[str, TensorSpec]:
        return {key: TensorSpec(key, dtype, shape, f"{key}:0") for key, (dtype, shape) in given.items()}

    return Signature(
        name,
        specs(inputs if inputs is not None else {"x": (FLOAT32, (None,))}),
        specs(outputs if outputs is not None else {"y": (FLOAT32, (None,))}),
    )


class FakeModel(Model):
    """y = 0.5 x + 2 unless told otherwise. ``gate`` makes ``run`` wait; rows above ``refuse_above`` are refused."""

    engine = "fake"

    def __init__(
        self,
        compute: Compute | None = None,
        signatures: Sequence[Signature] = (),
        *,
        refuse_above: float = float("inf"),
    ) -> None:
        self.signatures = {signature.name: signature for signature in (signatures or [signature_of()])}
        self._compute = compute or (lambda inputs: {"y": (inputs["x"] * 0.5 + 2).astype(np.float32)})
        self._refuse_above = refuse_above
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.closed = 0

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert self.gate.wait(10)
        self.threads.add(threading.current_thread().name)
        first = next(iter(inputs.values()))
        self.batches.append(first.shape[0] if first.ndim else -1)
        if first.dtype.kind == "f" and first.size and float(first.max()) > self._refuse_above:
            raise invalid_argument(f"row above {self._refuse_above}")
        results = self._compute(inputs)
        return {name: results[name] for name in outputs}

    def close(self) -> None:
        self.closed += 1
