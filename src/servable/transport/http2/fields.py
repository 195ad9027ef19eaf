"""The rules of header lists (RFC 9113, section 8): what makes a request, a reply and trailers well-formed."""

from __future__ import annotations

import re

from servable.transport.exchange import Field, RequestHead
from servable.transport.http2.errors import MalformedError

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_TARGET = re.compile(rb"/[\x21-\x7e]*").fullmatch
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch
_AUTHORITY = re.compile(rb"[\x21-\x3f\x41-\x7e]*").fullmatch  # no "@": user information does not belong here
_LENGTH = re.compile(rb"[0-9]{1,19}").fullmatch
_STATUS = re.compile(rb"[1-5][0-9][0-9]").fullmatch

_CONNECTION_SPECIFIC = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_RESPONSE_PSEUDO = frozenset((b":status",))
_NO_PSEUDO: frozenset[bytes] = frozenset()
_SINGULAR = frozenset((b"content-length", b"host", b"cookie", b"expect", b"te")) | _CONNECTION_SPECIFIC
_MAX_KNOWN = 256
_MAX_KNOWN_VALUE = 128
_MAX_KNOWN_LINES = 64
_MAX_KNOWN_LINE = 512

UNKNOWN_LENGTH = -1


class FieldRules:
    """Checks header lists. Fields found good are remembered: clients send the same ones with every request."""

    __slots__ = ("_known", "_lines")

    def __init__(self) -> None:
        self._known: set[Field] = set()
        self._lines: set[tuple[bytes, bytes, bytes, bytes]] = set()

    def request(self, fields: list[Field]) -> tuple[RequestHead, int, bool]:
        """Return the head, the declared length of the body or ``UNKNOWN_LENGTH``, and whether it awaits a 100."""
        pseudo, regular, length, special = self._split(fields, _REQUEST_PSEUDO)
        method = pseudo.get(b":method", b"")
        target = pseudo.get(b":path", b"")
        scheme = pseudo.get(b":scheme", b"")
        authority = pseudo.get(b":authority", b"")
        awaits_continue = False
        if special:
            authority = _with_host(authority, regular)
            regular = _with_one_cookie(regular)
            awaits_continue = _awaits_continue(regular)
        line = (method, target, scheme, authority)
        if line not in self._lines:
            _check_line(pseudo, *line)
            self._remember_line(line)
        if method == b"CONNECT":
            target = authority
        head = RequestHead(method, target, tuple(regular), authority=authority, scheme=scheme)
        return head, length, awaits_continue

    def response(self, fields: list[Field]) -> tuple[int, tuple[Field, ...], int]:
        """Return status, fields and the declared length of the body; raise ``MalformedError``."""
        pseudo, regular, length, _ = self._split(fields, _RESPONSE_PSEUDO)
        status = pseudo.get(b":status", b"")
        if not _STATUS(status) or status == b"101":
            raise MalformedError(":status is missing or impossible")
        return int(status), tuple(regular), length

    def trailers(self, fields: list[Field]) -> tuple[Field, ...]:
        """Return the fields that follow a body; raise ``MalformedError``."""
        return tuple(self._split(fields, _NO_PSEUDO)[1])

    def _split(
        self, fields: list[Field], allowed: frozenset[bytes]
    ) -> tuple[dict[bytes, bytes], list[Field], int, bool]:
        """Return pseudo-fields, the others, the content length, and whether host, cookie or expect is among them."""
        known = self._known
        pseudo: dict[bytes, bytes] = {}
        regular: list[Field] = []
        length = UNKNOWN_LENGTH
        special = False
        for field in fields:
            if field in known:
                regular.append(field)
                continue
            name, value = field
            if name[:1] == b":":
                if name not in allowed or name in pseudo or regular:
                    raise MalformedError("a pseudo-field is unknown, repeated or out of place")
                pseudo[name] = value
                continue
            _check(name, value)
            regular.append(field)
            if name not in _SINGULAR:
                self._remember(field)
            elif name == b"content-length":
                length = _length(value, length)
            elif name == b"te" and value != b"trailers":
                raise MalformedError("te may only say trailers")
            elif name in _CONNECTION_SPECIFIC:
                raise MalformedError("a field belongs to HTTP/1.1 connections")
            else:
                special = True
        return pseudo, regular, length, special

    def _remember_line(self, line: tuple[bytes, bytes, bytes, bytes]) -> None:
        if sum(map(len, line)) <= _MAX_KNOWN_LINE:
            if len(self._lines) >= _MAX_KNOWN_LINES:
                self._lines.clear()
            self._lines.add(line)

    def _remember(self, field: Field) -> None:
        if len(field[1]) <= _MAX_KNOWN_VALUE:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known.add(field)


def _check(name: bytes, value: bytes) -> None:
    if not _NAME(name):
        raise MalformedError("a field name has a character that names do not have")
    if _FORBIDDEN(value) or value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
        raise MalformedError("a field value has a forbidden character, or spaces around it")


def _length(value: bytes, before: int) -> int:
    if not _LENGTH(value):
        raise MalformedError("content-length is not a number")
    length = int(value)
    if before not in (UNKNOWN_LENGTH, length):
        raise MalformedError("content-length is given twice, differently")
    return length


def _check_line(pseudo: dict[bytes, bytes], method: bytes, target: bytes, scheme: bytes, authority: bytes) -> None:
    if not _METHOD(method):
        raise MalformedError(":method is missing or no token")
    if method == b"CONNECT":
        if b":path" in pseudo or b":scheme" in pseudo or not authority:
            raise MalformedError("CONNECT takes :method and :authority, and nothing else")
    else:
        if not (_TARGET(target) or (target == b"*" and method == b"OPTIONS")):
            raise MalformedError(":path is missing or does not begin with a slash")
        if not _SCHEME(scheme):
            raise MalformedError(":scheme is missing or malformed")
    if not _AUTHORITY(authority):
        raise MalformedError("the authority is malformed")


def _with_host(authority: bytes, regular: list[Field]) -> bytes:
    """Return the authority, which ``host`` may give instead or may only repeat."""
    hosts = [value for name, value in regular if name == b"host"]
    if not hosts:
        return authority
    if len(hosts) > 1 or (authority and authority.lower() != hosts[0].lower()):
        raise MalformedError("host is repeated or contradicts :authority")
    return hosts[0]


def _awaits_continue(regular: list[Field]) -> bool:
    """Return True if the client waits for a 100 before its body. gRPC clients would fail on one."""
    expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in regular)
    return expects and not any(
        name == b"content-type" and value.startswith(b"application/grpc") for name, value in regular
    )


def _with_one_cookie(regular: list[Field]) -> list[Field]:
    """Join cookie crumbs (section 8.2.3): above HTTP/2 there is one cookie field."""
    crumbs = [value for name, value in regular if name == b"cookie"]
    if len(crumbs) < 2:
        return regular
    joined = (b"cookie", b"; ".join(crumbs))
    first = regular.index((b"cookie", crumbs[0]))
    return [
        joined if place == first else field
        for place, field in enumerate(regular)
        if place == first or field[0] != b"cookie"
    ]
