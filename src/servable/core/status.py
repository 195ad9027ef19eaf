"""The states a version goes through, as every wire, page and metric reports them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from servable.core.errors import ServingError


class VersionState(IntEnum):
    """Where a version is in its life. The numbers are TensorFlow Serving's; END is final, reached by failure too."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version as the server sees it now. ``error`` says why it failed; ``None`` means that all is well.

    ``engine`` and ``precision`` name what computes, ``reason`` why that was chosen; empty until it is known.
    """

    version: int
    state: VersionState
    error: ServingError | None = None
    engine: str = ""
    precision: str = ""
    reason: str = ""
