"""Our client beside other people's libraries in one process, whichever is imported first."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from tests.conformance.tools import run_tool
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.conformance

CALL = """
import sys
import numpy as np
for wire in ("grpc", "http"):
    with servable.Client(f"{wire}://" + sys.argv[1]) as client:
        answer = client.predict("half_plus_two", x=np.array([[1.0]], np.float32))
        assert answer.y.tolist() == [[2.5]], answer
        assert client.signatures("half_plus_two")["serving_default"].inputs["x"].dtype.name == "float32"
        assert client.status("half_plus_two")[0].version == 1
"""
TENSORFLOW = """
assert tf.reduce_sum(tf.constant([1.0, 2.0])).numpy() == 3.0
proto = tf.make_tensor_proto([1.0, 2.0])
assert tf.make_ndarray(type(proto).FromString(proto.SerializeToString())).tolist() == [1.0, 2.0]
"""
SERVING_API = """
from tensorflow_serving.apis import predict_pb2, get_model_metadata_pb2
request = predict_pb2.PredictRequest()
request.model_spec.name = "m"
assert type(request).FromString(request.SerializeToString()) == request
"""
ONNX = """
from onnx import TensorProto, helper
tensor = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
assert TensorProto.FromString(tensor.SerializeToString()) == tensor
"""


def run(address: str, *pieces: str) -> None:
    done = run_tool(sys.executable, "-c", "\n".join(pieces), address, timeout_s=150)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.tensorflow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_serving") is None, reason="tensorflow-serving-api is not installed"
)
@pytest.mark.parametrize("first", ["servable", "tensorflow"])
def test_with_tensorflow_and_its_serving_api(server: ServerProcess, first: str) -> None:
    imports = ["import servable", "import tensorflow as tf"]
    if first == "servable":
        run(server.address, imports[0], CALL, imports[1], TENSORFLOW, SERVING_API, CALL)
    else:
        run(server.address, imports[1], TENSORFLOW, SERVING_API, imports[0], CALL, TENSORFLOW)


@pytest.mark.parametrize("first", ["servable", "onnx"])
def test_with_onnx(server: ServerProcess, first: str) -> None:
    pieces = [ONNX, "import servable\n" + CALL]
    run(server.address, *(reversed(pieces) if first == "servable" else pieces))


def test_the_client_imports_no_framework(server: ServerProcess) -> None:
    check = """
heavy = {"tensorflow", "onnxruntime", "openvino", "torch", "grpc", "prometheus_client"} & set(sys.modules)
assert not heavy, heavy
"""
    run(server.address, "import servable", CALL, check)
