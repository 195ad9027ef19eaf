"""Live servers for other people's clients."""

from __future__ import annotations

from tests.e2e.fixtures import models, serve, server
from tests.e2e.server_process import show_logs_of_servers as pytest_runtest_makereport

__all__ = ["models", "pytest_runtest_makereport", "serve", "server"]
