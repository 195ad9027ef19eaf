"""Makes ``descriptors.binpb`` from the ``.proto`` files beside it: ``python -m servable.protos.compile``.

Needs grpcio-tools, which only developers have; the package ships the result. The file is one serialized
FileDescriptorSet, every file after those it imports, without comments: they would make it three times as large.
"""

from __future__ import annotations

import importlib.resources
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE / "descriptors.binpb"


def descriptors() -> bytes:
    """Return what ``descriptors.binpb`` must hold; ``RuntimeError`` if a file does not compile (protoc prints why)."""
    from grpc_tools import protoc

    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors.binpb"
        failed = protoc.main(
            [
                "protoc",
                f"-Iservable={HERE}",
                f"-I{well_known}",
                "--include_imports",
                f"--descriptor_set_out={target}",
                *(f"servable/{path.name}" for path in sorted(HERE.glob("*.proto"))),
            ]
        )
        if failed:
            raise RuntimeError("protoc could not compile the .proto files")
        return target.read_bytes()


if __name__ == "__main__":
    OUTPUT.write_bytes(descriptors())
