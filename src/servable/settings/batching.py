"""TensorFlow Serving's batching parameters from their files, and which of them hold for a version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from servable import protos
from servable.core.errors import ServingError
from servable.serving.batching_parameters import BatchingParameters
from servable.settings.text_files import TextMessage, read_text_message

PER_VERSION_FILE = "batching_params.pbtxt"
POOL_WITHOUT_FILE = "model_server_batch_threads"
"""What TensorFlow Serving calls its threads when no file of parameters is given; a label of its metrics."""
WRAPPED = (
    "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name",
    "enable_large_batch_splitting", "max_execution_batch_size",
)  # fmt: skip


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Return what a text ``BatchingParameters`` says; INVALID_ARGUMENT with file, line and field."""
    return batching_parameters(read_text_message(path, protos.serving.BatchingParameters))


def batching_parameters(found: TextMessage) -> BatchingParameters:
    """Return the parameters in a message."""
    message = found.message
    values: dict[str, Any] = {name: getattr(message, name).value for name in WRAPPED if message.HasField(name)}
    values["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
    values["pad_variable_length_inputs"] = message.pad_variable_length_inputs
    try:
        return BatchingParameters(**values)
    except ServingError as error:
        about = next((name for name in (*WRAPPED, "allowed_batch_sizes") if name in error.message), "")
        raise ServingError(error.code, f"{found.place(about, 0)}{error.message}") from None


@dataclass(frozen=True, slots=True)
class BatchingChoice:
    """Which parameters hold for a version: its model's own, those in its own file, those for all; or none."""

    for_all: BatchingParameters | None = None
    per_version: bool = False

    def parameters(self, own: BatchingParameters | None, version: Path) -> BatchingParameters | None:
        """Return them for the version at a path, whose model has its ``own`` or not. Reads its file, if asked to.

        Threads are the server's, whatever a model says of them.
        """
        found = own
        if found is None and self.per_version and self.for_all is not None:
            file = (version if version.is_dir() else version.parent) / PER_VERSION_FILE
            if not file.exists():
                return None
            found = read_batching_parameters(file)
        if found is None:
            return self.for_all
        shared = self.for_all or BatchingParameters()
        return replace(found, num_batch_threads=shared.num_batch_threads, thread_pool_name=shared.thread_pool_name)
