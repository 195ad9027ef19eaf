"""Servable takes a trained model and makes it a fast, verified, measured service."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servable import forge
    from servable.app import Server
    from servable.client import AsyncClient, Client, Prediction
    from servable.core.errors import Code, ServingError
    from servable.core.hints import Tensor
    from servable.settings import ServeSettings

__all__ = ["AsyncClient", "Client", "Code", "Prediction", "ServeSettings", "Server", "ServingError", "Tensor", "forge"]

_HOMES = {
    "AsyncClient": "servable.client",
    "Client": "servable.client",
    "Code": "servable.core.errors",
    "Prediction": "servable.client",
    "ServeSettings": "servable.settings",
    "Server": "servable.app",
    "ServingError": "servable.core.errors",
    "Tensor": "servable.core.hints",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a client need not load the server."""
    if name == "forge":
        return importlib.import_module("servable.forge")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'servable' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
