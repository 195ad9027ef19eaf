"""Models for bench.reload_soak: every version has weights of its own, so answers tell which one gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from servable.core.tensors import Array
from servable.protos import serving

WIDTH, HIDDEN, OUTPUTS = 64, 2048, 4
"""So large that it is the server, not the load, that is busy first."""
AT_FIRST = (("moving", 1), ("labelled", 1), ("labelled", 2), ("guest", 1))
"""Models and versions that are there when it begins; the guest is not served yet."""


def weights(model: str, version: int) -> list[Array]:
    rng = np.random.default_rng([*model.encode(), version])
    shapes = ((WIDTH, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, OUTPUTS))
    return [(rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for shape in shapes]


def write_version(folder: Path, model: str, version: int) -> None:
    nodes, last = [], "x"
    for index, name in enumerate("abc"):
        nodes.append(helper.make_node("MatMul", [last, name], [f"product_{name}"]))
        last = f"hidden_{name}" if index < 2 else "y"
        nodes.append(helper.make_node("Tanh", [f"product_{name}"], [last]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(each, name) for each, name in zip(weights(model, version), "abc", strict=True)],
    )
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )


def samples() -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal((1 + index % 4, WIDTH)).astype(np.float32) for index in range(24)]


def answers(model: str, version: int, questions: list[Array]) -> list[Array]:
    a, b, c = weights(model, version)
    return [np.tanh(np.tanh(np.tanh(x @ a) @ b) @ c) for x in questions]


def config_of(folder: Path, label: int, *, with_guest: bool) -> Any:
    """Return the whole list of models."""
    config = serving.ModelServerConfig()
    for name in ("moving", "labelled", *(("guest",) if with_guest else ())):
        config.model_config_list.config.add(name=name, base_path=str(folder / name))
    labelled = config.model_config_list.config[1]
    labelled.model_version_policy.all.SetInParent()
    labelled.version_labels["stable"] = label
    return config
