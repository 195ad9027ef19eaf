"""How requests of one signature are run, decided once at load, and which of them may share a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array
from servable.lifecycle.warmup import SignatureProfile
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.execution import Padding
from servable.serving.scheduling import Schedule

HIGHEST_RAGGED_RANK = 6


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """``auto``: merge rows of signatures that warm-up proved row-wise; ``off``: never.

    A batch of at most ``inline_s`` measured seconds runs on the event loop. Queues are bounded, unbatched ones too.
    ``parameters`` are TensorFlow Serving's for all models, with ``--enable_batching``; else ``None``.
    """

    mode: str = "auto"
    max_rows: int = 32
    max_queued: int = 4096
    inline_s: float = 0.0003
    parameters: BatchingParameters | None = None


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """``merge``: rows of different requests may share a batch, for that ``reason``; ``ragged``: those of different
    lengths too.

    A batch of up to ``inline_rows`` rows runs on the event loop.
    """

    signature: Signature
    outputs: tuple[str, ...]
    merge: bool
    inline_rows: int
    reason: str
    ragged: bool = False

    def batch_of(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> tuple[Hashable, int] | None:
        """Return what a request must share with others to run beside them, and its rows; ``None``: it runs alone."""
        rows = -1
        shapes: list[Hashable] = []
        for name, array in inputs.items():
            shape = array.shape
            if not shape or (rows >= 0 and shape[0] != rows):
                return None
            rows = shape[0]
            if not self.ragged:
                shapes.append(shape[1:])
            elif 0 in shape or len(shape) > HIGHEST_RAGGED_RANK:
                return None
            else:
                shapes.append(_fixed_sizes(self.signature.inputs[name], shape))
        return ((self.signature.name, outputs, *shapes), rows) if rows > 0 else None


def _fixed_sizes(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    """Return the sizes that all rows of a ragged batch have; ``None`` for those that may differ."""
    if spec.shape is None or len(spec.shape) != len(shape):
        return (None,) * len(shape)
    return tuple(None if declared is None else size for declared, size in zip(spec.shape, shape, strict=True))


def plan_signature(
    signature: Signature,
    profile: SignatureProfile,
    options: BatchingOptions,
    parameters: BatchingParameters | None = None,
    *,
    local: bool,
) -> SignaturePlan:
    """Decide how requests of a signature run.

    TensorFlow Serving's ``parameters`` are an order to merge; without them warm-up must have proved that rows are
    independent. Only a model in this process whose rows all have the measured shape may run on the loop: the measured
    time would say nothing of a longer row.
    """
    if parameters is None:
        merge, reason = options.mode == "auto" and profile.rowwise, profile.reason
    else:
        merge, reason = _has_rows(signature)
    fixed = all(spec.shape is not None and None not in spec.shape[1:] for spec in signature.inputs.values())
    inline_rows = profile.rows_within(options.inline_s) if merge and local and fixed else 0
    ragged = parameters is not None and parameters.pad_variable_length_inputs
    return SignaturePlan(signature, tuple(signature.outputs), merge, inline_rows, reason, ragged)


def _has_rows(signature: Signature) -> tuple[bool, str]:
    for spec in (*signature.inputs.values(), *signature.outputs.values()):
        if spec.shape is not None and (not spec.shape or spec.shape[0] is not None):
            return False, f"{spec.name} does not begin with a free dimension"
    return True, "batching parameters say so"


def schedule_of(parameters: BatchingParameters, max_alone: int) -> Schedule:
    """Return TensorFlow Serving's parameters as the scheduler takes them."""
    return Schedule(
        max_rows=parameters.max_batch_size,
        batch_rows=parameters.execution_batch_size,
        timeout_s=parameters.batch_timeout_micros / 1e6,
        max_batches=parameters.max_enqueued_batches,
        split=parameters.enable_large_batch_splitting,
        max_alone=max_alone,
    )


def padding_of(parameters: BatchingParameters) -> Padding:
    """Return how their batches are filled up."""
    return Padding(parameters.allowed_batch_sizes, parameters.pad_variable_length_inputs)
