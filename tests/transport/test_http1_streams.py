"""Properties of whole byte streams: cutting them into reads changes nothing, and h11 accepts what is accepted."""

from __future__ import annotations

import itertools

import h11
import httptools
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transport.fakes import Served, undated

from servable.transport.http1.bodies import BodyTooLargeError, ChunkedBody
from servable.transport.http1.heads import ProtocolError
from servable.transport.limits import Limits

LIMITS = Limits(max_body=3000, max_request_head=600, max_request_target=100, max_request_fields=8, requests_per_turn=3)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

targets = st.sampled_from(
    [b"/echo", b"/small", b"/medium", b"/headonly", b"/nowhere", b"/204", b"http://b/echo", b"*", b"/" + b"a" * 150]
)
fields = st.lists(
    st.sampled_from(
        [
            b"Host: a",
            b"X-A: b",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b"Upgrade: h2c\r\nConnection: upgrade",
            b"Content-Length: 3",
            b"X: " + b"v" * 300,
            b"bad name: x",
            b"no colon",
        ]
    ),
    max_size=3,
)


@st.composite
def chunk_streams(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    extension = draw(st.sampled_from([b"", b"", b";a=b", b';a="b c"', b";a;b=c"]))
    trailers = draw(st.sampled_from([b"", b"", b"x: y\r\n", b"x: y\r\nz: \r\n", b"bad\r\n"]))
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return framed + b"0\r\n" + trailers + b"\r\n"


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS"]))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0"]))
    lines = [b" ".join([method, draw(targets), version]), b"Host: x", *draw(fields)]
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    body = b""
    if framing == "length":
        body = draw(st.binary(max_size=40) | st.just(b"z" * 4000))
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunks":
        body = draw(chunk_streams())
        lines.append(b"Transfer-Encoding: chunked")
    lead = draw(st.sampled_from([b"", b"", b"", b"\r\n"]))
    return lead + b"\r\n".join(lines) + b"\r\n\r\n" + body


@st.composite
def scripts(draw: st.DrawFn) -> bytes:
    """A few messages; sometimes with bytes changed, dropped or put in."""
    stream = bytearray(b"".join(draw(st.lists(messages(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(stream) - 1)) if stream else 0
        kind = draw(st.sampled_from(["change", "drop", "insert", "cut"]))
        noise = draw(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b";", b"0", b"\t", b"\xff", b"\x0b"]))
        if kind == "change":
            stream[place : place + 1] = noise
        elif kind == "drop":
            del stream[place : place + 1]
        elif kind == "insert":
            stream[place:place] = noise
        else:
            del stream[place:]
    return bytes(stream)


def outcome(stream: bytes, cuts: list[int]) -> tuple[bytes, list[tuple[bytes, bytes, bytes]], bool, bool]:
    served = Served(LIMITS)
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    sent = served.feed(*(stream[a:b] for a, b in itertools.pairwise(places)))
    ended = served.ending
    served.eof()
    sent += served.take()
    return undated(sent).replace(CONTINUE, b""), served.application.handled, ended, served.closed == 1


@settings(max_examples=400, deadline=None)
@given(stream=scripts(), cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_how_a_stream_is_cut_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    whole = outcome(stream, [])
    assert outcome(stream, cuts) == whole
    assert whole[3], "every connection ends after the client has"


@settings(max_examples=150, deadline=None)
@given(stream=scripts())
def test_byte_by_byte_changes_nothing(stream: bytes) -> None:
    assert outcome(stream, list(range(len(stream)))) == outcome(stream, [])


@settings(max_examples=400, deadline=None)
@given(stream=messages() | scripts())
def test_what_is_accepted_h11_accepts_and_reads_the_same(stream: bytes) -> None:
    served = Served()
    routes = served.application.routes
    served.application.missing = routes[b"/echo"]
    for name in (b"/small", b"/204"):  # each request is to be handled, so that the first handled is the first sent
        del routes[name]
    served.feed(stream)
    if not served.application.handled:
        return
    method, target, body = served.application.handled[0]
    head = served.application.heads[0]
    judge = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    judge.receive_data(stream.lstrip(b"\r\n"))  # leading empty lines are ours to ignore (RFC 9112, 2.2)
    request = judge.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.http_version) == (method, head.version)
    assert request.target.endswith(target) or target in (b"/", b"*")
    assert [(name, value) for name, value in request.headers if name != b"transfer-encoding"] == [
        (name, value) for name, value in head.fields if name != b"transfer-encoding"
    ]
    if target == b"/headonly":
        return  # handled before its body was read
    received = b""
    if judge.they_are_waiting_for_100_continue:
        judge.send(h11.InformationalResponse(status_code=100, headers=[]))
    while True:
        event = judge.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        assert isinstance(event, h11.Data), event
        received += bytes(event.data)
    assert body == received


class LlhttpBody:
    def __init__(self) -> None:
        self.data = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.complete = True


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_chunks_are_read_as_llhttp_reads_them(data: st.DataObject) -> None:
    stream = data.draw(chunk_streams())
    place = data.draw(st.integers(0, len(stream)))
    stream = stream[:place] + data.draw(st.sampled_from([b"", b"", b"\n", b"0", b" ", b"f", b"\r"])) + stream[place:]
    ours = ChunkedBody(10_000)
    try:
        end = ours.feed(stream, 0)
    except (ProtocolError, BodyTooLargeError):
        return
    if not ours.done:
        return
    theirs = LlhttpBody()
    parser = httptools.HttpRequestParser(theirs)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + stream[:end])
    assert theirs.complete
    assert theirs.data == bytes(ours.data)
