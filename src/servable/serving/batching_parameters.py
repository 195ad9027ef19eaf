"""TensorFlow Serving's batching parameters: what its users wrote into files, with its names, units and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from servable.core.errors import invalid_argument


@dataclass(frozen=True, slots=True)
class BatchingParameters:
    """How rows of different requests of one signature become batches. INVALID_ARGUMENT if they contradict each other.

    ``max_batch_size`` bounds the rows of one request, and without splitting those of a batch too.
    ``batch_timeout_micros`` is the age of its oldest request at which a batch runs although it is not full.
    ``max_enqueued_batches`` bounds the queue of each signature. ``num_batch_threads`` is how many batches run at once,
    of all models together; ``None`` is one for each CPU. A batch is filled up to the next of ``allowed_batch_sizes``,
    and with ``pad_variable_length_inputs`` its inputs to the longest. ``enable_large_batch_splitting`` cuts requests
    into batches of at most ``max_execution_batch_size`` rows; ``None`` is ``max_batch_size``.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int | None = None
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse what TensorFlow Serving refuses, with its words where it has any."""
        for name in ("max_batch_size", "num_batch_threads", "max_execution_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise invalid_argument(f"{name} must be positive; was {value}")
        for name in ("batch_timeout_micros", "max_enqueued_batches"):
            value = getattr(self, name)
            if value < 0:
                raise invalid_argument(f"{name} must be non-negative; was {value}")
        if self.max_enqueued_batches == 0:
            if self.enable_large_batch_splitting:
                raise invalid_argument("max_enqueued_batches must be positive with enable_large_batch_splitting; was 0")
            object.__setattr__(self, "max_enqueued_batches", 1)
        if self.execution_batch_size > self.max_batch_size:
            raise invalid_argument(
                f"max_execution_batch_size ({self.execution_batch_size}) must not be larger than "
                f"max_batch_size ({self.max_batch_size})"
            )
        self._check_allowed_sizes()

    @property
    def execution_batch_size(self) -> int:
        """Return the rows of a batch at most."""
        if not self.enable_large_batch_splitting or self.max_execution_batch_size is None:
            return self.max_batch_size
        return self.max_execution_batch_size

    def _check_allowed_sizes(self) -> None:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if sizes[0] < 1 or any(one >= other for one, other in pairwise(sizes)):
            listed = ", ".join(map(str, sizes))
            raise invalid_argument(f"allowed_batch_sizes entries must be positive and increasing; were {listed}")
        if sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; "
                f"expected {self.max_batch_size}"
            )
