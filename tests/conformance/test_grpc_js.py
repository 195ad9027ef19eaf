"""grpc-js, another implementation of gRPC and of HTTP/2, against our server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.conformance.tools import NODE, needs, run_tool
from tests.e2e.server_process import ServerProcess

from servable import protos

pytestmark = [
    pytest.mark.conformance,
    needs("node"),
    pytest.mark.skipif(not (NODE / "node_modules").exists(), reason="no grpc-js: make conformance-tools"),
]
CLIENT = NODE / "client.js"
CHECKS = re.findall(r"^  async (\w+)\(\) \{", CLIENT.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def outcomes(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Return what each check found; the program runs once for all of them."""
    folder = tmp_path_factory.mktemp("protos")
    # Our definitions import each other from there.
    (folder / "servable").symlink_to(Path(protos.__file__).parent)
    done = run_tool("node", CLIENT, server.address, folder, timeout_s=150)
    assert done.returncode == 0, done.stderr.decode()
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("check", CHECKS)
def test_client_of_javascript(outcomes: dict[str, str | None], check: str) -> None:
    failure = outcomes[check]
    assert failure is None, failure
