"""Classify, Regress and MultiInference by TensorFlow Serving's stubs, against what TensorFlow itself computes."""

from __future__ import annotations

import pytest
from tests.conformance.tfserving.checks import outcomes, parameters
from tests.conformance.tfserving.example_checks import CHECKS
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess


@pytest.mark.parametrize("check", parameters(CHECKS))
def test_examples_over_grpc(heads_server: ServerProcess, models: LiveModels, check: str) -> None:
    module = "tests.conformance.tfserving.example_checks"
    failure = outcomes(module, heads_server.address, str(models.heads_answers()))[check]
    assert failure is None, failure
