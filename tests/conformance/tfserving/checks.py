"""What check programs share: TensorFlow Serving's stubs without TensorFlow, and how a check says what it found.

A program is run by ``outcomes`` in a process of its own, because the stubs register their messages there. Its checks
are functions ``check_*`` of an ``Api``; ``@rule(...)`` names the rules of docs/reference/tfserving.md that one judges.
"""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.conformance import serving_api_checks
from tests.conformance.serving_api_checks import Check, rule

__all__ = ["TIMEOUT_S", "Api", "Check", "checks_in", "main", "outcomes", "parameters", "rule"]
ROOT = Path(__file__).parents[3]
TIMEOUT_S = 10.0


class Api(serving_api_checks.Api):
    """The stubs of one channel, and the modules of their messages as attributes: ``api.regression`` and so on."""

    def __init__(self, address: str, *arguments: str) -> None:
        super().__init__(address, with_tensorflow=False)
        self.get_model_metadata: Any
        self.get_model_status: Any
        self.classification: Any
        self.model_management: Any
        self.regression: Any = importlib.import_module("tensorflow_serving.apis.regression_pb2")
        self.inference: Any = importlib.import_module("tensorflow_serving.apis.inference_pb2")
        self.example: Any = importlib.import_module("tensorflow.core.example.example_pb2")
        self.channel = grpc.insecure_channel(address)
        self.arguments = arguments

    def fails_with(self, call: Callable[[], Any], code: grpc.StatusCode, begin: str) -> None:
        """Expect an error whose text begins so."""
        found, text = self.error_of(call)
        assert found is code, (found, text)
        assert text.startswith(begin), f"{text!r} does not begin with {begin!r}"

    @staticmethod
    def error_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
        """Return code and text of the error that a call must end with."""
        try:
            reply = call()
        except grpc.RpcError as failure:
            error: Any = failure
            return error.code(), error.details()
        raise AssertionError(f"an error was expected, and {reply} came")


def main(checks: Mapping[str, Check]) -> None:
    """Run all checks of a program and print a line of JSON for each: its name, and what went wrong or null."""
    api = Api(*sys.argv[1:])
    for name, check in checks.items():
        try:
            check(api)
        except Exception:  # whatever it is, it is what the check found
            print(json.dumps([name, traceback.format_exc()]))  # noqa: T201  # the program's result
        else:
            print(json.dumps([name, None]))  # noqa: T201


def checks_in(names: Mapping[str, Any]) -> dict[str, Check]:
    """Return the checks among the names of a module."""
    return {name: found for name, found in names.items() if name.startswith("check_")}


@functools.cache
def outcomes(module: str, *arguments: str) -> dict[str, str | None]:
    """Return what each check of a program found; the program runs once for all of them."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


def parameters(checks: Mapping[str, Check]) -> list[Any]:
    """Return a test parameter for each check, with the marker of its rules."""
    rules = {name: getattr(check, "rules", ()) for name, check in checks.items()}
    return [pytest.param(name, marks=[pytest.mark.rule(*ids)] if ids else []) for name, ids in rules.items()]
