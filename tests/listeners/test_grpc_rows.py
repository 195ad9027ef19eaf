"""What gRPC asks of single calls, behind raw frames: content types, messages, deadlines, metadata, errors."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.transport.http2.harness import DATA, EH, ES, HEADERS, NO_ERROR, RST, Frame, Session, block, d, h

from servable.core.errors import Code, ServingError
from servable.listeners.grpc import GrpcApplication, UnaryRoute
from servable.listeners.ports import PortApplication
from servable.transport.exchange import Route
from servable.transport.limits import Limits
from servable.wire import grpc as wire

LIMIT = 1000
Field = tuple[bytes, bytes]
GRPC: Field = (b"content-type", b"application/grpc")
ECHO = b"/t.S/Echo"


class Service:
    """Methods that echo, fail and break; ``seen`` keeps each call's head."""

    def __init__(self) -> None:
        self.seen: list[wire.Call] = []

    def methods(self) -> dict[bytes, Callable[[wire.Call], Route]]:
        answers: dict[str, Callable[[bytes, int], bytes]] = {"Echo": _echo, "Fail": _fail, "Break": _break}
        return {f"/t.S/{name}".encode(): self._method(answer) for name, answer in answers.items()}

    def _method(self, answer: Callable[[bytes, int], bytes]) -> Callable[[wire.Call], Route]:
        def route(call: wire.Call) -> Route:
            self.seen.append(call)
            return UnaryRoute(call, answer)

        return route


def _echo(body: bytes, start: int) -> bytes:
    return bytes(body[start:])


def _fail(body: bytes, start: int) -> bytes:
    raise ServingError(Code.FAILED_PRECONDITION, bytes(body[start:]).decode())


def _break(body: bytes, start: int) -> bytes:
    raise KeyError("a defect")


class Caller:
    """One connection to a port that speaks gRPC alone."""

    def __init__(self) -> None:
        self.service = Service()
        nobody: Any = None
        grpc = GrpcApplication(nobody, nobody, cast("Any", None), self.service.methods())
        self.session = Session(Limits(max_body=LIMIT + wire.PREFIX_SIZE), PortApplication(grpc, None))
        self.session.start()
        self._next = -1

    def send(
        self,
        body: bytes,
        *fields: Field,
        path: bytes = ECHO,
        method: bytes = b"POST",
        content_type: bytes | None = b"application/grpc",
        ends: bool = True,
    ) -> list[Frame]:
        self._next += 2
        kind = () if content_type is None else ((b"content-type", content_type),)
        head = h(self._next, EH, block(path, *kind, *fields, method=method))
        return self.session.feed(head + d(self._next, body, ES if ends else 0))

    def ask(self, body: bytes = b"\0\0\0\0\0", *fields: Field, **how: Any) -> tuple[dict[bytes, bytes], bytes]:
        """Return all header and trailer fields of the reply, and its message."""
        found: dict[bytes, bytes] = {}
        data = b""
        for frame in self.send(body, *fields, **how):
            if frame.kind == HEADERS:
                found.update(self.session.fields(frame))
            elif frame.kind == DATA:
                data += frame.payload
        return found, data

    def code(self, body: bytes = b"\0\0\0\0\0", *fields: Field, **how: Any) -> int:
        return int(self.ask(body, *fields, **how)[0][b"grpc-status"])


@pytest.mark.parametrize(
    "content_type",
    [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x", b"APPLICATION/GRPC"],
)
def test_content_types_that_are_grpc_g014(content_type: bytes) -> None:
    found, message = Caller().ask(wire.wrap_message(b"hi"), content_type=content_type)
    assert found[b"grpc-status"] == b"0"
    assert message == wire.wrap_message(b"hi")


@pytest.mark.parametrize("content_type", [b"application/grpc-web", b"application/grpcx", b"text/plain", None])
def test_content_types_that_are_not_g015(content_type: bytes | None) -> None:
    caller = Caller()
    found, _ = caller.ask(content_type=content_type)
    assert found[b":status"] == b"415"
    assert b"grpc-status" not in found
    assert caller.code() == 0


def test_methods_of_http_other_than_post_g016() -> None:
    found, _ = Caller().ask(method=b"GET")
    assert (found[b":status"], found[b"allow"]) == (b"405", b"POST")


@pytest.mark.parametrize("path", [b"/t.S/No", b"/no.S/Echo", b"/", b"//", b"/a", b"/t.S/Echo?a=b", b"/t.S/echo"])
def test_what_is_not_there_is_unimplemented_g017(path: bytes) -> None:
    assert Caller().code(path=path) == Code.UNIMPLEMENTED.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", Code.UNIMPLEMENTED, id="G004 nothing"),
        pytest.param(b"\0\0\0\0\0" * 2, Code.UNIMPLEMENTED, id="G005 two messages"),
        pytest.param(b"\0\0\0", Code.INTERNAL, id="G006 prefix"),
        pytest.param(b"\0\0\0\0\5abc", Code.INTERNAL, id="G006 message"),
        pytest.param(b"\2\0\0\0\1a", Code.INTERNAL, id="G007 flag 2"),
        pytest.param(b"\1\0\0\0\1a", Code.INTERNAL, id="G008 compressed with nothing"),
        pytest.param(wire.wrap_message(bytes(LIMIT)), Code.OK, id="G013 limit"),
        pytest.param(wire.wrap_message(bytes(LIMIT + 1)), Code.RESOURCE_EXHAUSTED, id="G013 above"),
    ],
)
def test_messages(body: bytes, code: Code) -> None:
    caller = Caller()
    assert caller.code(body) == code.value
    assert caller.code() == 0, "the connection goes on"


def test_two_messages_are_answered_before_the_client_has_ended_g005() -> None:
    caller = Caller()
    frames = caller.send(b"\0\0\0\0\5hello\0\0\0\0\0", ends=False)
    assert frames == [], "nothing is known before the end: the length of the first message was right"
    found = caller.session.feed(d(1, b"", ES))
    assert dict(caller.session.fields(found[0]))[b"grpc-status"] == b"12"


def test_an_end_with_the_head_is_answered_g004() -> None:
    caller = Caller()
    (frame,) = caller.session.feed(h(1, EH | ES, block(ECHO, GRPC)))
    assert dict(caller.session.fields(frame))[b"grpc-status"] == b"12"


def test_a_length_that_cannot_be_is_refused_by_the_prefix_g012() -> None:
    caller = Caller()
    head, reset = caller.send(b"\0\xff\xff\xff\xff", ends=False)
    assert dict(caller.session.fields(head))[b"grpc-status"] == b"8"
    assert reset == Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_compressed_requests_g009_g011(encoding: bytes, compress: Callable[[bytes], bytes]) -> None:
    caller = Caller()
    packed = compress(b"hello")
    field = (b"grpc-encoding", encoding)
    assert caller.ask(b"\1" + wire.wrap_message(packed)[1:], field)[1] == wire.wrap_message(b"hello")
    assert caller.ask(wire.wrap_message(b"plain"), field)[1] == wire.wrap_message(b"plain")
    assert caller.code(b"\1" + wire.wrap_message(packed[:-3])[1:], field) == Code.INTERNAL.value
    assert caller.code(b"\1" + wire.wrap_message(b"nonsense")[1:], field) == Code.INTERNAL.value


def test_an_unknown_encoding_names_those_that_are_known_g010() -> None:
    found, _ = Caller().ask(b"\1\0\0\0\0", (b"grpc-encoding", b"zstd"))
    assert found[b"grpc-status"] == b"12"
    assert {b"gzip", b"deflate"} <= set(found[b"grpc-accept-encoding"].replace(b" ", b"").split(b","))


@pytest.mark.parametrize(
    ("timeout", "code"),
    [
        (b"1S", Code.OK),
        (b"100m", Code.OK),
        (b"99999999H", Code.OK),
        (b"0S", Code.DEADLINE_EXCEEDED),
        (b"1", Code.INTERNAL),
        (b"S", Code.INTERNAL),
        (b"-1S", Code.INTERNAL),
        (b"1.5S", Code.INTERNAL),
        (b"123456789S", Code.INTERNAL),
        (b"1 S", Code.INTERNAL),
        ("１S".encode(), Code.INTERNAL),  # noqa: RUF001  # a digit, but not one of ASCII
    ],
)
def test_timeouts_g018_g019(timeout: bytes, code: Code) -> None:
    caller = Caller()
    assert caller.code(b"\0\0\0\0\0", (b"grpc-timeout", timeout)) == code.value
    assert caller.code() == 0


def test_metadata_g023() -> None:
    caller = Caller()
    fields = ((b"a", b"1"), (b"a", b"2"), (b"b-bin", b"AQID,AQ=="), (b"b-bin", b"AQ"), (b"c-bin", b""))
    assert caller.code(b"\0\0\0\0\0", *fields) == 0
    (call,) = caller.service.seen
    assert call.metadata == (
        ("a", "1"),
        ("a", "2"),
        ("b-bin", b"\1\2\3"),
        ("b-bin", b"\1"),
        ("b-bin", b"\1"),
        ("c-bin", b""),
    )


@pytest.mark.parametrize("value", [b"A", b"A-_A", b"A!!!"])
def test_metadata_that_is_not_base64_g024(value: bytes) -> None:
    caller = Caller()
    found, _ = caller.ask(b"\0\0\0\0\0", (b"b-bin", value))
    assert found[b"grpc-status"] == b"13"
    assert b"b-bin" in found[b"grpc-message"]
    assert caller.code() == 0


@pytest.mark.parametrize("value", [b"", b"=", b"===="])
def test_padding_of_nothing_is_nothing_g024(value: bytes) -> None:
    caller = Caller()
    assert caller.code(b"\0\0\0\0\0", (b"b-bin", value)) == 0
    assert caller.service.seen[0].metadata == (("b-bin", b""),)


def test_messages_of_errors_are_percent_encoded_and_cut_g025() -> None:
    caller = Caller()
    found, _ = caller.ask(wire.wrap_message("é\n%".encode()), path=b"/t.S/Fail")
    assert (found[b"grpc-status"], found[b"grpc-message"]) == (b"9", b"%C3%A9%0A%25")
    found, _ = caller.ask(wire.wrap_message("é".encode() * 400), path=b"/t.S/Fail")
    assert len(found[b"grpc-message"]) <= 3 * 1024
    assert set(found[b"grpc-message"]) <= set(range(0x20, 0x7F))


def test_a_defect_is_internal_and_costs_nobody_else_anything_g026() -> None:
    caller = Caller()
    found, _ = caller.ask(path=b"/t.S/Break")
    assert found[b"grpc-status"] == b"13"
    assert b"defect" not in found[b"grpc-message"]
    assert caller.code() == 0


def test_details_of_errors_are_never_sent_g035() -> None:
    """Clients find all there is in code and message; who reads ``grpc-status-details-bin`` finds none, as specified."""
    found, _ = Caller().ask(wire.wrap_message(b"no"), path=b"/t.S/Fail")
    assert b"grpc-status-details-bin" not in found
