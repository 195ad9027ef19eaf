"""Heads of HTTP/1.1 messages: bytes to meaning, strictly. Pure: no sockets and no state beyond a bounded memo.

A head is cut out at its empty line first and parsed alone, so that whatever follows it (a body, the next request, the
bytes after an upgrade offer) is never in the parser's hands. llhttp does the grammar; this module adds what llhttp
lets through and a server must not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httptools

from servable.transport.exchange import RequestHead

if TYPE_CHECKING:
    from servable.transport.exchange import Field
    from servable.transport.limits import Limits

END = b"\r\n\r\n"
CHUNKED = -1
"""In place of a body's length: the body says itself where it ends."""
UNTIL_CLOSE = -2
"""In place of a body's length: the body ends with the connection (replies only)."""

# Control bytes, a CR without its LF, a LF without its CR. A CR at the very end may still get its LF.
_ILL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
# What no method begins with, control bytes aside: they are for _ILL to judge.
_NO_METHOD = re.compile(rb"[\t \x80-\xff\"(),/:;<=>?@\[\\\]{}]")
_HARMLESS = bytes(byte for byte in range(256) if byte >= 0x20 and byte != 0x7F) + b"\t\r\n"
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_LINE_OVERHEAD = 64  # method, two spaces, version and CR of a request line
_WHITESPACE = b" \t"
_OURS = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"})
_Fields = dict[bytes, list[bytes]]


class ProtocolError(Exception):
    """A message that breaks the protocol or its limits. ``text`` says how; ``status`` is what a server answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RequestFacts:
    """A request's head and what follows from it for the connection."""

    __slots__ = ("expects_continue", "head", "keep_alive", "length", "plain")

    def __init__(self, head: RequestHead, length: int, *, keep_alive: bool, expects_continue: bool) -> None:
        self.head = head
        self.length = length
        """Bytes of body, or ``CHUNKED``."""
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.plain = keep_alive and head.version == b"1.1" and head.method != b"HEAD"
        """The reply needs no ``connection`` field and carries its body: the usual case, in one look."""


class ReplyFacts:
    """The head of a reply as a client sees it."""

    __slots__ = ("fields", "keep_alive", "length", "status")

    def __init__(self, status: int, fields: tuple[Field, ...], length: int, *, keep_alive: bool) -> None:
        self.status = status
        self.fields = fields
        self.length = length
        """Bytes of body as announced, ``CHUNKED`` or ``UNTIL_CLOSE``; a reply to HEAD has none all the same."""
        self.keep_alive = keep_alive


class _Collector:
    """What llhttp found in one head."""

    __slots__ = ("complete", "fields", "url")

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[Field] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(_WHITESPACE)))

    def on_headers_complete(self) -> None:
        self.complete = True


def screen(data: bytes, start: int, seen: int, limits: Limits) -> None:
    """Raise ``ProtocolError`` if the bytes of ``data`` from ``start`` can not become an acceptable request head.

    Bytes before ``seen`` were screened before. The verdict depends on the bytes alone, never on how they were cut
    into reads, because it is given in the order of the stream: the request line, then the rest, then the size.
    """
    if _NO_METHOD.match(data, start):
        raise _no_request_line()
    longest = limits.max_request_target + _LINE_OVERHEAD
    line_end = data.find(b"\n", start, start + longest)
    if line_end < 0:
        if _ILL.search(data, max(start, seen - 1), start + longest):
            raise _ill()
        if len(data) - start >= longest:
            raise ProtocolError(414, f"the request line is longer than {longest} bytes")
        return
    if seen <= line_end:
        _screen_line(data[start : line_end + 1])
    if _ILL.search(data, max(start, seen - 1), start + limits.max_request_head):
        raise _ill()


def _screen_line(line: bytes) -> None:
    if _ILL.search(line):
        raise _ill()
    _check_line(line)


def _is_clean(head: bytes) -> bool:
    """Tell, fast, whether a whole head has nothing that ``_ILL`` would find."""
    lines = head.count(b"\r\n")
    return head.count(b"\n") == lines == head.count(b"\r") and not head.translate(None, _HARMLESS)


def _check_line(line: bytes) -> None:
    words = line[:-2].split(b" ")
    if len(words) != 3 or not _VERSION.fullmatch(words[2]):
        raise _no_request_line()
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ProtocolError(505, "this connection speaks HTTP/1.1 and HTTP/1.0")


def _no_request_line() -> ProtocolError:
    return ProtocolError(400, "the request line is not of the form METHOD TARGET HTTP/1.1")


def _ill() -> ProtocolError:
    return ProtocolError(400, "the request head has a control byte, or a line that does not end in CR LF")


def parse_request(head: bytes, limits: Limits, scheme: bytes = b"http") -> RequestFacts:
    """Parse a whole head, its empty line included; raise ``ProtocolError`` if it breaks a rule."""
    line_end = head.find(b"\n") + 1
    if _is_clean(head) and line_end <= limits.max_request_target and not _NO_METHOD.match(head):
        _check_line(head[:line_end])
    else:
        screen(head, 0, 0, limits)  # says which rule is broken first
    if len(head) > limits.max_request_head:
        raise head_too_large(limits)
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # an offer: answered in HTTP/1.1, as RFC 9110 allows
    except httptools.HttpParserError as error:
        raise ProtocolError(400, f"the request head is malformed: {error}") from None
    method = parser.get_method()
    version = b"1.1" if parser.get_http_version() == "1.1" else b"1.0"
    _check_target_and_count(method, collector, limits)
    ours = _pick(collector.fields)
    authority, target, scheme = _locate(method, collector.url, ours.get(b"host", []), version, scheme)
    return RequestFacts(
        RequestHead(method, target, tuple(collector.fields), authority=authority, scheme=scheme, version=version),
        _request_length(ours, version),
        keep_alive=_keeps_alive(ours, version),
        expects_continue=_expects_continue(ours, version),
    )


def head_too_large(limits: Limits) -> ProtocolError:
    """Return the rejection of a head above the limit."""
    return ProtocolError(431, f"the request head exceeds {limits.max_request_head} bytes")


def _check_target_and_count(method: bytes, collector: _Collector, limits: Limits) -> None:
    if not collector.complete:
        raise ProtocolError(400, "the request head is malformed")
    if method == b"CONNECT":
        raise ProtocolError(501, "this server is no proxy: CONNECT is not implemented")
    if len(collector.url) > limits.max_request_target:
        raise ProtocolError(414, f"the request target exceeds {limits.max_request_target} bytes")
    if len(collector.fields) > limits.max_request_fields:
        raise ProtocolError(431, f"the request has more than {limits.max_request_fields} fields")


def _pick(fields: list[Field]) -> _Fields:
    """Return the values of the fields that matter to the connection itself."""
    picked: _Fields = {}
    for name, value in fields:
        if name in _OURS:
            picked.setdefault(name, []).append(value)
    return picked


def _locate(method: bytes, url: bytes, hosts: list[bytes], version: bytes, scheme: bytes) -> tuple[bytes, bytes, bytes]:
    """Return authority, target in origin form, and scheme."""
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        raise ProtocolError(400, f"the request has {len(hosts)} Host fields; exactly one is needed")
    authority = hosts[0] if hosts else b""
    if not _AUTHORITY.fullmatch(authority):
        raise ProtocolError(400, "the Host field is not of the form HOST[:PORT]")
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        return authority, url, scheme
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None:
        raise ProtocolError(400, "the request target is neither a path nor an http URL")
    scheme, authority, target = absolute[1].lower(), absolute[2], absolute[3]
    if not authority or not _AUTHORITY.fullmatch(authority):
        raise ProtocolError(400, "the authority in the request target is not of the form HOST[:PORT]")
    if not target and method == b"OPTIONS":
        return authority, b"*", scheme
    return authority, target if target.startswith(b"/") else b"/" + target, scheme


def _tokens(fields: _Fields, name: bytes) -> list[bytes]:
    """Return the lower-case elements of a comma-separated field."""
    values = fields.get(name)
    return [token.strip(_WHITESPACE).lower() for token in b",".join(values).split(b",")] if values else []


def _keeps_alive(fields: _Fields, version: bytes) -> bool:
    tokens = _tokens(fields, b"connection")
    if b"close" in tokens:
        return False
    return version == b"1.1" or b"keep-alive" in tokens


def _expects_continue(fields: _Fields, version: bytes) -> bool:
    expectations = _tokens(fields, b"expect")
    if not expectations or version == b"1.0":
        return False
    if expectations != [b"100-continue"]:
        raise ProtocolError(417, "the only expectation this server knows is 100-continue")
    return True


def _request_length(fields: _Fields, version: bytes) -> int:
    codings = _tokens(fields, b"transfer-encoding")
    if codings:
        if version == b"1.0":
            raise ProtocolError(400, "Transfer-Encoding is not part of HTTP/1.0")
        if codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
            raise ProtocolError(400, "Transfer-Encoding must end in one chunked")
        if codings != [b"chunked"]:
            raise ProtocolError(501, "the only transfer coding this server decodes is chunked")
        return CHUNKED
    return _content_length(fields) or 0


def _content_length(fields: _Fields) -> int | None:
    values = fields.get(b"content-length")
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 19:
        raise ProtocolError(400, "Content-Length must be one number of at most 19 digits")
    return int(values[0])


def parse_reply(head: bytes) -> ReplyFacts:
    """Parse the whole head of a reply, its empty line included; raise ``ProtocolError`` if it is malformed."""
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    if not _is_clean(head) or not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise ProtocolError(400, "the reply's head is not HTTP/1.1")
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        raise ProtocolError(400, "the reply switches protocols, which was not asked for") from None
    except httptools.HttpParserError as error:
        raise ProtocolError(400, f"the reply's head is malformed: {error}") from None
    if not collector.complete:
        raise ProtocolError(400, "the reply's head is malformed")
    ours = _pick(collector.fields)
    version = b"1.1" if parser.get_http_version() == "1.1" else b"1.0"
    return ReplyFacts(
        parser.get_status_code(),
        tuple(collector.fields),
        _reply_length(parser.get_status_code(), ours),
        keep_alive=_keeps_alive(ours, version),
    )


def _reply_length(status: int, fields: _Fields) -> int:
    if status < 200 or status in (204, 304):
        return 0
    codings = _tokens(fields, b"transfer-encoding")
    if codings:
        if codings != [b"chunked"]:
            raise ProtocolError(400, "the reply uses a transfer coding other than chunked")
        return CHUNKED
    length = _content_length(fields)
    return UNTIL_CLOSE if length is None else length
