"""The committed descriptors, and the attributes that find messages in them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from servable import protos
from servable.protos import compile as protos_compile


def test_the_committed_file_is_what_the_proto_files_compile_to():
    assert protos.DESCRIPTORS.read_bytes() == protos_compile.descriptors(), "run: python -m servable.protos.compile"


def test_messages_and_enums_are_attributes_of_their_package():
    spec = protos.serving.ModelSpec(name="m", version=protos.google.Int64Value(value=3))
    assert protos.serving.ModelSpec.FromString(spec.SerializeToString()).version.value == 3
    assert protos.serving.ModelSpec is protos.serving.ModelSpec
    assert protos.tensorflow.DataType.DT_HALF == 19
    assert protos.tensorflow.DataType.Name(14) == "DT_BFLOAT16"
    assert protos.error.Code.NOT_FOUND == 5
    assert protos.onnx.TensorProto is not protos.tensorflow.TensorProto
    assert protos.serving.ModelVersionStatus.State.Name(30) == "AVAILABLE"


def test_a_name_that_does_not_exist_is_an_attribute_error_that_says_so():
    with pytest.raises(AttributeError, match=r"tensorflow\.serving\.PredictRequst is neither"):
        _ = protos.serving.PredictRequst


def test_any_packs_and_unpacks():
    wrapped = protos.google.Any()
    wrapped.Pack(protos.serving.SignatureDefMap())
    assert wrapped.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert wrapped.Unpack(protos.serving.SignatureDefMap())


def test_what_is_not_defined_survives_reading_and_writing():
    object_graph = b"\x3a\x05hello"  # MetaGraphDef.object_graph_def = 7
    graph = protos.tensorflow.MetaGraphDef.FromString(object_graph)
    graph.signature_def["s"].method_name = "m"
    assert object_graph in graph.SerializeToString()


def test_services_name_their_methods():
    service = protos.pool().FindServiceByName("tensorflow.serving.PredictionService")
    assert [method.name for method in service.methods] == [
        "Classify",
        "Regress",
        "Predict",
        "MultiInference",
        "GetModelMetadata",
        "PredictStreamed",
    ]


def test_importing_the_package_loads_no_protobuf():
    code = "import sys, servable.protos; print([m for m in sys.modules if m.startswith('google.protobuf')])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_damaged_descriptors_are_reported(tmp_path, monkeypatch):
    broken = tmp_path / "descriptors.binpb"
    broken.write_bytes(b"\x0b\x00")
    monkeypatch.setattr(protos, "DESCRIPTORS", broken)
    with pytest.raises(ValueError, match="is damaged at byte 0"):
        protos.pool.__wrapped__()


def test_a_file_that_does_not_compile_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "broken.proto").write_text('syntax = "proto3"; message M { Missing m = 1; }')
    monkeypatch.setattr(protos_compile, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r'"Missing" is not defined'):
        protos_compile.descriptors()
