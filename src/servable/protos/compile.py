"""Makes ``descriptors.binpb`` from the ``.proto`` files beside it: ``python -m servable.protos.compile``.

Needs grpcio-tools, which only developers have; the package ships the result. The file is one serialized
FileDescriptorSet, every file after those it imports, without comments: they would make it three times as large.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE / "descriptors.binpb"


def descriptors() -> bytes:
    """Return what ``descriptors.binpb`` must hold; ``RuntimeError`` has the compiler's words if it cannot be made.

    The compiler runs in a process of its own: beside TensorFlow, which brings another C++ protobuf, it crashes.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.binpb"
        files = [f"servable/{path.name}" for path in sorted(HERE.glob("*.proto"))]
        paths = [f"-Iservable={HERE}", "--include_imports", f"--descriptor_set_out={target}"]
        done = subprocess.run(  # noqa: S603  # our own files, our own interpreter
            [sys.executable, "-m", "grpc_tools.protoc", *paths, *files], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"the .proto files were not compiled: {done.stderr.strip()}")
        return target.read_bytes()


if __name__ == "__main__":
    OUTPUT.write_bytes(descriptors())
