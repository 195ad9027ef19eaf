"""What reflection answers, as messages."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from servable.core.errors import Code, ServingError
from servable.protos import reflection as messages
from servable.wire.grpc_reflection import SERVICES, Catalogue, Reflection

HEALTH, MODELS = "grpc.health.v1.Health", "tensorflow.serving.ModelService"


def ask(reflection: Reflection, **question: Any) -> Any:
    request = messages.ServerReflectionRequest(**question)
    return messages.ServerReflectionResponse.FromString(reflection.answer(request.SerializeToString()))


def files(answer: Any) -> list[str]:
    found = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(file).name for file in found]


def test_services_are_those_that_were_given() -> None:
    for services in ([HEALTH], [MODELS, HEALTH, *SERVICES], []):
        answer = ask(Reflection(Catalogue(services)), list_services="whatever")
        assert [service.name for service in answer.list_services_response.service] == sorted(services)


def test_files_of_other_services_are_not_shown() -> None:
    reflection = Reflection(Catalogue([HEALTH]))
    assert files(ask(reflection, file_containing_symbol=HEALTH)) == ["servable/grpc_health.proto"]
    for question in (
        {"file_containing_symbol": MODELS},
        {"file_containing_symbol": MODELS + ".GetModelStatus"},
        {"file_by_filename": "servable/serving_apis.proto"},
        {"all_extension_numbers_of_type": "tensorflow.serving.ModelSpec"},
    ):
        assert ask(reflection, **question).error_response.error_code == Code.NOT_FOUND, question


def test_a_file_comes_before_it_is_left_out() -> None:
    reflection = Reflection(Catalogue([MODELS]))
    first = files(ask(reflection, file_by_filename="servable/tensorflow_tensor.proto"))
    second = files(ask(reflection, file_containing_symbol=MODELS))
    assert first == ["servable/tensorflow_tensor.proto"]
    assert second[0] == "servable/serving_apis.proto"
    assert not set(first) & set(second)
    assert files(ask(Reflection(Catalogue([MODELS])), file_containing_symbol=MODELS))[0] == second[0]


def test_both_versions_have_the_same_bytes() -> None:
    """One class reads and writes both; their definitions must agree in all but the name of the package."""
    v1, alpha = (
        descriptor_pb2.FileDescriptorProto.FromString(
            Catalogue(SERVICES).file(f"servable/grpc_reflection_{version}.proto").serialized_pb
        )
        for version in ("v1", "v1alpha")
    )
    assert str(alpha).replace("v1alpha", "v1") == str(v1)


def test_what_is_no_request() -> None:
    with pytest.raises(ServingError) as failure:
        Reflection(Catalogue([])).answer(b"\x0a\xff")
    assert failure.value.code is Code.INVALID_ARGUMENT
