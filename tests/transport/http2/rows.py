"""Rows of the specification: bytes of a client, and what must come of them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from tests.transport.http2.application import EMPTY_MESSAGE, GRPC, OK
from tests.transport.http2.harness import (
    DATA,
    ES,
    FRESH,
    GOAWAY,
    HEADERS,
    RST,
    SETTINGS,
    WU,
    Frame,
    Session,
    hpack_plain,
)

from servable.transport.limits import KIB, Limits

LIMITS = Limits(max_frame=64 * KIB)
in_both_ways = pytest.mark.parametrize("byte_by_byte", [False, True], ids=["one write", "byte by byte"])


class Fails(NamedTuple):
    """The connection ends with this code."""

    code: int


class Resets(NamedTuple):
    """The stream ends with this code; the connection goes on."""

    stream: int
    code: int


class Answers(NamedTuple):
    """These streams get their replies, and no stream is reset."""

    streams: tuple[int, ...]


class Ignored(NamedTuple):
    """Nothing comes back."""


Expected = Fails | Resets | Answers | Ignored
Row = tuple[str, bytes, Expected]


def ok(*streams: int) -> Answers:
    return Answers(streams)


def entry(name: bytes, value: bytes) -> bytes:
    """A literal with incremental indexing and a new name."""
    return b"\x40" + hpack_plain([(name, value)])[1:]


def judge(session: Session, expected: Expected) -> None:
    frames = [frame for frame in session.frames if frame.kind not in (SETTINGS, WU)]
    match expected:
        case Fails(code):
            session.assert_failed(code)
        case Resets(stream, code):
            assert Frame(RST, 0, stream, code.to_bytes(4, "big")) in frames
            assert [frame for frame in frames if frame.kind == RST and frame.stream == stream] == [
                Frame(RST, 0, stream, code.to_bytes(4, "big"))
            ]
        case Answers(streams):
            done = [frame.stream for frame in frames if frame.kind in (HEADERS, DATA) and frame.flags & ES]
            assert tuple(done) == streams
            assert not [frame for frame in frames if frame.kind in (RST, GOAWAY)]
        case Ignored():
            assert frames == []


def run(row: Row, session: Session) -> None:
    _, data, expected = row
    session.feed(data)
    judge(session, expected)
    if not isinstance(expected, Fails):
        session.assert_alive(FRESH)
    for exchange in session.application.held:
        exchange.respond(GRPC, EMPTY_MESSAGE, OK)
    session.assert_clean()


def run_on_open_connection(row: Row, *, byte_by_byte: bool) -> None:
    session = Session(LIMITS)
    session.start()
    session.frames.clear()
    session.byte_by_byte = byte_by_byte
    run(row, session)
