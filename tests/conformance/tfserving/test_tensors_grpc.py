"""How tensors and their messages are read, by TensorFlow Serving's stubs."""

from __future__ import annotations

import pytest
from tests.conformance.tfserving.checks import outcomes, parameters
from tests.conformance.tfserving.tensor_checks import CHECKS
from tests.e2e.server_process import ServerProcess


@pytest.mark.parametrize("check", parameters(CHECKS))
def test_tensors_over_grpc(server: ServerProcess, check: str) -> None:
    failure = outcomes("tests.conformance.tfserving.tensor_checks", server.address)[check]
    assert failure is None, failure
