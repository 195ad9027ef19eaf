"""gRPC's own layer: prefixes, compression, timeouts, statuses, metadata."""

from __future__ import annotations

import base64
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.wire import grpc


def refusal(call, *arguments):
    with pytest.raises(ServingError) as failure:
        call(*arguments)
    return failure.value.code, failure.value.message


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/GRPC; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
        (None, False),
    ],
)
def test_content_types(value, answer):
    assert grpc.is_grpc(value) is answer


def test_one_message_is_unwrapped_without_a_copy():
    body = grpc.wrap_message(b"hello")
    assert body == b"\0\0\0\0\5hello"
    message = grpc.unwrap_message(body)
    assert isinstance(message, memoryview)
    assert bytes(message) == b"hello"
    assert grpc.unwrap_message(grpc.wrap_message(b"")) == b""
    assert grpc.is_plain(body)
    assert not grpc.is_plain(body + b"x")
    assert not grpc.is_plain(body[:3])
    assert not grpc.is_plain(b"\1" + body[1:])


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", Code.UNIMPLEMENTED, "Half-closed without a request"),
        (b"\0\0\0", Code.INTERNAL, "ends inside a message"),
        (b"\0\0\0\0\5hell", Code.INTERNAL, "4 bytes came of 5"),
        (b"\0\0\0\0\0\0\0\0\0\0", Code.UNIMPLEMENTED, "Too many requests"),
        (b"\2\0\0\0\0", Code.INTERNAL, "grpc: received unexpected payload format 2"),
        (b"\1\0\0\0\1x", Code.INTERNAL, "Compressed flag set with identity or empty encoding"),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED, "larger than max (4294967295 vs. 2147483647)"),
    ],
)
def test_bodies_that_are_not_one_message(body, code, text):
    found = refusal(grpc.unwrap_message, body)
    assert found[0] is code
    assert text in found[1]


def test_the_limit_is_inclusive_and_known_from_the_prefix():
    assert grpc.message_size(b"\0\0\0\0\5", 5) == 5
    assert refusal(grpc.message_size, b"\0\0\0\0\6", 5) == (
        Code.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (6 vs. 5)",
    )


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_compressed_messages(encoding):
    body = grpc.compress(b"x" * 10_000, encoding)
    assert len(body) < 200
    assert grpc.unwrap_message(body, encoding) == b"x" * 10_000
    assert grpc.unwrap_message(body, encoding, 10_000) == b"x" * 10_000
    assert refusal(grpc.unwrap_message, body, encoding, 9_999)[0] is Code.RESOURCE_EXHAUSTED
    assert grpc.unwrap_message(grpc.wrap_message(b"plain"), encoding) == b"plain"
    for damaged in (body[5:-3], b"nonsense", body[5:] + b"!", b""):
        assert refusal(grpc.decompress, damaged, encoding)[0] is Code.INTERNAL


def test_what_gzip_and_zlib_write_is_read_and_raw_deflate_is_not():
    assert grpc.decompress(gzip.compress(b"a") + gzip.compress(b"b"), b"gzip") == b"ab"
    assert grpc.decompress(zlib.compress(b"a"), b"deflate") == b"a"
    assert refusal(grpc.decompress, zlib.compress(b"a")[2:-4], b"deflate")[0] is Code.INTERNAL
    assert refusal(grpc.decompress, gzip.compress(b"a") * 17, b"gzip")[0] is Code.INTERNAL
    members = gzip.compress(b"aaaa") * 4
    assert refusal(grpc.decompress, members, b"gzip", 15)[0] is Code.RESOURCE_EXHAUSTED
    assert grpc.decompress(members, b"gzip", 16) == b"a" * 16


def test_a_bomb_makes_no_more_than_the_limit():
    bomb = gzip.compress(bytes(200_000_000), 1)
    assert refusal(grpc.decompress, bomb, b"gzip", 1000) == (
        Code.RESOURCE_EXHAUSTED,
        "received message after decompression larger than max 1000",
    )


def test_unknown_encodings_are_unimplemented():
    assert refusal(grpc.parse_call, ((b"grpc-encoding", b"zstd"),)) == (
        Code.UNIMPLEMENTED,
        'grpc: Decompressor is not installed for grpc-encoding "zstd"',
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"4m", 0.004),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"00000001S", 1),
        (b"0n", 0),
    ],
)
def test_timeouts(value, seconds):
    assert grpc.parse_timeout(value) == pytest.approx(seconds, rel=1e-12)


def test_ten_years_is_for_ever():
    assert grpc.parse_timeout(b"99999999H") == 10 * 365 * 86400


@pytest.mark.parametrize(
    "value",
    [b"", b"S", b"1", b"1s", b"1h", b"-1S", b"+1S", b"1.5S", b" 1S", b"1_0S", b"123456789S", b"\xd9\xa1S", b"1S "],
)
def test_malformed_timeouts_are_not_ignored(value):
    code, message = refusal(grpc.parse_timeout, value)
    assert code is Code.INTERNAL
    assert message.startswith("malformed grpc-timeout")


@given(st.floats(0, 3e8))
def test_timeouts_are_written_so_that_they_come_back_not_shorter(seconds):
    written = grpc.format_timeout(seconds)
    back = grpc.parse_timeout(written)
    assert back >= seconds - 1e-9
    assert back <= seconds * (1 + 1e-5) + 1e-9


def test_timeouts_of_the_past_and_of_for_ever():
    assert grpc.format_timeout(-1) == b"0n"
    assert grpc.format_timeout(0.1) == b"100000u"
    assert grpc.format_timeout(float("inf")) == b"5256000M"


@given(st.text())
def test_messages_come_back(text):
    encoded = grpc.encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert not encoded.startswith(b" ")
    assert not encoded.endswith(b" ")
    expected = text.encode(errors="replace").decode()
    assert grpc.decode_message(encoded) == expected


def test_messages_are_written_in_upper_case_hex_and_read_leniently():
    assert grpc.encode_message("50%\nü ") == b"50%25%0A%C3%BC%20"
    assert grpc.decode_message(b"a%zz%4") == "a%zz%4"
    assert grpc.decode_message(b"%c3%bc%FF") == "ü\ufffd"


def test_statuses():
    assert grpc.trailer_fields(0, "") == ((b"grpc-status", b"0"),)
    assert grpc.trailer_fields(5, "a b") == ((b"grpc-status", b"5"), (b"grpc-message", b"a b"))
    assert [grpc.parse_status(value) for value in (b"0", b"5", b"16", b"17", b"-1", b"", b"005", b"x")] == [
        Code.OK, Code.NOT_FOUND, Code.UNAUTHENTICATED, Code.UNKNOWN, Code.UNKNOWN, Code.UNKNOWN, Code.UNKNOWN,
        Code.UNKNOWN,
    ]  # fmt: skip
    assert [grpc.status_of_http(status) for status in (400, 401, 403, 404, 429, 503, 200, 415)] == [
        Code.INTERNAL, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.UNAVAILABLE,
        Code.UNAVAILABLE, Code.UNKNOWN, Code.UNKNOWN,
    ]  # fmt: skip


def test_a_call_is_read_from_its_head():
    call = grpc.parse_call(
        (
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", b"grpc-python/1"),
            (b"grpc-timeout", b"250m"),
            (b"grpc-encoding", b"gzip"),
            (b"grpc-previous-rpc-attempts", b"1"),
            (b"x-request-id", b" abc "),
            (b"x-request-id", b"def"),
            (b"blob-bin", b"AQID,AQ=="),
        )
    )
    assert call.timeout_s == 0.25
    assert call.encoding == b"gzip"
    assert call.metadata == (
        ("x-request-id", "abc"),
        ("x-request-id", "def"),
        ("blob-bin", b"\1\2\3"),
        ("blob-bin", b"\1"),
    )
    assert grpc.parse_call(()) == grpc.Call(None, None, ())


def test_heads_that_contradict_themselves_are_refused():
    assert refusal(grpc.parse_call, ((b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")))[0] is Code.INTERNAL
    for value in (b"A", b"A-_A", b"AA AA", b"\xff\xff"):
        code, message = refusal(grpc.parse_call, ((b"blob-bin", value),))
        assert code is Code.INTERNAL
        assert "'blob-bin' is not base64" in message


@given(st.binary())
def test_binary_metadata_comes_back_unpadded_on_the_wire(data):
    ((name, value),) = grpc.encode_metadata((("k-bin", data),))
    assert (name, value) == (b"k-bin", base64.b64encode(data).rstrip(b"="))
    assert grpc.decode_metadata(((name, value),)) == (("k-bin", data),)
    assert grpc.decode_metadata(((name, base64.b64encode(data)),)) == (("k-bin", data),)


def test_metadata_that_grpc_cannot_carry_is_refused():
    assert grpc.encode_metadata((("X-A", " v "), ("b-bin", "ü"))) == ((b"x-a", b"v"), (b"b-bin", b"w7w"))
    for entry in (
        ("grpc-status", "0"),
        (":path", "/"),
        ("a b", "v"),
        ("", "v"),
        ("k", "ü"),
        ("k", "a\nb"),
        ("te", "x"),
    ):
        assert refusal(grpc.encode_metadata, (entry,))[0] is Code.INTERNAL


def test_what_a_client_sent_is_safe_to_print():
    assert grpc.printable(b"/a\xff\n" + b"x" * 300) == "/a\\xff\\n" + "x" * 252
