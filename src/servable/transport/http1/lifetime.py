"""The life of an HTTP/1.1 server connection besides its requests: output, back-pressure, and a decent end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING

from servable.transport.http1.alarm import Alarm
from servable.transport.http1.replies import JOINED, send
from servable.transport.sockets import unsent_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from servable.transport.exchange import Peer
    from servable.transport.http1.reception import Reception
    from servable.transport.http1.upload import Upload
    from servable.transport.limits import Limits


class Lifetime(asyncio.Protocol):
    """What is true of a connection whatever it is asked."""

    def __init__(
        self,
        limits: Limits,
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        reception: Reception,
        clock: Callable[[], float],
    ) -> None:
        self.peer = peer
        self._limits = limits
        self._loop = loop
        self._clock = clock
        self._reception = reception
        self._transport: asyncio.Transport
        self._out: list[bytes | memoryview] = []
        self._waiting = 0  # bytes of parts among them
        self._flushing = False  # a flush of parts is scheduled
        self._buffer = b""  # bytes not taken yet
        self._upload: Upload | None = None  # incomplete; of the exchange, or of the one answered last
        self._in_turn = False
        self._writable = True
        self._reading = True
        self._eof = False
        self._closing = False  # the last reply was given
        self._lingering = False  # unread input must not destroy it
        self._discarded = 0
        self._unsent = 0
        self._paused_at = 0.0
        self._now = 0.0
        self._alarm = Alarm(loop, clock, self._on_due)

    @abstractmethod
    def _on_due(self) -> None:
        """Act on the alarm."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = transport  # type: ignore[assignment]  # always a stream's
        self._now = self._clock()
        self._alarm.set(self._now + self._limits.keep_alive_timeout_s)

    def pause_writing(self) -> None:
        """Stop taking requests while the client does not read replies."""
        self._writable = False
        self._unsent = unsent_bytes(self._transport)
        self._paused_at = self._clock()
        self._alarm.set(self._paused_at + self._limits.send_stall_timeout_s)

    def abort(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    # Output

    def write(self, pieces: list[bytes | memoryview]) -> bool:
        """Put some of a reply into the output, to leave in this turn; return False if the client should read first."""
        self._out += pieces
        self._waiting += sum(map(len, pieces))
        if self._waiting > JOINED:
            self._flush()
        elif not (self._in_turn or self._flushing):
            self._flushing = True
            self._loop.call_soon(self._flush_parts)
        return self._writable

    def _flush_parts(self) -> None:
        self._flushing = False
        if not self._transport.is_closing():
            self._flush()

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.release()

    def _flush(self) -> None:
        if self._out:
            pieces, self._out = self._out, []
            self._waiting = 0
            send(self._transport, pieces)

    # The end

    def _read(self, *, on: bool) -> None:
        if on != self._reading and not self._eof and not self._transport.is_closing():
            self._reading = on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _shut(self) -> None:
        """Close after the last reply, in a way that lets the client read it."""
        if self._eof or self.peer.tls or not (self._lingering or self._upload is not None):
            self._close()  # under TLS the loop discards what arrives until the client closes too
            return
        self._lingering = True
        self._drop_upload()
        self._buffer = b""
        self._read(on=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._alarm.set(self._now + self._limits.linger_s)

    def _discard(self, count: int) -> None:
        self._discarded += count
        self._read(on=self._discarded <= self._limits.linger_bytes)

    def _close(self) -> None:
        self._closing = True
        self._transport.close()
        wait_s = self._limits.linger_s if self.peer.tls else self._limits.send_stall_timeout_s
        self._alarm.set(self._clock() + wait_s)
