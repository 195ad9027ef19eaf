"""Every rule of messages and header blocks, one row each: in one write, and a byte at a time."""

from __future__ import annotations

import pytest
from tests.transport.http2.harness import (
    B0,
    COMPRESSION,
    EH,
    ENHANCE,
    ES,
    PAD,
    PROTOCOL,
    block,
    d,
    h,
    hpack_plain,
    literal,
)
from tests.transport.http2.rows import (
    Expected,
    Fails,
    Resets,
    Row,
    entry,
    in_both_ways,
    ok,
    run_on_open_connection,
)


def with_field(*fields: tuple[bytes, bytes]) -> bytes:
    return block(b"/t.S/M", *fields)


def pseudo(*fields: tuple[bytes, bytes]) -> bytes:
    return h(1, EH | ES, hpack_plain(list(fields)))


M, S, P = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/t.S/M")
MALFORMED = Resets(1, PROTOCOL)

CONTENT_LENGTHS: list[tuple[str, list[bytes], bytes, Expected]] = [
    ("4 of 5", [b"4"], d(1, flags=ES), MALFORMED),
    ("4 of 5, open", [b"4"], d(1), MALFORMED),
    ("6 of 5", [b"6"], d(1, flags=ES), MALFORMED),
    ("good", [b"5"], d(1, b"\0") + d(1, bytes(4), ES), ok(1)),
    ("good, at once", [b"5"], d(1, flags=ES), ok(1)),
    ("good, with trailers", [b"5"], d(1) + h(1, EH | ES, b""), ok(1)),
    ("short, with trailers", [b"6"], d(1) + h(1, EH | ES, b""), MALFORMED),
    ("two", [b"5", b"6"], d(1, flags=ES), MALFORMED),
    ("twice the same", [b"5", b"5"], d(1, flags=ES), ok(1)),
    ("+5", [b"+5"], d(1, flags=ES), MALFORMED),
    ("5 and a space", [b"5 "], d(1, flags=ES), MALFORMED),
    ("underscore", [b"1_0"], d(1, flags=ES), MALFORMED),
    ("empty", [b""], d(1, flags=ES), MALFORMED),
    ("30 digits", [b"5" * 30], d(1, flags=ES), MALFORMED),
]

MESSAGES: list[Row] = [
    ("M001 method", pseudo(S, P), MALFORMED),
    ("M001 path", pseudo(M, S), MALFORMED),
    ("M001 scheme", pseudo(M, P), MALFORMED),
    ("M001 empty path", pseudo(M, S, (b":path", b"")), MALFORMED),
    ("M001 relative path", pseudo(M, S, (b":path", b"t.S/M")), MALFORMED),
    ("M001 star", pseudo(M, S, (b":path", b"*")), MALFORMED),
    ("M001 star of OPTIONS", pseudo((b":method", b"OPTIONS"), S, (b":path", b"*")), ok(1)),
    ("M002 method", pseudo(M, M, S, P), MALFORMED),
    ("M002 scheme", pseudo(M, S, S, P), MALFORMED),
    ("M002 path", pseudo(M, S, P, P), MALFORMED),
    ("M002 authority", pseudo(M, S, P, (b":authority", b"a"), (b":authority", b"a")), MALFORMED),
    ("M003 status", pseudo(M, S, P, (b":status", b"200")), MALFORMED),
    ("M003 unknown", pseudo(M, S, P, (b":foo", b"1")), MALFORMED),
    ("M003 colon", pseudo(M, S, P, (b":", b"1")), MALFORMED),
    ("M004", pseudo(M, S, (b"a", b"b"), P), MALFORMED),
    *(
        (f"M005 {name!r}", pseudo(M, S, P, (name, b"1")), MALFORMED)
        for name in (b"X-Up", b"te ", b"a:b", b"", b"a\x80", b"a(b", b"a\0b")
    ),
    *(
        (f"M006 {value!r}", pseudo(M, S, P, (b"a", value)), MALFORMED)
        for value in (b"a\0b", b"a\rb", b"a\nb", b" a", b"a\t", b" ", b"a\x7f", b"\x01")
    ),
    ("M006 other octets", pseudo(M, S, P, (b"a", b"\xe4 \t \xff")), ok(1)),
    ("M006 path with NUL", pseudo(M, S, (b":path", b"/\0")), MALFORMED),
    ("M006 path with a space", pseudo(M, S, (b":path", b"/a b")), MALFORMED),
    *(
        (f"M007 {name!r}", pseudo(M, S, P, (name, b"close")), MALFORMED)
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"transfer-encoding")
    ),
    ("M008 gzip", pseudo(M, S, P, (b"te", b"gzip")), MALFORMED),
    ("M008 list", pseudo(M, S, P, (b"te", b"trailers, deflate")), MALFORMED),
    *(
        (f"M009 {name}", h(1, EH, with_field(*((b"content-length", one) for one in lengths))) + rest, expected)
        for name, lengths, rest, expected in CONTENT_LENGTHS
    ),
    ("M010", h(1, EH | ES, with_field((b"content-length", b"0"))), ok(1)),
    ("M010 not", h(1, EH | ES, with_field((b"content-length", b"5"))), MALFORMED),
    ("M011", h(1, EH, with_field((b"content-length", b"5"))) + d(1, b"\x0a" + bytes(5 + 10), PAD | ES), ok(1)),
    ("M012 differ", pseudo(M, S, P, (b":authority", b"a"), (b"host", b"b")), MALFORMED),
    ("M012 equal", pseudo(M, S, P, (b":authority", b"a"), (b"host", b"A")), ok(1)),
    ("M012 host", pseudo(M, S, P, (b"host", b"b")), ok(1)),
    ("M012 neither", pseudo(M, S, P), ok(1)),
    ("M012 two hosts", pseudo(M, S, P, (b"host", b"b"), (b"host", b"b")), MALFORMED),
    ("M012 user", pseudo(M, S, P, (b":authority", b"me@b")), MALFORMED),
    ("M012 unix", pseudo(M, S, P, (b":authority", b"%2Ftmp%2Fs.sock")), ok(1)),
    ("M013", pseudo((b":method", b"CONNECT"), (b":authority", b"a:1")), ok(1)),
    ("M013 with path", pseudo((b":method", b"CONNECT"), P, (b":authority", b"a:1")), MALFORMED),
    ("M013 without authority", pseudo((b":method", b"CONNECT")), MALFORMED),
]


LOST = Fails(COMPRESSION)
BLOCKS: list[Row] = [
    ("H001 zero", h(1, EH, b"\x80"), LOST),
    ("H001 62", h(1, EH, b"\xbe"), LOST),
    ("H001 name 62", h(1, EH, b"\x0f\x2f\x01a"), LOST),
    ("H002 4097", h(1, EH | ES, b"\x3f\xe2\x1f" + B0), LOST),
    ("H002 at the end", h(1, EH | ES, B0 + b"\x20"), LOST),
    ("H002 between", h(1, EH | ES, B0[:2] + b"\x20" + B0[2:]), LOST),
    ("H002 three", h(1, EH | ES, b"\x20\x20\x20" + B0), LOST),
    ("H003", h(1, EH | ES, b"\x3f\x61\x3f\xe1\x1f" + B0), ok(1)),
    ("H004", h(1, EH | ES, b"\x20" + B0 + entry(b"a", b"b")) + h(3, EH | ES, B0 + b"\xbe"), LOST),
    ("H005 padding of 8", h(1, EH, b"\x00\x82\xff\xff\x00"), LOST),
    ("H005 padding of zeros", h(1, EH, b"\x00\x81\x18\x00"), LOST),
    ("H005 end of string", h(1, EH, b"\x00\x84\xff\xff\xff\xff\x00"), LOST),
    ("H006 six octets", h(1, EH, b"\xff\x80\x80\x80\x80\x80\x01"), LOST),
    ("H006 2**32", h(1, EH, b"\xff\xff\xff\xff\xff\x0f"), LOST),
    ("H007 string", h(1, EH, b"\x00\x05ab"), LOST),
    ("H007 value", h(1, EH, b"\x00\x01a\x05b"), LOST),
    ("H007 integer", h(1, EH, b"\xff\x80"), LOST),
    ("H007 name only", h(1, EH, b"\x00\x01a"), LOST),
    ("H007 nothing", h(1, EH, b"\x40"), LOST),
    *(
        (f"H008 {name}", h(1, EH | ES, B0 + extra), ok(1))
        for name, extra in [
            ("indexed", b"\x90"),
            ("incremental, indexed name", b"\x53\x01b"),
            ("incremental, new name", b"\x40\x01a\x01b"),
            ("incremental, Huffman", b"\x40\x81\x1f\x81\x8f"),
            ("without, indexed name", b"\x0f\x04\x01b"),
            ("without, new name", b"\x00\x01a\x01b"),
            ("without, Huffman", b"\x00\x81\x1f\x81\x8f"),
            ("never, indexed name", b"\x1f\x04\x01b"),
            ("never, new name", b"\x10\x01a\x01b"),
            ("never, Huffman", b"\x10\x81\x1f\x81\x8f"),
            ("dynamic", b"\x40\x01a\x01b\xbe"),
            ("dynamic name", b"\x40\x01a\x01b\x7e\x01c"),
            ("long integer", b"\x00\x7f\x80\x00" + b"a" * 127 + b"\x01b"),
        ]
    ),
    ("H009", h(1, EH | ES, B0 + entry(b"a", b"b") + entry(b"big", b"x" * 4100)) + h(3, EH | ES, B0 + b"\xbe"), LOST),
    ("H013", h(1) + h(1, EH | ES, B0), MALFORMED),
    ("H013 seen before", h(1) + d(1, flags=ES) + h(3) + h(3, EH | ES, B0), Resets(3, PROTOCOL)),
    ("H014", h(1, EH, entry(b"a", b"b" * 4000) + b"\xbe" * 12000), Fails(ENHANCE)),
    ("H015", h(1, EH, B0 + literal(b"", b"") * 5000), Fails(ENHANCE)),
    ("H015 few", h(1, EH | ES, B0 + literal(b"", b"") * 200), MALFORMED),
]


ROWS = MESSAGES + BLOCKS


@in_both_ways
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row: Row, byte_by_byte: bool) -> None:
    run_on_open_connection(row, byte_by_byte=byte_by_byte)
