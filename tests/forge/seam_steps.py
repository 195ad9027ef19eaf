"""Steps that copy, spoil, crash and hang, for the tests of the workshop. Run by the worker."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition
from servable.engines.base import Artifact
from servable.forge.arrays import Tensors
from servable.forge.steps import Facts, Task


def copied(source: Artifact, target: Path, task: Task) -> Facts:
    task.report(f"copying with {len(task.samples)} samples")
    sys.stdout.write("a framework prints what it likes\n")
    shutil.copy2(source.path, target / "model.onnx")
    return {"options": dict(task.options), "rows": sum(len(next(iter(one.values()))) for one in task.samples)}


def in_parts(source: Artifact, target: Path, task: Task) -> Facts:
    """Write OpenVINO's two files."""
    import openvino

    openvino.save_model(openvino.convert_model(source.path), target / "model.xml", compress_to_fp16=False)
    return {}


def constants_apart(source: Artifact, target: Path, task: Task) -> Facts:
    """Write a model whose constants lie in a file of their own."""
    import onnx

    model = onnx.load(source.path)
    onnx.save(model, target / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return {}


def with_signatures(source: Artifact, target: Path, task: Task) -> Facts:
    """Leave the names to a file beside the model, which is half plus two as code."""
    (target / "servable.toml").write_text("[signatures]\n")
    (target / "model.py").write_text(
        "from typing import NamedTuple\n\nfrom servable import Tensor\n\n\n"
        "class Sums(NamedTuple):\n"
        "    y: Tensor['float32', ...]\n\n\n"
        "class Half:\n"
        "    def predict(self, x: Tensor['float32', ...]) -> Sums:\n"
        "        return Sums(x / 2 + 2)\n"
    )
    return {}


def littered(source: Artifact, target: Path, task: Task) -> Facts:
    """Leave a file among temporary ones, as frameworks do."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        task.report(f"littered {file.name}")
    if task.options.get("crash"):
        os.abort()
    return copied(source, target, task)


def spoiled(source: Artifact, target: Path, task: Task) -> Facts:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source.path)
    for weights in model.graph.initializer:
        spoilt = numpy_helper.to_array(weights) * np.float32(task.options.get("factor", 1.5))
        weights.CopyFrom(numpy_helper.from_array(spoilt, weights.name))
    onnx.save(model, target / "model.onnx")
    return {}


def refused(source: Artifact, target: Path, task: Task) -> Facts:
    raise failed_precondition(f"{source.path}: the operation DecodeJpeg stands in the way; split the graph before it")


def raised(source: Artifact, target: Path, task: Task) -> Facts:
    raise ValueError("a framework's own\nwords")


def crashed(source: Artifact, target: Path, task: Task) -> Facts:
    (target / "model.onnx").write_bytes(b"half")
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os.abort()


def killed(source: Artifact, target: Path, task: Task) -> Facts:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def full(source: Artifact, target: Path, task: Task) -> Facts:
    (target / "model.onnx").write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device", str(target / "model.onnx"))


def hung(source: Artifact, target: Path, task: Task) -> Facts:
    (target / "model.onnx").write_bytes(b"half")
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    task.report(f"hangs {os.getpid()} {grandchild.pid}")
    time.sleep(600)
    return {}


def doubled(source: Artifact, batches: list[Tensors], options: dict[str, Any]) -> list[Tensors]:
    """Answer for a source that no engine loads."""
    return [{"y": 2 * batch["x"]} for batch in batches]


def double(source: Artifact, target: Path, task: Task) -> Facts:
    """Make ``y = factor x`` of any file."""
    import onnx
    from onnx import TensorProto, helper

    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [float(task.options.get("factor", 2))])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [factor],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), target / "model.onnx"
    )
    return {}
