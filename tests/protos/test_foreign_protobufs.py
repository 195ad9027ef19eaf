"""TensorFlow's, its server's and ONNX's own definitions: they live beside ours, and ours agree with theirs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OURS = """
from servable import protos
request = protos.serving.PredictRequest()
request.inputs["x"].float_val.append(1.5)
protos.onnx.ModelProto(), protos.tensorflow.SavedModel(), protos.serving.PredictionLog()
"""
THEIRS = """
import onnx
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2, predict_pb2, prediction_log_pb2, prediction_service_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_management_pb2, inference_pb2, session_service_pb2
from tensorflow.core.protobuf import fingerprint_pb2, tensor_bundle_pb2
from tensorflow_serving.config import model_server_config_pb2, platform_config_pb2
"""
MEET = """
assert predict_pb2.PredictRequest.FromString(request.SerializeToString()).inputs["x"].float_val == [1.5]
assert type(request) is not predict_pb2.PredictRequest
"""
COMPARE = """
import json, sys
from google.protobuf import descriptor_pool
theirs = descriptor_pool.Default()
NOT_SHIPPED = set()
OURS = {"PredictStreamed"}
differences, compared = [], 0

def enum(ours, other):
    names = {value.name: value.number for value in other.values}
    for value in ours.values:
        if names.get(value.name) != value.number:
            differences.append(f"{ours.full_name}.{value.name} = {value.number}, theirs {names.get(value.name)}")

def message(ours):
    global compared
    try:
        other = theirs.FindMessageTypeByName(ours.full_name)
    except KeyError:
        NOT_SHIPPED.add(ours.full_name)
        return
    compared += 1
    for field in ours.fields:
        twin = other.fields_by_name.get(field.name)
        if twin is None:
            differences.append(f"{field.full_name} is not theirs")
            continue
        proto3 = ours.full_name.split(".")[0] != "onnx"
        mine = (field.number, field.type, field.is_repeated, field.json_name, field.message_type and
                field.message_type.full_name, field.enum_type and field.enum_type.full_name,
                proto3 and field.has_presence, field.containing_oneof and field.containing_oneof.name)
        his = (twin.number, twin.type, twin.is_repeated, twin.json_name, twin.message_type and
               twin.message_type.full_name, twin.enum_type and twin.enum_type.full_name,
               proto3 and twin.has_presence, twin.containing_oneof and twin.containing_oneof.name)
        if mine != his:
            differences.append(f"{field.full_name}: {mine}, theirs {his}")
    for nested in ours.nested_types:
        message(nested)
    for nested in ours.enum_types:
        enum(nested, other.enum_types_by_name[nested.name])

for name in json.loads(sys.argv[1]):
    file = protos.pool().FindFileByName(name)
    for each in file.message_types_by_name.values():
        message(each)
    for each in file.enum_types_by_name.values():
        try:
            enum(each, theirs.FindEnumTypeByName(each.full_name))
        except KeyError:
            NOT_SHIPPED.add(each.full_name)
    for service in file.services_by_name.values():
        twin = theirs.FindServiceByName(service.full_name)
        methods = [m for m in service.methods if m.name not in OURS]
        assert [(m.name, m.input_type.full_name, m.output_type.full_name) for m in methods] == [
            (m.name, m.input_type.full_name, m.output_type.full_name) for m in twin.methods]
print(json.dumps({"differences": differences, "compared": compared, "not_shipped": sorted(NOT_SHIPPED)}))
"""
FILES = [
    "servable/onnx.proto",
    "servable/serving_apis.proto",
    "servable/serving_config.proto",
    "servable/serving_log.proto",
    "servable/tensorflow_config.proto",
    "servable/tensorflow_error.proto",
    "servable/tensorflow_example.proto",
    "servable/tensorflow_graph.proto",
    "servable/tensorflow_saved_model.proto",
    "servable/tensorflow_tensor.proto",
]
NOT_SHIPPED = [
    "PrometheusConfig", "MonitoringConfig", "SSLConfig", "BatchingParameters", "ModelWarmupOptions",
    "SessionBundleConfig", "SavedModelBundleSourceAdapterConfig",
]  # fmt: skip


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.tensorflow
def test_ours_after_theirs_and_every_field_agrees():
    pytest.importorskip("tensorflow_serving")
    found = json.loads(_python(THEIRS + OURS + MEET + COMPARE, json.dumps(FILES)).splitlines()[-1])
    assert found["differences"] == []
    assert found["not_shipped"] == sorted(f"tensorflow.serving.{name}" for name in NOT_SHIPPED)
    assert found["compared"] > 150


@pytest.mark.tensorflow
def test_theirs_after_ours():
    pytest.importorskip("tensorflow_serving")
    _python(OURS + THEIRS + MEET)


def test_every_proto_file_is_compared_or_known_to_have_no_twin():
    from servable import protos

    own = {"servable/serving_internal.proto"}
    found = {f"servable/{path.name}" for path in protos.DESCRIPTORS.parent.glob("*.proto")}
    assert found - own >= set(FILES)
