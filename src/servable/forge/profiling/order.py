"""What is to be profiled, and how, as it goes to the process that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from servable.engines.base import Artifact

HOW = ("ops", "chrome", "cprofile", "line", "resources")
_FRAMEWORK = frozenset({"ops", "chrome"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to profile and with what. ``stats`` takes the file of Python's own profiler."""

    how: str = "ops"
    signature: str = ""
    data: Path | None = None
    batch: int = 1
    runs: int = 20
    threads: int = 0
    stats: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def by_framework(self) -> bool:
        """Return whether the framework's own profiler is asked: operations, as a table or as a trace."""
        return self.how in _FRAMEWORK


@dataclass(frozen=True, slots=True)
class Order:
    """A model, the engine it is to run in, and what is wanted; what is found goes to ``out`` as JSON."""

    artifact: Artifact
    engine: str
    precision: str
    out: Path
    wanted: Wanted

    def as_json(self) -> Any:
        """Return it for JSON."""
        return msgspec.to_builtins(self, enc_hook=str)

    @classmethod
    def from_json(cls, document: Any) -> Order:
        """Return what ``as_json`` wrote."""
        return msgspec.convert(document, cls, dec_hook=lambda kind, value: kind(value))
