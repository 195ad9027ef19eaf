"""The certificates of a running server: read anew when their files change, never replaced by bad ones."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Iterable

from servable.core.errors import ServingError
from servable.transport.tls import H1, H2, TlsOptions, server_context

logger = logging.getLogger("servable.transport")

POLL_S = 10.0

_Contexts = dict[frozenset[str], ssl.SSLContext]
_ALPN = {frozenset({"h1"}): [H1], frozenset({"h2"}): [H2], frozenset({"h1", "h2"}): [H2, H1]}
"""What a port speaks -> what it offers, best first."""


class ServerTls:
    """The present contexts of one server. Each handshake takes one; connections keep the one they began with.

    Raises ``ServingError`` if the files are not good from the start.
    """

    def __init__(self, options: TlsOptions) -> None:
        self.options = options
        self._seen = _fingerprint(options.files)
        self._contexts = _load(options)

    def context(self, protocols: frozenset[str]) -> ssl.SSLContext:
        """Return the context for the next handshake on a port that speaks these: ``h1``, ``h2`` or both."""
        return self._contexts[protocols]

    def reload(self) -> bool:
        """Read the files again; return whether they are good. What is bad leaves everything as it was."""
        self._seen = _fingerprint(self.options.files)
        try:
            self._contexts = _load(self.options)
        except ServingError as error:
            logger.error("the certificate is not replaced, the one before serves on: %s", error.message)  # noqa: TRY400  # the text says all
            return False
        logger.info("new connections get the certificate in %s as it is now", self.options.certificate)
        return True

    def reload_if_changed(self) -> None:
        """Read the files again if one was written, or replaced, since the last time."""
        if _fingerprint(self.options.files) != self._seen:
            self.reload()

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Look at the files for ever; cancel to end. The loop never waits for the file system."""
        while True:
            await asyncio.sleep(poll_s)
            await asyncio.to_thread(self.reload_if_changed)


def _load(options: TlsOptions) -> _Contexts:
    return {protocols: server_context(options, alpn) for protocols, alpn in _ALPN.items()}


def _fingerprint(files: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Return what changes when a file does, without reading it."""
    return tuple(map(_look, files))


def _look(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116  # what lies behind a link counts
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
