"""What a file that cannot be read means, said alike for every format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servable.core.errors import Code, ServingError, not_found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell what the system refuses inside as a ``ServingError``: NOT_FOUND, or UNAVAILABLE for what may pass."""
    try:
        yield
    except FileNotFoundError:
        raise not_found(f"there is no file {path}") from None
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"{path} cannot be read: {error.strerror}") from error
