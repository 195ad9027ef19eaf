"""Every rule of openings, frames and stream states, one row each: in one write, and a byte at a time."""

from __future__ import annotations

import pytest
from tests.transport.http2.application import EMPTY_MESSAGE
from tests.transport.http2.harness import (
    B0,
    CONT,
    DATA,
    EH,
    ENHANCE,
    ES,
    FLOW_CONTROL,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    PAD,
    PING,
    PREFACE,
    PRIO,
    PRIORITY,
    PROTOCOL,
    PUSH,
    RST,
    S0,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_CLOSED,
    WU,
    Frame,
    Session,
    block,
    d,
    h,
    literal,
    ping,
    raw,
    rst,
    settings,
    wu,
)
from tests.transport.http2.rows import (
    LIMITS,
    Fails,
    Ignored,
    Resets,
    Row,
    in_both_ways,
    ok,
    run,
    run_on_open_connection,
)

MAX_FRAME = LIMITS.max_frame


def prio(stream: int, depends: int = 0, weight: int = 15) -> bytes:
    return raw(PRIORITY, 0, stream, depends.to_bytes(4, "big") + bytes((weight,)))


OPEN = h(1)
CALL = h(1) + d(1, flags=ES)
HALF = h(1, EH | ES, block(b"/hold"))  # the client has ended, we have not answered
HELD = h(1, EH, block(b"/hold"))

FRAMES: list[Row] = [
    ("F001", raw(0x16, 0, 0, bytes(8)) + raw(0x16, 0, 1, bytes(8)), Ignored()),
    ("F004", h(1, EH, block(b"/empty")) + d(1, bytes(MAX_FRAME), ES), ok(1)),
    ("F005", OPEN + raw(DATA, 0, 1, length=MAX_FRAME + 1), Fails(FRAME_SIZE)),
    ("F006", raw(HEADERS, EH, 1, length=MAX_FRAME + 1), Fails(FRAME_SIZE)),
    ("F007", raw(0x30, 0, 1, length=2**24 - 1), Fails(FRAME_SIZE)),
    ("F008", d(0), Fails(PROTOCOL)),
    ("F009", OPEN + d(1, b"\x03" + bytes(3), PAD) + d(1, flags=ES), ok(1)),
    ("F010", OPEN + d(1, b"\x04" + bytes(3), PAD), Fails(PROTOCOL)),
    ("F011", OPEN + d(1, b"", PAD), Fails(FRAME_SIZE)),
    ("F012", OPEN + d(1, b"\x05" + EMPTY_MESSAGE + bytes(5), PAD | ES), ok(1)),
    ("F013", h(0), Fails(PROTOCOL)),
    ("F014", h(1, EH | PAD, b"\xff" + B0), Fails(PROTOCOL)),
    ("F015", h(1, EH | PAD | PRIO, b"\x04" + bytes(5) + B0 + bytes(4)) + d(1, flags=ES), ok(1)),
    ("F016", raw(HEADERS, EH | PRIO, 1, bytes(3)), Fails(FRAME_SIZE)),
    ("F017", h(1, EH | PRIO, (1).to_bytes(4, "big") + b"\x0f" + B0), Fails(PROTOCOL)),
    (
        "F018",
        prio(3, 0, 0) + prio(5, 0, 255) + prio(7, 2**31) + prio(9, 7) + prio(11, 3) + h(13) + d(13, flags=ES),
        ok(13),
    ),
    ("F019", prio(101) + CALL, ok(1)),
    ("F020", prio(0), Fails(PROTOCOL)),
    ("F021", raw(PRIORITY, 0, 1, bytes(4)), Fails(FRAME_SIZE)),
    ("F022", prio(3, 3), Fails(PROTOCOL)),
    ("F023", CALL + prio(1) + h(3) + d(3, flags=ES) + prio(3), ok(1, 3)),
    ("F024", rst(0), Fails(PROTOCOL)),
    ("F025", rst(1), Fails(PROTOCOL)),
    ("F026", OPEN + raw(RST, 0, 1, bytes(3)), Fails(FRAME_SIZE)),
    ("F027", OPEN + rst(1, 0xFF), Ignored()),
    ("F028", OPEN + rst(1) + rst(1), Ignored()),
    ("F029", raw(SETTINGS, 1, 0, b"\0"), Fails(FRAME_SIZE)),
    ("F030", raw(SETTINGS, 0, 1), Fails(PROTOCOL)),
    ("F031", raw(SETTINGS, 0, 0, bytes(3)), Fails(FRAME_SIZE)),
    ("F032", settings((2, 2)), Fails(PROTOCOL)),
    ("F033", settings((4, 2**31)), Fails(FLOW_CONTROL)),
    ("F034 low", settings((5, 16383)), Fails(PROTOCOL)),
    ("F034 high", settings((5, 2**24)), Fails(PROTOCOL)),
    ("F035", settings((0xFF, 1), (0xFE03, 1)) + CALL, ok(1)),
    ("F035 CONNECT protocol 2", settings((8, 2)), Fails(PROTOCOL)),
    ("F035 CONNECT protocol taken back", settings((8, 1)) + settings((8, 0)), Fails(PROTOCOL)),
    ("F035 priorities changed", settings((9, 0)) + settings((9, 1)), Fails(PROTOCOL)),
    ("F037", settings(*[(0xFF, 1)] * 33), Fails(ENHANCE)),
    ("F038", raw(PUSH, EH, 1, bytes(4)), Fails(PROTOCOL)),
    ("F039", ping(flags=1), Ignored()),
    ("F040", raw(PING, 0, 1, bytes(8)), Fails(PROTOCOL)),
    ("F041 short", raw(PING, 0, 0, bytes(7)), Fails(FRAME_SIZE)),
    ("F041 long", raw(PING, 0, 0, bytes(9)), Fails(FRAME_SIZE)),
    ("F042", raw(GOAWAY, 0, 1, bytes(8)), Fails(PROTOCOL)),
    ("F043", raw(GOAWAY, 0, 0, bytes(7)), Fails(FRAME_SIZE)),
    ("F045 short", raw(WU, 0, 0, bytes(3)), Fails(FRAME_SIZE)),
    ("F045 long", raw(WU, 0, 0, bytes(5)), Fails(FRAME_SIZE)),
    ("F046", wu(0, 0), Fails(PROTOCOL)),
    ("F047", OPEN + wu(1, 0), Fails(PROTOCOL)),
    ("F048", wu(0, 2**31 - 1), Fails(FLOW_CONTROL)),
    ("F049", OPEN + wu(1, 2**31 - 1), Resets(1, FLOW_CONTROL)),
    ("F050", wu(7, 1), Fails(PROTOCOL)),
    ("F051", CALL + wu(1, 5), ok(1)),
    ("F052", raw(WU, 0, 0, b"\x80\0\0\x01") + CALL, ok(1)),
    ("F053 alone", raw(CONT, EH, 1, B0), Fails(PROTOCOL)),
    ("F053 after END_HEADERS", OPEN + raw(CONT, EH, 1, b""), Fails(PROTOCOL)),
    ("F053 after DATA", OPEN + d(1) + raw(CONT, EH, 1, b""), Fails(PROTOCOL)),
    ("F054 other", h(1, 0, B0[:10]) + raw(CONT, EH, 3, B0[10:]), Fails(PROTOCOL)),
    ("F054 zero", h(1, 0, B0[:10]) + raw(CONT, EH, 0, B0[10:]), Fails(PROTOCOL)),
    *(
        (f"F055 {name}", h(1, 0, B0[:10]) + frame, Fails(PROTOCOL))
        for name, frame in [
            ("PRIORITY", prio(3)),
            ("PING", ping()),
            ("WINDOW_UPDATE", wu(0, 1)),
            ("SETTINGS", S0),
            ("DATA", d(1)),
            ("unknown", raw(0x20, 0, 1, b"x")),
            ("HEADERS", h(3)),
        ]
    ),
    ("F057", h(1, 0, b"") + raw(CONT, EH, 1, B0) + d(1, flags=ES), ok(1)),
    ("F058", h(1, ES, B0[:20]) + raw(CONT, EH, 1, B0[20:]), ok(1)),
    ("F059", h(1, 0, B0[:20]) + raw(CONT, EH | ES, 1, B0[20:]) + d(1, flags=ES), ok(1)),
    ("A003 empty", h(1, 0, B0) + raw(CONT, 0, 1) * 3, Fails(ENHANCE)),
    ("A003 many", h(1, 0, B0) + raw(CONT, 0, 1, literal(b"a", b"b")) * 11, Fails(ENHANCE)),
    ("A003 long", h(1, 0, bytes(16384)) + raw(CONT, 0, 1, bytes(16384)) + raw(CONT, 0, 1, length=1), Fails(ENHANCE)),
]

STREAMS: list[Row] = [
    ("S001", h(2), Fails(PROTOCOL)),
    ("S002", h(5, EH | ES) + h(3), Fails(PROTOCOL)),
    ("S003", CALL + h(1), Fails(STREAM_CLOSED)),
    ("S004", d(1), Fails(PROTOCOL)),
    ("S004 even", OPEN + d(2), Fails(PROTOCOL)),
    ("S005", HALF + d(1), Fails(STREAM_CLOSED)),
    ("S006", HALF + h(1), Fails(STREAM_CLOSED)),
    ("S007", HELD + rst(1) + d(1), Fails(STREAM_CLOSED)),
    ("S008", HELD + rst(1) + h(1, EH | ES), Fails(STREAM_CLOSED)),
    ("S011", OPEN + h(1, EH, literal(b"x-a", b"1")), Resets(1, PROTOCOL)),
    ("S012 empty", OPEN + h(1, EH | ES, b""), ok(1)),
    ("S012 field", OPEN + d(1) + h(1, EH | ES, literal(b"x-a", b"1")), ok(1)),
    ("S013", OPEN + h(1, EH | ES, literal(b":path", b"/")), Resets(1, PROTOCOL)),
    ("S016", h(1) + h(3) + d(1) + d(3) + d(3, flags=ES) + d(1, flags=ES), ok(3, 1)),
    ("closed WINDOW_UPDATE", CALL + wu(1, 1) + wu(1, 2**31 - 1), ok(1)),
    ("closed RST_STREAM", CALL + rst(1), ok(1)),
    ("skipped DATA", h(5, EH | ES) + d(3), Fails(STREAM_CLOSED)),
    ("skipped RST_STREAM", h(5, EH | ES) + rst(3), ok(5)),
    ("even WINDOW_UPDATE", CALL + wu(2, 1), Fails(PROTOCOL)),
    ("even RST_STREAM", CALL + rst(2), Fails(PROTOCOL)),
]


OPENINGS: list[Row] = [
    ("C003", PREFACE[:20] + b"X" + PREFACE[21:] + S0, Fails(PROTOCOL)),
    ("C008", PREFACE + ping(), Fails(PROTOCOL)),
    ("C009", PREFACE + SETTINGS_ACK, Fails(PROTOCOL)),
]


ROWS = FRAMES + STREAMS


@in_both_ways
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row: Row, byte_by_byte: bool) -> None:
    run_on_open_connection(row, byte_by_byte=byte_by_byte)


@in_both_ways
@pytest.mark.parametrize("row", OPENINGS, ids=[row[0] for row in OPENINGS])
def test_opening(row: Row, byte_by_byte: bool) -> None:
    session = Session(LIMITS)
    session.byte_by_byte = byte_by_byte
    run(row, session)


@in_both_ways
def test_greeting_c001_c002(byte_by_byte: bool) -> None:
    session = Session()
    session.byte_by_byte = byte_by_byte
    session.feed(PREFACE + S0)
    assert [(frame.kind, frame.flags) for frame in session.frames] == [(SETTINGS, 0), (WU, 0), (SETTINGS, 1)]
    assert session.frames[0].payload == bytes.fromhex("000300000100 000400100000 000500100000 000600004000")
    assert session.frames[1].payload == bytes.fromhex("00ff0001")


def test_everything_in_one_segment_is_answered_in_one_write_c010_g001() -> None:
    session = Session()
    session.connection.data_received(PREFACE + S0 + h(1) + d(1, flags=ES))
    (written,) = session.transport.writes
    assert written == bytes.fromhex(
        "000018040000000000 000300000100 000400100000 000500100000 000600004000"
        "000004080000000000 00ff0001"
        "000000040100000000"
        "000014010400000001 880f10106170706c69636174696f6e2f67727063"
        "000005000000000001 0000000000"
        "00000f010500000001 000b677270632d7374617475730130"
    )


def test_trailers_only_is_byte_exact() -> None:
    session = Session()
    session.start()
    session.transport.writes.clear()
    session.connection.data_received(h(1, EH | ES, block(b"/early", (b"content-type", b"application/grpc"))))
    assert session.transport.take() == bytes.fromhex(
        "000024010500000001 880f10106170706c69636174696f6e2f67727063 000b677270632d737461747573023132"
    )


@pytest.mark.parametrize("cuts", [1, 2, 7])
def test_a_block_may_be_cut_anywhere_f056(cuts: int) -> None:
    for first in range(len(B0) - cuts):
        session = Session(LIMITS)
        session.start()
        pieces = [B0[:first], *(B0[first + at : first + at + 1] for at in range(cuts - 1)), B0[first + cuts - 1 :]]
        data = h(1, 0, pieces[0]) + b"".join(raw(CONT, 0, 1, piece) for piece in pieces[1:-1])
        run(("F056", data + raw(CONT, EH, 1, pieces[-1]) + d(1, flags=ES), ok(1)), session)


@pytest.mark.parametrize(("flags", "stream"), [(0xFE, 0), (0, 2**31)], ids=["F002", "F003"])
def test_ping_is_answered(flags: int, stream: int) -> None:
    session = Session()
    session.start()
    assert session.feed(raw(PING, flags, stream, b"12345678")) == [Frame(PING, 1, 0, b"12345678")]
