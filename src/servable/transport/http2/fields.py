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
_SINGULAR = frozenset((b"content-length", b"host", b"cookie", b"te")) | _CONNECTION_SPECIFIC
_MAX_KNOWN = 256
_MAX_KNOWN_VALUE = 128

UNKNOWN_LENGTH = -1


class FieldRules:
    """Checks header lists. Fields found good are remembered: clients send the same ones with every request."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[Field] = set()

    def request(self, fields: list[Field]) -> tuple[RequestHead, int]:
        """Return the head and the declared length of the body, or ``UNKNOWN_LENGTH``; raise ``MalformedError``."""
        pseudo, regular, length = self._split(fields, _REQUEST_PSEUDO)
        method = pseudo.get(b":method")
        target = pseudo.get(b":path")
        scheme = pseudo.get(b":scheme")
        authority = pseudo.get(b":authority", b"")
        if method is None or not _METHOD(method):
            raise MalformedError(":method is missing or no token")
        if method == b"CONNECT":
            if target is not None or scheme is not None or not authority:
                raise MalformedError("CONNECT takes :method and :authority, and nothing else")
            target, scheme = authority, b""
        elif target is None or not (_TARGET(target) or (target == b"*" and method == b"OPTIONS")):
            raise MalformedError(":path is missing or does not begin with a slash")
        if scheme is None or (scheme and not _SCHEME(scheme)):
            raise MalformedError(":scheme is missing or malformed")
        head = RequestHead(
            method,
            target,
            tuple(_with_one_cookie(regular)),
            authority=_authority(authority, regular),
            scheme=scheme,
        )
        return head, length

    def response(self, fields: list[Field]) -> tuple[int, tuple[Field, ...], int]:
        """Return status, fields and the declared length of the body; raise ``MalformedError``."""
        pseudo, regular, length = self._split(fields, _RESPONSE_PSEUDO)
        status = pseudo.get(b":status", b"")
        if not _STATUS(status) or status == b"101":
            raise MalformedError(":status is missing or impossible")
        return int(status), tuple(regular), length

    def trailers(self, fields: list[Field]) -> tuple[Field, ...]:
        """Return the fields that follow a body; raise ``MalformedError``."""
        return tuple(self._split(fields, _NO_PSEUDO)[1])

    def _split(self, fields: list[Field], allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[Field], int]:
        """Return pseudo-fields, the others, and the content length."""
        known = self._known
        pseudo: dict[bytes, bytes] = {}
        regular: list[Field] = []
        length = UNKNOWN_LENGTH
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
        return pseudo, regular, length

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


def _authority(authority: bytes, regular: list[Field]) -> bytes:
    hosts = [value for name, value in regular if name == b"host"]
    if hosts:
        if len(hosts) > 1 or (authority and authority.lower() != hosts[0].lower()):
            raise MalformedError("host is repeated or contradicts :authority")
        authority = hosts[0]
    if not _AUTHORITY(authority):
        raise MalformedError("the authority is malformed")
    return authority


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
