"""``grpc.reflection``: tells tools such as grpcurl what this server offers, services and messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from servable.listeners.grpc_streams import MakeRoute, StreamCall, Streams
from servable.wire import grpc_reflection as wire


class ReflectionService:
    """Both versions of the service."""

    def __init__(self, streams: Streams, services: Callable[[], Iterable[str]]) -> None:
        """``services`` names all that the server offers; it is asked once, when the first client asks."""
        self._streams = streams
        self._services = services
        self._catalogue: wire.Catalogue | None = None

    def routes(self) -> dict[bytes, MakeRoute]:
        """Return the methods."""
        route = self._streams.bidirectional(self._converse, ends_idle=True, max_message=wire.MAX_REQUEST)
        return dict.fromkeys(wire.METHODS, route)

    async def _converse(self, messages: AsyncIterator[bytes], call: StreamCall) -> AsyncGenerator[bytes, None]:
        if self._catalogue is None:
            self._catalogue = wire.Catalogue(self._services())
        reflection = wire.Reflection(self._catalogue)
        async for message in messages:
            yield reflection.answer(message)
