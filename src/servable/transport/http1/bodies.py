"""Bodies of HTTP/1.1 messages, as they arrive in pieces. Both roles use them."""

from __future__ import annotations

import re

from servable.transport.http1.heads import ProtocolError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_FIELD_LINE = re.compile(rb"%b:[\t\x20-\x7e\x80-\xff]*" % _TOKEN)
_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)
_MAX_EXTRA = 8 * 1024  # bytes of chunk extensions, and of trailer fields, in one body
_MAX_SIZE_LINE = 4 * 1024
_CHUNKS_A_TURN = 2048


class BodyTooLargeError(Exception):
    """A body passed its limit."""


class Body:
    """A body being received. ``feed`` takes what belongs to it, and never more.

    Bytes go to ``data`` unless ``discarding``. ``received`` counts them either way.
    """

    __slots__ = ("data", "discarding", "done", "limit", "received")

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.discarding = False
        self.done = False
        self.limit = limit
        self.received = 0

    @property
    def remaining(self) -> int | None:
        """Return how many bytes are still to come, or ``None`` if the sender has not said."""
        return None

    def feed(self, data: bytes, pos: int) -> int:
        """Take bytes of ``data`` from ``pos`` on and return the position after them. May stop early: feed again."""
        raise NotImplementedError

    def discard(self) -> None:
        """Keep nothing from now on."""
        self.discarding = True
        self.data.clear()

    def _keep(self, data: bytes, pos: int, end: int) -> None:
        self.received += end - pos
        if self.discarding:
            return
        if self.received > self.limit:
            raise BodyTooLargeError
        self.data += data if end - pos == len(data) else memoryview(data)[pos:end]


class CountedBody(Body):
    """A body whose length the head announced."""

    __slots__ = ("_left",)

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(limit)
        self._left = length
        self.done = length == 0

    @property
    def remaining(self) -> int | None:
        """Return the bytes still to come."""
        return self._left

    def feed(self, data: bytes, pos: int) -> int:
        """Take at most what is left."""
        end = min(len(data), pos + self._left)
        self._left -= end - pos
        self.done = self._left == 0
        self._keep(data, pos, end)
        return end


class RestOfConnection(Body):
    """A reply's body that ends with the connection, or, without a limit, what a server reads no more."""

    __slots__ = ()

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit or 0)
        self.discarding = limit is None

    def feed(self, data: bytes, pos: int) -> int:
        """Take all."""
        self._keep(data, pos, len(data))
        return len(data)


class ChunkedBody(Body):
    """A body in chunks. Extensions and trailer fields are checked, counted and dropped."""

    __slots__ = ("_extra", "_left", "_line", "_state")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._extra = 0

    def feed(self, data: bytes, pos: int) -> int:
        """Take chunks until the body ends, the bytes end, or a turn's worth of chunks was taken."""
        size = len(data)
        turn = _CHUNKS_A_TURN
        while pos < size and turn:
            if self._state == _DATA:
                end = min(size, pos + self._left)
                self._left -= end - pos
                if self._left == 0:
                    self._state = _DATA_END
                self._keep(data, pos, end)
                pos = end
                continue
            end = data.find(b"\n", pos) + 1
            line = self._line + data[pos : end or size]
            if self._state == _DATA_END and line[:2] not in (b"\r\n", b"\r"):
                raise ProtocolError(400, "a chunk is longer than its size says")
            if len(line) > _MAX_SIZE_LINE:
                raise ProtocolError(431, f"a line of a chunked body exceeds {_MAX_SIZE_LINE} bytes")
            if not end:
                self._line = line
                return size
            pos = end
            self._line = b""
            turn -= 1
            self._end_line(line)
            if self.done:
                break
        return pos

    def _end_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise ProtocolError(400, "a line of a chunked body does not end in CR LF")
        text = line[:-2]
        if self._state == _DATA_END:
            self._state = _SIZE
        elif self._state == _TRAILERS:
            self._trailer(text)
        else:
            self._size(text)

    def _size(self, text: bytes) -> None:
        match = _SIZE_LINE.fullmatch(text)
        if match is None:
            raise ProtocolError(400, "the line before a chunk is not a hexadecimal size, with or without extensions")
        digits = match[1]
        self._spend(len(text) - len(digits))
        self._left = int(digits, 16)
        self._state = _DATA if self._left else _TRAILERS
        if not self.discarding and self.received + self._left > self.limit:
            raise BodyTooLargeError

    def _trailer(self, text: bytes) -> None:
        if not text:
            self.done = True
            return
        name = text.partition(b":")[0].lower()
        if _FIELD_LINE.fullmatch(text) is None or name in (b"content-length", b"transfer-encoding", b"host"):
            raise ProtocolError(400, "a trailer field is malformed or not allowed there")
        self._spend(len(text) + 2)

    def _spend(self, count: int) -> None:
        self._extra += count
        if self._extra > _MAX_EXTRA:
            raise ProtocolError(431, f"chunk extensions and trailer fields exceed {_MAX_EXTRA} bytes")
