"""The server's end of an HTTP/1.1 connection.

Requests are taken one at a time, so replies are in order by construction; bytes that arrive meanwhile wait, and beyond
a bound they wait in the kernel. All replies of one turn leave in one write. A connection has one timer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

from servable.transport.http1.exchange import Http1Exchange
from servable.transport.http1.heads import END, ProtocolError, head_too_large, screen
from servable.transport.http1.lifetime import Lifetime
from servable.transport.http1.reception import Reception
from servable.transport.http1.replies import (
    BODYLESS,
    CONTINUE,
    JOINED,
    Start,
    encode_any,
    encode_plain,
    encode_refusal,
    encode_start,
)
from servable.transport.http1.upload import Upload
from servable.transport.sockets import unsent_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from servable.transport.exchange import Application, Peer, ReplyHead
    from servable.transport.http1.heads import RequestFacts
    from servable.transport.http1.reception import Known
    from servable.transport.limits import Limits

logger = logging.getLogger("servable.transport")

_HELD = 64 * 1024  # bytes that may wait behind an unanswered request before reading stops
_HEAD = re.compile(rb"(?:\r\n)*HEAD ")


class Http1Connection(Lifetime):
    """Serves one connection. ``on_close`` is called once with this object when the connection is gone.

    ``clock`` and ``loop`` are the only sources of time. ``reception`` is shared by connections of one listener.
    """

    def __init__(
        self,
        application: Application,
        limits: Limits,
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        on_close: Callable[[Http1Connection], None] | None = None,
        *,
        reception: Reception | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            limits, peer, loop, reception or Reception(application, limits, b"https" if peer.tls else b"http"), clock
        )
        self._on_close = on_close
        self._known = self._reception.known
        self._pending = False  # some bytes of the buffer were not looked at
        self._seen = 0  # bytes of an incomplete head that were screened
        self._exchange: Http1Exchange | None = None  # begun and unanswered
        self._scheduled = False  # a turn is
        self._draining = False

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Take requests, as many as a turn allows."""
        if self._closing:
            self._discard(len(data))
            return
        if self._buffer:
            data = self._buffer + data
        if self._scheduled or self._blocked():
            self._buffer = data
            self._pending = True
            self._read(on=len(data) <= _HELD)
        else:
            self._turn(data)

    def eof_received(self) -> bool:
        """Keep the other direction open while there is something to answer."""
        self._eof = True
        if self._closing:
            return False
        if self.peer.tls:  # neither direction of TLS can be closed alone: no reply would get out
            self._closing = True
            self._cancel()
            self._alarm.set(self._clock() + self._limits.linger_s)
            return False
        if not (self._blocked() or self._scheduled):
            self._end_of_input()
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is in flight."""
        self._closing = True
        self._buffer = b""
        self._alarm.stop()
        self._cancel()
        if self._on_close is not None:
            self._on_close(self)

    def _cancel(self) -> None:
        self._drop_upload()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._now = self._clock()
        self._reception.ledger.stalled("socket", self._now - self._paused_at)
        if not self._in_turn and not self._closing:
            self._settle()
        if self._exchange is not None:
            self._exchange.drained()

    # What the listener calls

    @property
    def active(self) -> int:
        """How many requests are begun and not answered: 0 or 1."""
        return int(self._exchange is not None or self._upload is not None or bool(self._buffer))

    def drain(self) -> None:
        """Answer what was begun, then close; at once if there is nothing."""
        self._draining = True
        if not self._closing and not self.active:
            self._close()

    def reject(self, status: int, text: str, *, bodyless: bool = False) -> None:
        """Give the transport's own answer and close."""
        logger.debug("HTTP/1.1 %d to %s: %s", status, self.peer.address, text)
        self._reception.ledger.count(f"http1_{status}")
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.give_up()
        self._out += encode_refusal(status, text, bodyless=bodyless)
        self._closing = self._lingering = True
        if not self._in_turn:
            self._now = self._clock()
            self._flush()
            self._settle()

    # Taking requests

    def _blocked(self) -> bool:
        """Tell whether the next bytes have to wait for a reply or for the client to read."""
        return (self._exchange is not None and self._upload is None) or not self._writable

    def _receiving(self) -> bool:
        """Tell whether the present request waits for its body."""
        return self._exchange is not None and self._upload is not None and not self._upload.discarding

    def _turn(self, data: bytes) -> None:
        self._in_turn = True
        self._pending = False
        self._now = self._clock()
        try:
            pos = self._take(data)
            self._flush()
        except Exception:
            logger.exception("a fault of ours on the connection of %s", self.peer.address)
            self._in_turn = False
            self.abort()
            return
        self._in_turn = False
        self._buffer = data[pos:]
        self._settle()

    def _take(self, data: bytes) -> int:
        """Take messages from ``data`` and return the position of the first byte that has to wait."""
        pos, size, turns, known = 0, len(data), self._limits.requests_per_turn, self._known
        try:
            while pos < size and turns and not self._closing:
                turns -= 1
                if self._upload is not None:
                    pos = self._take_body(self._upload, data, pos)
                    continue
                if self._exchange is not None or not self._writable:
                    break
                end = data.find(END, pos + max(self._seen - 3, 0)) + 4
                if end == 3:
                    return self._take_part(data, pos)
                head = data[pos:end]
                entry = known.get(head)
                if entry is None:
                    self._seen = 0
                    if head.startswith(b"\r\n"):
                        pos += 2
                        continue
                    entry = self._reception.admit(head)
                self._seen = 0
                pos = self._begin(entry, data, end)
        except ProtocolError as rejected:
            bodyless = self._upload is None and _HEAD.match(data, pos) is not None
            self.reject(rejected.status, rejected.text, bodyless=bodyless)
        if self._closing:
            return size
        self._pending = pos < size
        return pos

    def _take_part(self, data: bytes, pos: int) -> int:
        """Look at a head that is not complete; it waits in the buffer, from the position returned."""
        while data.startswith(b"\r\n", pos):
            pos += 2
            self._seen = 0
        screen(data, pos, pos + self._seen, self._limits)
        have = len(data) - pos
        if have >= self._limits.max_request_head:
            raise head_too_large(self._limits)
        if have and not self._seen:
            self._alarm.set(self._now + self._limits.head_timeout_s)
        self._seen = have
        return pos

    def _begin(self, known: Known, data: bytes, pos: int) -> int:
        exchange = self._exchange = Http1Exchange(self, known, self._now)
        length = known.facts.length
        end = pos + length
        if length == 0:
            exchange.handle(b"")
        elif known.wants_body and 0 < length <= known.limit and end <= len(data):
            exchange.handle(data[pos:end])
        else:
            upload = self._upload = Upload(exchange, self._now, self._reception.ledger)
            if upload.wanted() and known.facts.expects_continue and pos == len(data):
                self._out.append(CONTINUE)
            return pos
        return end

    def _take_body(self, upload: Upload, data: bytes, pos: int) -> int:
        pos = upload.take(data, pos)
        if upload.body.done:
            self._upload = None
            body = upload.release()
            if not upload.discarding:
                upload.exchange.handle(body)
        return pos

    # Replies

    def reply(self, facts: RequestFacts, head: ReplyHead, body: bytes | memoryview) -> None:
        """Put the reply to the present exchange into the output."""
        size = len(body) if type(body) is bytes else memoryview(body).nbytes
        if facts.plain and self._upload is None and not self._draining and head.status not in BODYLESS:
            encoded = encode_plain(head, size)
            if size <= JOINED:
                self._out.append(encoded + body)
            else:
                self._out += (encoded, body)
        else:
            drainable = self._upload is None or self._upload.drainable()
            keep = facts.keep_alive and not self._draining and drainable
            bodyless = facts.head.method == b"HEAD"
            self._out += encode_any(head, body, facts.head.version, keep_alive=keep, bodyless=bodyless)
            self._closing = not keep
        self._exchange = None
        if not self._in_turn:
            self._now = self._clock()
            self._flush()
            self._settle()
        elif size > JOINED:
            self._flush()  # now, so that a client which does not read is noticed before the next large reply

    def begin(self, facts: RequestFacts, head: ReplyHead) -> Start:
        """Put the head of a reply in parts into the output."""
        drainable = self._upload is None or self._upload.drainable()
        start = Start(facts, head.status, keep_alive=facts.keep_alive and not self._draining and drainable)
        self.write([encode_start(head, facts.head.version, start)])
        return start

    def finish(self, last: bytes, *, keep_alive: bool) -> None:
        """End the present exchange, whose reply came in parts, by its last bytes."""
        self._out.append(last)
        self._exchange = None
        self._closing = not keep_alive
        if not self._in_turn:
            self._now = self._clock()
            self._flush()
            self._settle()

    def fail(self) -> None:
        """End the present exchange in the middle of its reply, and the connection with it."""
        self._exchange = None
        self.abort()

    # What happens between turns

    def _settle(self) -> None:
        """Decide what the connection waits for."""
        if self._closing:
            self._shut()
            return
        blocked = self._blocked()
        if self._pending and not blocked and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._resume)
        if blocked or self._scheduled:
            self._read(on=len(self._buffer) <= _HELD)
            return
        self._read(on=True)
        if self._eof:
            self._end_of_input()
        elif self._upload is not None:
            if self._exchange is None or not self._upload.discarding:
                self._alarm.set(self._upload.deadline(self._limits, self._now))
        elif self._draining and not self._buffer:
            self._close()
        elif not self._buffer:
            self._alarm.set(self._now + self._limits.keep_alive_timeout_s)

    def _resume(self) -> None:
        self._scheduled = False
        if not self._closing and not self._blocked():
            data, self._buffer = self._buffer, b""
            self._turn(data)

    def _end_of_input(self) -> None:
        """Answer a request that will never be complete; else close, or wait for the reply under way."""
        if self._receiving():
            self.reject(400, "the connection ended inside a request body")
        elif self._buffer:
            self.reject(400, "the connection ended inside a request head")
        elif self._exchange is None:
            self._close()

    def _on_due(self) -> None:
        now = self._now = self._clock()
        unsent = unsent_bytes(self._transport)
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self._alarm.set(now + self._limits.send_stall_timeout_s)
        elif unsent or self._closing:
            if unsent:
                self._reception.ledger.count("send_stalled")
            self.abort()
        elif self._receiving():
            self.reject(408, "the request's body came too slowly")
        elif self._exchange is not None:
            self._alarm.set(now + self._limits.keep_alive_timeout_s)  # the application has deadlines of its own
        elif self._buffer:
            self.reject(408, "the request's head came too slowly")
        else:
            self._close()
