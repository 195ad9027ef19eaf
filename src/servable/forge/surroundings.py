"""The machine that measures, and whether others keep it busy meanwhile: then times say little."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from servable.lab import machine


def surroundings() -> dict[str, Any]:
    """Return what the machine is, and the ``load_average`` of the last minute, as JSON."""
    return {**asdict(machine.describe()), "load_average": round(os.getloadavg()[0], 2)}


def fixed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what does not change from one run to the next."""
    return {name: value for name, value in found.items() if name != "load_average"}


def disturbance(found: Mapping[str, Any]) -> str:
    """Return what speaks against times that were measured here; empty if nothing does."""
    load, cores = found.get("load_average", 0.0), found["cores"]
    if load <= cores:
        return ""
    return (
        f"The machine was busy when this began (load average {load:g} on {cores} cores): "
        "times are longer than they need be, and differences between them may be chance."
    )
