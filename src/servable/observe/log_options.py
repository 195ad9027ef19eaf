"""What is to be written down of the requests of one model."""

from __future__ import annotations

from dataclasses import dataclass

from servable.core.errors import invalid_argument


@dataclass(frozen=True, slots=True)
class RequestLogOptions:
    """One model's request log: a share ``sampling_rate`` (0 to 1) of its requests, with their answers.

    Files are called ``filename_prefix``, a time, a number and the ending of their ``type`` (``tfrecord``: records of
    PredictionLog). A file of ``max_file_bytes`` is followed by the next, and with ``max_files`` above 0 the oldest one
    of this process goes.
    """

    filename_prefix: str
    sampling_rate: float = 0.0
    type: str = "tfrecord"
    max_file_bytes: int = 64 * 1024 * 1024
    max_files: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant. INVALID_ARGUMENT names the field."""
        if self.type != "tfrecord":
            raise invalid_argument(f"Cannot find LogCollector::Factory for type: {self.type}; there is tfrecord")
        if not self.filename_prefix:
            raise invalid_argument("filename_prefix is missing: where the files go and how their names begin")
        if not 0 <= self.sampling_rate <= 1:
            raise invalid_argument(f"sampling_rate is a share of the requests from 0 to 1, not {self.sampling_rate:g}")
        if self.max_file_bytes < 1 or self.max_files < 0:
            raise invalid_argument("max_file_bytes must be at least 1 and max_files at least 0")
