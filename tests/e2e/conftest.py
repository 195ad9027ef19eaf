"""Live servers for whole-program tests."""

from __future__ import annotations

from tests.e2e.fixtures import models, pytest_collection_modifyitems, serve, server, tensorflow_server
from tests.e2e.server_process import show_logs_of_servers as pytest_runtest_makereport

__all__ = [
    "models",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
    "serve",
    "server",
    "tensorflow_server",
]
