"""Accepting connections that begin with a TLS handshake, so that each of its failures is seen and counted."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from servable.transport.limits import Limits
from servable.transport.tls import reason_of
from servable.transport.tls_alerts import accepted

logger = logging.getLogger("servable.transport")

_ACCEPTS_PER_TURN = 64
_PAUSE_S = 1.0
"""How long accepting waits when the process has no descriptors left."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Handshakes:
    """Accepts on one listening socket and gives each connection a protocol once its handshake is done.

    ``context`` is asked for every handshake, ``admit`` for every connection before it. ``on_failure`` hears why
    a handshake was given up. ``close`` stops accepting; ``cancel`` also drops what has not finished.
    """

    def __init__(
        self,
        listening: socket.socket,
        limits: Limits,
        context: Callable[[], ssl.SSLContext],
        make_protocol: Callable[[], asyncio.Protocol],
        admit: Callable[[], bool],
        on_failure: Callable[[str], None],
    ) -> None:
        self._listening = listening
        self._limits = limits
        self._context = context
        self._make_protocol = make_protocol
        self._admit = admit
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, backlog: int) -> None:
        """Listen."""
        self._listening.listen(backlog)
        self._loop.add_reader(self._listening, self._accept)

    @property
    def under_way(self) -> int:
        """How many handshakes are not finished."""
        return len(self._under_way)

    def close(self) -> None:
        """Stop accepting."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listening)
            self._listening.close()

    async def cancel(self) -> None:
        """Drop the connections that are still shaking hands."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                made, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("accepting pauses for %g s: %s", _PAUSE_S, error)  # noqa: TRY400  # the text says all
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_S, self._go_on)
                return
            if not self._admit():
                made.close()
                continue
            made.setblocking(False)
            task = self._loop.create_task(self._shake(made))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening, self._accept)

    async def _shake(self, made: socket.socket) -> None:
        accepted.set(made)
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                made,
                ssl=self._context(),
                ssl_handshake_timeout=self._limits.handshake_timeout_s,
                # Protocols give up earlier, but only they know whether the client still reads.
                ssl_shutdown_timeout=self._limits.send_stall_timeout_s,
            )
        except ssl.SSLError as error:
            self._on_failure(reason_of(error))
        except OSError as error:  # the client went away, or said too little for too long
            self._on_failure(str(error) or type(error).__name__)
