"""What a client needs of a server, whatever wire carries it, and how a failure of transport becomes an error."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servable.core.errors import Code, ServingError, invalid_argument, unimplemented
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import Signature
from servable.core.status import VersionStatus
from servable.transport.address import Address
from servable.transport.errors import Failure, TransportError
from servable.transport.exchange import Field
from servable.transport.tls import H1, H2, ClientTlsOptions, client_context
from servable.wire.example_features import Features

NO_FILES = ClientTlsOptions()
CLOSE_TIMEOUT_S = 5.0
_CODES = {Failure.TIMEOUT: Code.DEADLINE_EXCEEDED, Failure.CANCELLED: Code.CANCELLED, Failure.MALFORMED: Code.INTERNAL}


@dataclass(frozen=True, slots=True)
class ExampleCall:
    """A call of Classify or Regress. ``context`` holds the features that every example has that lacks them."""

    model: ModelRef
    signature: str
    examples: Sequence[Features]
    context: Features | None = None


class OpenConnections:
    """The connections of a channel that are not gone yet, so that closing can wait for their sockets."""

    def __init__(self) -> None:
        self._connections: set[Any] = set()
        self._changed = asyncio.Event()

    def add(self, connection: Any) -> None:
        """Count a connection until ``gone`` is called with it."""
        self._connections.add(connection)

    def gone(self, connection: Any) -> None:
        """Forget a connection; for the transport's ``on_close``."""
        self._connections.discard(connection)
        self._changed.set()

    async def close(self) -> None:
        """Close all, and wait until their sockets are gone; each ends its lingering by itself."""
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._connections:
                    self._changed.clear()
                    await self._changed.wait()


class Channel(ABC):
    """Connections to one server over one wire. Opened on first use; reopened when the server closed them."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @abstractmethod
    async def predict(self, request: InferRequest, timeout_s: float | None) -> InferResponse:
        """Return the answer, or raise what the server or the way to it said."""

    def predict_stream(self, request: InferRequest, timeout_s: float | None) -> AsyncGenerator[InferResponse, None]:
        """Yield the answer's parts as they come. Closing it cancels the call."""
        raise unimplemented("answers in parts are read over gRPC: connect to grpc://HOST:PORT")

    @abstractmethod
    async def signatures(self, model: ModelRef, timeout_s: float | None) -> Mapping[str, Signature]:
        """Return the signatures of a model."""

    @abstractmethod
    async def statuses(self, model: ModelRef, timeout_s: float | None) -> list[VersionStatus]:
        """Return the versions of a model, newest first."""

    async def classify(self, request: ExampleCall, timeout_s: float | None) -> list[list[tuple[str, float]]]:
        """Return label and score of each class, row by row."""
        raise unimplemented(
            f"Classify is a method of TensorFlow Serving's wires; {self.address} is spoken to in another"
        )

    async def regress(self, request: ExampleCall, timeout_s: float | None) -> list[float]:
        """Return a number for each row."""
        raise unimplemented(
            f"Regress is a method of TensorFlow Serving's wires; {self.address} is spoken to in another"
        )

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


def open_channel(url: str, tls: ClientTlsOptions = NO_FILES, api_key: str = "") -> Channel:
    """Return the channel for a URL. Only its wire is imported: a script that calls one model starts the sooner."""
    wire, address, secure = parse_url(url)
    if tls != NO_FILES and not secure:
        raise invalid_argument(f"{url!r} is not encrypted: ca, certificate and key go with grpcs:// and https://")
    fields = key_fields(api_key)
    if wire == "grpc":
        from servable.client.grpc_channel import GrpcChannel

        return GrpcChannel(address, client_context(tls, [H2]) if secure else None, fields)
    from servable.client.rest_channel import RestChannel

    return RestChannel(address, client_context(tls, [H1]) if secure else None, fields)


def key_fields(api_key: str) -> tuple[Field, ...]:
    """Return the fields that carry an API key; INVALID_ARGUMENT if it cannot be one."""
    if not api_key:
        return ()
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise invalid_argument("an API key is printable ASCII without spaces")
    return ((b"authorization", b"Bearer " + api_key.encode()),)


def error_of_transport(error: TransportError, address: Address) -> ServingError:
    """Return what a caller sees when there was no reply at all: UNAVAILABLE unless the reason says more."""
    return ServingError(_CODES.get(error.failure, Code.UNAVAILABLE), f"{address}: {error.reason}")


def parse_url(url: str) -> tuple[str, Address, bool]:
    """Return the wire (``grpc`` or ``rest``), the address, and whether TLS is spoken: ``grpcs://`` and ``https://``."""
    if url.startswith("unix:"):
        return "grpc", Address.parse(url), False
    scheme, separator, rest = url.partition("://")
    secure = scheme.endswith("s")
    wire = {"grpc": "grpc", "http": "rest"}.get(scheme.removesuffix("s"))
    if not separator or wire is None:
        raise invalid_argument(
            f"{url!r} is no server: expected grpc://HOST:PORT, http://HOST:PORT, either with an s for TLS, or unix:PATH"
        )
    place = rest.rstrip("/")
    if place.startswith("unix:"):
        if secure:
            raise invalid_argument(f"{url!r} is no server: there is no TLS on Unix sockets")
        return wire, Address.parse(place), False
    default = "8500" if wire == "grpc" else "8501"
    has_port = place.rpartition("]")[2].rpartition(":")[1] == ":"
    return wire, Address.parse(place if has_port else f"{place}:{default}"), secure
