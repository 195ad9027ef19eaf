"""grpcio's reflection client learns from a live server what it offers, and calls it with what it learned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.e2e.server_process import ServerProcess

from servable import protos

pytestmark = pytest.mark.conformance

V1, V1ALPHA = (f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
Ask = Callable[..., Any]


@pytest.fixture
def channel(server: ServerProcess) -> Any:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(params=[V1, V1ALPHA], ids=["v1", "v1alpha"])
def ask(channel: grpc.Channel, request: pytest.FixtureRequest) -> Ask:
    """Ask one question in a call of its own."""
    method = channel.stream_stream(
        request.param,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    def ask_one(**question: Any) -> Any:
        asked = reflection_pb2.ServerReflectionRequest(host="me", **question)
        (answer,) = method(iter([asked]), timeout=10)
        assert answer.original_request == asked
        assert answer.valid_host == "me"
        return answer

    return ask_one


def names(answer: Any) -> list[str]:
    files = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(file).name for file in files]


@pytest.mark.rule("service-5")
def test_what_is_listed_is_what_is_offered_g034(channel: grpc.Channel, ask: Ask) -> None:
    listed = [service.name for service in ask(list_services="").list_services_response.service]
    assert listed == sorted(listed)
    assert {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    } <= set(listed)
    health = channel.unary_unary("/grpc.health.v1.Health/List")(b"", timeout=10)
    for service in listed:
        assert ask(file_containing_symbol=service).HasField("file_descriptor_response"), service
    assert b"tensorflow.serving.PredictionService" in health


def test_files_by_name_and_by_symbol_g034(ask: Ask) -> None:
    found = names(ask(file_by_filename="servable/serving_apis.proto"))
    assert found[0] == "servable/serving_apis.proto"
    assert {"google/protobuf/any.proto", "servable/tensorflow_tensor.proto"} < set(found)
    assert len(found) == len(set(found))
    for symbol in (
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.PredictionService.Predict",
        "tensorflow.serving.PredictRequest",
        "tensorflow.serving.PredictRequest.InputsEntry",
        "tensorflow.serving.PredictRequest.model_spec",
    ):
        assert names(ask(file_containing_symbol=symbol)) == found, symbol


@pytest.mark.parametrize(
    ("question", "code", "text"),
    [
        ({"file_containing_symbol": "no.such.Thing"}, 5, "no symbol 'no.such.Thing'"),
        ({"file_containing_symbol": "tensorflow.serving.PredictionService.Guess"}, 5, "no symbol"),
        ({"file_containing_symbol": ""}, 5, "no symbol ''"),
        ({"file_containing_symbol": "onnx.ModelProto"}, 5, "no symbol"),
        ({"file_by_filename": "../etc/passwd"}, 5, "no file"),
        ({"file_by_filename": "servable/onnx.proto"}, 5, "no file"),
        ({"all_extension_numbers_of_type": "no.Message"}, 5, "no message"),
        ({"all_extension_numbers_of_type": "tensorflow.serving.PredictionService"}, 5, "no message"),
        (
            {
                "file_containing_extension": reflection_pb2.ExtensionRequest(
                    containing_type="tensorflow.serving.PredictRequest", extension_number=-7
                )
            },
            5,
            "no extension -7",
        ),
        ({}, 3, "asks for nothing"),
    ],
)
def test_what_is_not_found_is_an_answer_g034(ask: Ask, question: dict[str, Any], code: int, text: str) -> None:
    error = ask(**question).error_response
    assert error.error_code == code
    assert text in error.error_message


def test_extensions_there_are_none(ask: Ask) -> None:
    answer = ask(all_extension_numbers_of_type="tensorflow.serving.PredictRequest").all_extension_numbers_response
    assert answer.base_type_name == "tensorflow.serving.PredictRequest"
    assert list(answer.extension_number) == []


def test_one_conversation_sends_no_file_twice_unless_it_is_asked_for(channel: grpc.Channel) -> None:
    method = channel.stream_stream(
        V1,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(**question)
        for question in (
            {"file_containing_symbol": "tensorflow.serving.ModelService"},
            {"file_containing_symbol": "nothing"},
            {"file_containing_symbol": "tensorflow.serving.ModelService"},
            {"file_by_filename": "google/protobuf/any.proto"},
        )
    ]
    first, wrong, second, third = method(iter(asked), timeout=10)
    assert len(names(first)) > 5
    assert wrong.error_response.error_code == 5
    assert names(second) == ["servable/serving_apis.proto"]
    assert names(third) == ["google/protobuf/any.proto"]


def test_a_message_that_is_no_question_ends_the_call(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        list(channel.stream_stream(V1)(iter([b"\xff\xff"]), timeout=10))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as failure:
        list(channel.stream_stream(V1)(iter([bytes(70_000)]), timeout=10))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_without_any_definitions_predicts(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("tensorflow.serving.PredictionService")
    method = service.methods_by_name["Predict"]
    ask_for: Any = message_factory.GetMessageClass(method.input_type)
    answer: Any = message_factory.GetMessageClass(method.output_type)
    request = ask_for()
    request.model_spec.name = "half_plus_two"
    request.inputs["x"].dtype = 1
    for size in (2, 1):
        request.inputs["x"].tensor_shape.dim.add(size=size)
    request.inputs["x"].float_val.extend([1.0, 3.0])
    call = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=ask_for.SerializeToString,
        response_deserializer=answer.FromString,
    )
    (output,) = call(request, timeout=10).outputs.values()
    assert list(output.float_val) == [2.5, 3.5]


def test_what_is_described_is_what_is_answered_g034(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    missing = []
    for service in database.get_services():
        for method in pool.FindServiceByName(service).methods:
            call = channel.stream_stream(f"/{service}/{method.name}")(iter([b""]), timeout=5)
            with contextlib.suppress(grpc.RpcError, StopIteration):
                next(call)
            if not call.is_active() and call.code() is grpc.StatusCode.UNIMPLEMENTED:
                missing.append((service, method.name, call.details()))
            call.cancel()
    assert missing == []


def test_no_file_is_in_the_way_of_those_that_clients_have() -> None:
    """Names that other packages register in protobuf's default pool must mean the same there as here."""
    for known in (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR):
        descriptor_pool.Default().AddSerializedFile(protos.pool().FindFileByName(known.name).serialized_pb)
    for service in ("grpc.health.v1.Health", "tensorflow.serving.PredictionService"):
        assert protos.pool().FindServiceByName(service).file.name.startswith("servable/")
