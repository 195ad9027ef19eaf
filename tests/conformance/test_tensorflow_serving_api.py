"""TensorFlow Serving's published client code against our server, with TensorFlow imported and without."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.serving_api_checks import CHECKS
from tests.conformance.tfserving.checks import parameters
from tests.e2e.server_process import ServerProcess

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_serving") is None, reason="tensorflow-serving-api is not installed"
    ),
]
PROGRAM = Path(__file__).with_name("serving_api_checks.py")


@functools.cache
def outcomes(address: str, variant: str) -> dict[str, str | None]:
    """Return what each check found; the program runs once for all of them."""
    done = subprocess.run(
        [sys.executable, "-W", "default", PROGRAM, address, variant],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("variant", ["stubs", "tensorflow"])
@pytest.mark.parametrize("check", parameters(CHECKS))
def test_client_of_tensorflow_serving(server: ServerProcess, check: str, variant: str) -> None:
    failure = outcomes(server.address, variant)[check]
    assert failure is None, failure
