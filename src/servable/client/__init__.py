"""The SDK: one async client over any wire, and a synchronous one generated from it."""

from __future__ import annotations

from servable.client.async_client import AsyncClient
from servable.client.prediction import Prediction
from servable.client.sync_client import Client

__all__ = ["AsyncClient", "Client", "Prediction"]
