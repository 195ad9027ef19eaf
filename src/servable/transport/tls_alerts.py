"""A server's handshakes, with their last words: event loops drop a failed one with its alert unsent."""

from __future__ import annotations

import contextlib
import socket
import ssl
from contextvars import ContextVar
from typing import Any

accepted: ContextVar[socket.socket] = ContextVar("accepted")
"""The connection whose handshake is under way."""


class _Handshake(ssl.SSLObject):
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        """Go on; if it fails, tell the client why before the loop closes the connection."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            with contextlib.suppress(LookupError, OSError):
                accepted.get().send(self.outgoing.read())
            raise


class ServerContext(ssl.SSLContext):
    """A context whose failed handshakes reach the client. Its user sets ``accepted`` before it accepts."""

    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *rest: Any, **named: Any) -> ssl.SSLObject:
        """Return a handshake that is about to begin."""
        made = super().wrap_bio(incoming, outgoing, *rest, **named)
        assert isinstance(made, _Handshake)
        made.outgoing = outgoing
        return made
