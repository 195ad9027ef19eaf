"""Plain HTTP over HTTP/2: fields, lengths, bodies that may not be."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest
from tests.transport.http2.harness import (
    DATA,
    EH,
    ES,
    Session,
    block,
    d,
    h,
    wu,
)

from servable.transport.exchange import ReplyHead, Trailers
from servable.transport.limits import MIB


def test_cookies_are_joined_m014() -> None:
    session = Session()
    session.start()
    session.feed(
        h(1, EH | ES, block(b"/plain", (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c")))
    )
    head = session.application.calls[-1].exchange.head
    assert head.fields == ((b"cookie", b"a=1; b=2; c"), (b"x", b"y"))


@pytest.mark.parametrize(
    ("method", "path", "status", "length", "body"),
    [
        (b"GET", b"/plain", b"200", b"5", b"hello"),
        (b"HEAD", b"/plain", b"200", b"5", b""),
        (b"GET", b"/status/204", b"204", None, b""),
        (b"GET", b"/status/304", b"304", None, b""),
        (b"GET", b"/status/404", b"404", b"7", b"ignored"),
        (b"GET", b"/early", b"200", b"0", b""),
        (b"GET", b"/plainbig/100000", b"200", b"100000", None),
    ],
)
def test_plain_http_m015(method: bytes, path: bytes, status: bytes, length: bytes | None, body: bytes | None) -> None:
    session = Session()
    session.start((4, 1 * MIB))
    session.feed(wu(0, 1 * MIB) + h(1, EH | ES, block(path, method=method)))
    frames = [frame for frame in session.frames if frame.stream == 1]
    fields = dict(session.fields(frames[0]))
    assert fields[b":status"] == status
    assert fields.get(b"content-length") == length
    assert b"connection" not in fields
    assert parsedate_to_datetime(fields[b"date"].decode()) is not None
    sent = b"".join(frame.payload for frame in frames if frame.kind == DATA)
    assert sent == body or (body is None and len(sent) == 100000)
    assert [frame.flags & ES for frame in frames] == [0] * (len(frames) - 1) + [ES]
    session.assert_clean()


def test_100_continue_m016() -> None:
    session = Session()
    session.start()
    expecting = (b"expect", b"100-continue")
    frames = session.feed(h(1, EH, block(b"/plain", expecting)))
    assert [session.fields(frame) for frame in frames] == [[(b":status", b"100")]]
    assert session.feed(d(1, b"body", ES))[-1].payload == b"body"
    assert session.feed(h(3, EH, block(b"/t.S/M", expecting, (b"content-type", b"application/grpc")))) == []
    session.feed(d(3, flags=ES))
    session.assert_clean()


def test_a_value_made_from_input_cannot_break_a_reply() -> None:
    session = Session()
    session.start()
    session.feed(h(1, EH | ES, block(b"/hold")))
    head = ReplyHead(200, ((b"x", b" a\r\nb\0c\t"), (b"date", b"never")))
    session.application.held[0].respond(head, b"body", Trailers(((b"y", b"\nz "),)))
    session.loop.turn()
    first, _, last = session.collect()
    assert session.fields(first) == [(b":status", b"200"), (b"x", b"abc")]
    assert session.fields(last) == [(b"y", b"z")]
