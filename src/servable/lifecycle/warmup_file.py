"""Replays the requests that an artifact brings for its warm-up, in order, before it becomes available."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from servable.core.errors import ServingError, invalid_argument
from servable.core.messages import InferRequest

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
"""Within a version, as TensorFlow Serving has it."""
MOST_RECORDS = 1000


def warmup_file(artifact: Path) -> Path | None:
    """Return the file of the version that an artifact is, or lies in; ``None`` if there is none."""
    for folder in (artifact, artifact.parent):
        if (path := folder / WARMUP_FILE).is_file():
            return path
    return None


def replay(
    records: Iterable[bytes],
    where: Path,
    requests_of: Callable[[bytes], Iterable[InferRequest]],
    run: Callable[[InferRequest], None],
    iterations: int = 1,
) -> int:
    """Run every record's requests ``iterations`` times and return how many records there were.

    The first error ends it, and says which record; more than 1000 records are refused before any has run.
    """
    kept: list[bytes] = []
    for record in records:
        if len(kept) == MOST_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {where}")
        kept.append(record)
    for number, record in enumerate(kept, 1):
        try:
            for request in requests_of(record):
                for _ in range(max(1, iterations)):
                    run(request)
        except ServingError as error:
            raise ServingError(error.code, f"{error.message} (record {number} of {where})") from error
    return len(kept)
