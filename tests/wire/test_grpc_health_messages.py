"""Messages of grpc.health.v1, against bytes that protobuf made of the published definition."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from servable.core.errors import Code, ServingError
from servable.wire.grpc_health import Health, decode_health_request, encode_health, encode_health_list


def messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="h", syntax="proto3")
    request = file.message_type.add(name="Request")
    request.field.add(name="service", number=1, type=9, label=1)
    response = file.message_type.add(name="Response")
    response.field.add(name="status", number=1, type=5, label=1)
    listed = file.message_type.add(name="List")
    entry = listed.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=11, label=1, type_name=".h.Response")
    listed.field.add(name="statuses", number=1, type=11, label=3, type_name=".h.List.StatusesEntry")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"h.{name}"))
        for name in ("Request", "Response", "List")
    }


MESSAGES = messages()


@pytest.mark.parametrize("service", ["", "a.B", "é" * 100])
def test_requests(service: str) -> None:
    message = MESSAGES["Request"](service=service).SerializeToString()
    assert decode_health_request(message) == service
    unknown_fields = b"\x10\x07\x1a\x02xy\x25abcd\x29abcdefgh"
    assert decode_health_request(b"head!" + unknown_fields + message, 5) == service


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x0b", b"\x25a", b"\x08"])
def test_what_is_no_request(message: bytes) -> None:
    with pytest.raises(ServingError, match="HealthCheckRequest") as caught:
        decode_health_request(message)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("status", Health)
def test_responses(status: Health) -> None:
    assert MESSAGES["Response"].FromString(encode_health(status)).status == status  # type: ignore[attr-defined]


def test_lists() -> None:
    statuses = {"": Health.SERVING, "a.B": Health.NOT_SERVING, "x" * 200: Health.UNKNOWN}
    read = MESSAGES["List"].FromString(encode_health_list(statuses))  # type: ignore[attr-defined]
    assert {name: answer.status for name, answer in read.statuses.items()} == statuses
