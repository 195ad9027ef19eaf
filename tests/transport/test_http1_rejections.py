"""What a server must not accept, one row each: refused, the connection closed, and nothing after it served."""

from __future__ import annotations

import pytest
from tests.transport.fakes import Served, statuses

from servable.transport.limits import Limits

HOST = b"Host: a\r\n"
NEXT = b"GET /echo/next HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*lines: bytes, line: bytes = b"GET /echo HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(one + b"\r\n" for one in lines) + b"\r\n"


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", line=b"POST /echo HTTP/1.1") + body


PARSER_ROWS = {
    "length and coding": (get(b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400),
    "coding and length": (get(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400),
    "two equal lengths": (get(b"Content-Length: 3", b"Content-Length: 3"), 400),
    "two lengths": (get(b"Content-Length: 3", b"Content-Length: 4"), 400),
    "length with a plus": (get(b"Content-Length: +1"), 400),
    "length list": (get(b"Content-Length: 1, 1"), 400),
    "empty length": (get(b"Content-Length: "), 400),
    "length above 2^64": (get(b"Content-Length: 99999999999999999999"), 400),
    "length in hexadecimal": (get(b"Content-Length: 0x1"), 400),
    "negative length": (get(b"Content-Length: -1"), 400),
    "coding gzip": (get(b"Transfer-Encoding: gzip"), 400),
    "coding xchunked": (get(b"Transfer-Encoding: xchunked"), 400),
    "coding identity": (get(b"Transfer-Encoding: identity"), 400),
    "coding chunked, gzip": (get(b"Transfer-Encoding: chunked, gzip"), 400),
    "coding chunked twice": (get(b"Transfer-Encoding: chunked, chunked"), 400),
    "coding chunked in two fields": (get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "coding with a vertical tab": (get(b"Transfer-Encoding: \x0bchunked"), 400),
    "LF after the version": (b"GET /echo HTTP/1.1\n" + HOST + b"\r\n", 400),
    "LF after a value": (b"GET /echo HTTP/1.1\r\nHost: a\n\r\n", 400),
    "LF LF at the end": (b"GET /echo HTTP/1.1\r\nHost: a\n\n", 400),
    "CR in a value": (get(b"X: a\rb"), 400),
    "CR CR LF": (get(b"X: a\r"), 400),
    "folded value": (get(b"X: a", b" b"), 400),
    "space before colon": (get(b"X : a"), 400),
    "leading space": (b"GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "NUL in a value": (get(b"X: a\0b"), 400),
    "control byte in a value": (get(b"X: a\x01b"), 400),
    "DEL in a value": (get(b"X: a\x7fb"), 400),
    "name with a space": (get(b"X Y: a"), 400),
    "name with a parenthesis": (get(b"X(: a"), 400),
    "empty name": (get(b": a"), 400),
    "line without colon": (get(b"X"), 400),
    "HTTP/1.2": (get(line=b"GET /echo HTTP/1.2"), 505),
    "HTTP/9.9": (get(line=b"GET /echo HTTP/9.9"), 505),
    "http/1.1 in small letters": (get(line=b"GET /echo http/1.1"), 400),
    "control byte in the target": (get(line=b"GET /echo\x01 HTTP/1.1"), 400),
    "NUL in the target": (get(line=b"GET /echo\0 HTTP/1.1"), 400),
    "non-ASCII in the target": (get(line=b"GET /echo\xc3\xa4 HTTP/1.1"), 400),
    "space in the target": (get(line=b"GET /echo /x HTTP/1.1"), 400),
    "two spaces": (get(line=b"GET  /echo HTTP/1.1"), 400),
    "tab for a space": (get(line=b"GET\t/echo HTTP/1.1"), 400),
    "lower-case method": (get(line=b"get /echo HTTP/1.1"), 400),
    "unknown method": (get(line=b"FETCH /echo HTTP/1.1"), 400),
    "no method": (get(line=b"/echo HTTP/1.1"), 400),
    "chunk size 0x1": (chunked(b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size too large": (chunked(b"11111111111111111\r\na\r\n0\r\n\r\n"), 400),
    "empty chunk size": (chunked(b"\r\na\r\n0\r\n\r\n"), 400),
    "negative chunk size": (chunked(b"-1\r\na\r\n0\r\n\r\n"), 400),
    "no CR LF after a chunk": (chunked(b"1\r\nab\r\n0\r\n\r\n"), 400),
    "LF in a chunk size": (chunked(b"1\na\r\n0\r\n\r\n"), 400),
    "LF in a chunk extension": (chunked(b"1;a\na\r\n0\r\n\r\n"), 400),
    "CR in a chunk extension": (chunked(b"1;a\rb\r\na\r\n0\r\n\r\n"), 400),
    "LF after a chunk": (chunked(b"1\r\na\n0\r\n\r\n"), 400),
    "LF after a trailer": (chunked(b"0\r\nx: y\n\r\n"), 400),
    "length in the trailers": (chunked(b"0\r\nContent-Length: 3\r\n\r\n"), 400),
    "trailer without colon": (chunked(b"0\r\nx\r\n\r\n"), 400),
    "PRI": (get(line=b"PRI * HTTP/1.1"), 400),
    "the preface's line": (b"PRI * HTTP/2.0\r\n\r\nXX", 505),
}

OUR_ROWS = {
    "HTTP/0.9": (b"GET /echo\r\n", 400),
    "HTTP/0.9 with LF": (b"GET /echo\n", 400),
    "HTTP/0.9 with fields": (get(line=b"GET /echo"), 400),
    "HTTP/2.0": (get(line=b"GET /echo HTTP/2.0"), 505),
    "no Host": (get(host=b""), 400),
    "two Hosts": (get(b"Host: b"), 400),
    "two Hosts in HTTP/1.0": (get(b"Host: b", line=b"GET /echo HTTP/1.0"), 400),
    "Host with userinfo": (get(host=b"Host: u@a\r\n"), 400),
    "Host with a path": (get(host=b"Host: a/b\r\n"), 400),
    "Host with an open bracket": (get(host=b"Host: [::1\r\n"), 400),
    "coding in HTTP/1.0": (get(b"Transfer-Encoding: chunked", line=b"POST /echo HTTP/1.0") + b"0\r\n\r\n", 400),
    "coding gzip, chunked": (get(b"Transfer-Encoding: gzip, chunked"), 501),
    "coding gzip and chunked in two fields": (get(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), 501),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "asterisk with GET": (get(line=b"GET * HTTP/1.1"), 400),
    "authority with GET": (get(line=b"GET a:80 HTTP/1.1"), 400),
    "URL of another scheme": (get(line=b"GET ftp://a/echo HTTP/1.1"), 400),
    "URL without authority": (get(line=b"GET http:///echo HTTP/1.1"), 400),
    "URL with userinfo": (get(line=b"GET http://u@a/echo HTTP/1.1"), 400),
    "unknown expectation": (get(b"Expect: 200-maybe"), 417),
    "long value": (get(b"X: " + b"a" * 33_000), 431),
    "200 fields": (get(*[b"X: a"] * 200), 431),
    "long target": (get(line=b"GET /" + b"a" * 8192 + b" HTTP/1.1"), 414),
    "endless target": (b"GET /" + b"a" * 40_000, 414),
    "endless head": (get(b"X: a")[:-2] + b"Y: b\r\n" * 6000, 431),
    "long chunk extension": (chunked(b"1;" + b"a" * 5000 + b"\r\na\r\n0\r\n\r\n"), 431),
    "many chunk extensions": (chunked((b"1;" + b"a" * 1000 + b"\r\na\r\n") * 9 + b"0\r\n\r\n"), 431),
    "long trailers": (chunked(b"0\r\n" + b"x: yyyyyyyyyy\r\n" * 1000 + b"\r\n"), 431),
}


@pytest.mark.parametrize(
    ("sent", "status"), [pytest.param(*row, id=name) for name, row in (PARSER_ROWS | OUR_ROWS).items()]
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytewise"])
def test_refused(sent: bytes, status: int, whole: bool) -> None:
    served = Served()
    stream = sent + NEXT
    reply = served.feed(stream) if whole else served.feed(*(stream[i : i + 1] for i in range(len(stream))))
    assert statuses(reply) == [status]
    assert b"connection: close\r\n" in reply
    assert reply.endswith(b"\n")
    assert served.application.handled == []
    assert served.ending


def test_requests_before_a_bad_one_are_answered() -> None:
    served = Served()
    reply = served.feed(NEXT + NEXT + b"BAD\r\n\r\n" + NEXT)
    assert statuses(reply) == [200, 200, 400]
    assert len(served.application.handled) == 2
    assert served.transport.writes == 1


def test_a_refusal_says_what_would_be_right() -> None:
    reply = Served().feed(get(host=b""))
    assert reply.endswith(b"the request has 0 Host fields; exactly one is needed\n")


def test_limits_are_those_given() -> None:
    served = Served(Limits(max_request_fields=2, max_request_head=200, max_request_target=20))
    assert statuses(served.feed(get(b"X: a"))) == [200]
    assert statuses(served.feed(get(b"X: a", b"Y: b"))) == [431]
    assert statuses(Served(Limits(max_request_head=200)).feed(get(b"X: " + b"a" * 200))) == [431]
    assert statuses(Served(Limits(max_request_target=20)).feed(get(line=b"GET /echo" + b"a" * 20 + b" HTTP/1.1"))) == [
        414
    ]


def test_a_head_request_is_refused_without_a_body() -> None:
    reply = Served().feed(get(b"Expect: x", line=b"HEAD /echo HTTP/1.1"))
    assert statuses(reply) == [417]
    assert reply.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "begun",
    [
        b"\0\x01",
        b"\xde\xad\xbe\xef",
        b"{",
        b" GET",
        b"GET /echo\r\n",
        b"GET /echo HTTP/1.1\n",
        b"GET /echo HTTP/1.1\r\nHost: a\n",
        b"GET /echo HTTP/1.1\r\nHost: a\rb",
        b"GET /echo HTTP/3.0\r\n",
    ],
)
def test_what_can_not_become_a_request_is_refused_at_once(begun: bytes) -> None:
    assert statuses(Served().feed(begun)) in ([400], [505])
