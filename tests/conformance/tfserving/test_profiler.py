"""ProfilerService, asked by TensorFlow's own client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.server_process import ServerProcess

ROOT = Path(__file__).parents[3]


@pytest.mark.rule("service-11")
def test_tensorflows_client_gets_the_request_path_and_the_operations(
    heads_server: ServerProcess, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.conformance.tfserving.profiler_client", heads_server.address, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(name.partition(".")[2] for name in found["files"]) == ["trace.json.gz", "xplane.pb"]
    assert found["planes"] == ["/host:CPU"]
    stages = ["Predict heads", "compute", "encode and write", "queue", "receive and decode"]
    assert found["lines"]["requests 1"] == stages
    assert found["lines"]["heads/1 batches"] == ["batch predict"]
    operations = [
        names for line, names in found["lines"].items() if line.startswith("heads/1 ") and "batches" not in line
    ]
    assert any("MatMul" in name for names in operations for name in names), operations
    assert 0 < found["latest_ms"] < 60_000, "times are since the beginning of the profile"
    assert "requests: " in found["watched"]
    assert "0 failed" in found["watched"]
