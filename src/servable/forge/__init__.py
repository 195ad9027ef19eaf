"""Artifact to artifact: export, convert, freeze, quantize, compress, tune; each step verified against its source."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from servable.core.usage import withhold_usage_reports

if TYPE_CHECKING:
    from servable.forge.comparison.runs import measure_model
    from servable.forge.conversion.exporting import export

__all__ = ["export", "measure_model"]

_HOMES = {"export": "servable.forge.conversion.exporting", "measure_model": "servable.forge.comparison.runs"}

withhold_usage_reports()  # before any framework is imported


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a step's process need not load all steps."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'servable.forge' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
