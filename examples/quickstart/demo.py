"""Build three example models, serve them, call them over REST and gRPC, and compare every answer with the reference.

    python examples/quickstart/demo.py MODELS_DIRECTORY

Stays up until Ctrl-C; with DEMO_ONCE=1 it ends by itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

import servable
from servable.zoo import catalog

MODELS = ("half_plus_two", "text_cnn_small", "lstm_tokens")


def build(directory: Path) -> None:
    for name in MODELS:
        if not (directory / name / "1").exists():
            print(f"building {name}")
            catalog.build(name, directory, kind="onnx")


def start(directory: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the server on free ports; return it and its address when it is ready."""
    command = [sys.executable, "-m", "servable", "serve", str(directory), "--listen", "127.0.0.1:0"]
    print("$", "servable", *command[3:], flush=True)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = ""
    for line in server.stdout:
        print(line, end="", flush=True)
        found = re.search(r"listening on (\S+)", line)
        address = found.group(1) if found else address
        if re.search(r"(ready|not every model is available) after", line):
            return server, address
    raise SystemExit(f"the server ended with exit code {server.wait()}")


def over_rest(address: str, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What curl would do: JSON in, JSON out, nothing but the standard library."""
    body = json.dumps({"inputs": {name: array.tolist() for name, array in inputs.items()}}).encode()
    with urllib.request.urlopen(f"http://{address}/v1/models/{model}:predict", body) as reply:
        outputs: Any = json.load(reply)["outputs"]
    return {"": np.asarray(outputs)}


def over_grpc(address: str, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with servable.Client(f"grpc://{address}") as client:
        return dict(client.predict(model, inputs=inputs).outputs)


def main() -> int:
    directory = Path(sys.argv[1])
    build(directory)
    server, address = start(directory)
    try:
        for model in MODELS:
            inputs = catalog.sample_inputs(model, rows=2, seed=7)
            right = catalog.reference(model, inputs)
            for wire, call in (("REST", over_rest), ("gRPC", over_grpc)):
                for name, answer in call(address, model, inputs).items():
                    expected = right[name or next(iter(right))]
                    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
                    shown = np.array2string(answer, precision=6, separator=", ").replace("\n", "")
                    print(f"{model:15} over {wire}: {shown}  (as the reference)")
        print("\nall answers are right", flush=True)
        if not os.environ.get("DEMO_ONCE"):
            print(f"the server stays up at {address}; Ctrl-C ends it", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    return code


if __name__ == "__main__":
    sys.exit(main())
