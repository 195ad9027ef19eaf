"""The seam between bytes and routes: one request and its reply, whatever protocol carried them.

The application is asked twice. ``Application.route(head)`` decides from the head alone and must be a pure function
of it: HTTP/2 connections remember the answer for a header block they have seen before. ``Route.handle(exchange,
body)`` is then called once with the complete body, on the event loop, and must not block. The reply is given by
``exchange.respond``, at once or later, exactly once.

Guarantees to the application:

1. ``handle`` is called for well-formed requests only, within all limits, at most once an exchange.
2. After ``cancelled`` became true (the client reset the stream or went away) ``respond`` writes nothing; it must
   still be called when the work has really ended, because that frees the slot that bounds a connection's work.
3. ``on_cancel``, if set, is called once, on the loop, at the moment of cancellation.
4. An exception that ``route`` or ``handle`` lets through ends that exchange alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

Field = tuple[bytes, bytes]


class RequestHead:
    """A request without its body. Names are lower case. ``target`` is the path with its query, as sent.

    ``version`` is ``b"2"``, ``b"1.1"`` or ``b"1.0"``. Heads are shared between requests: they do not change.
    """

    __slots__ = ("authority", "fields", "method", "scheme", "target", "version")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: tuple[Field, ...] = (),
        *,
        authority: bytes = b"",
        scheme: bytes = b"http",
        version: bytes = b"2",
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.authority = authority
        self.scheme = scheme
        self.version = version

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field, several values joined by a comma, or ``None``."""
        values = [value for key, value in self.fields if key == name]
        return b", ".join(values) if values else None

    def __repr__(self) -> str:
        """Return the request line."""
        return f"<RequestHead {self.method!r} {self.target[:80]!r} HTTP/{self.version.decode()}>"


class ReplyHead:
    """A status and header fields, made once and sent many times: each protocol keeps its encoded form in it.

    Names are lower case; ``content-length``, ``date`` and ``connection`` are the protocol's own business.
    """

    __slots__ = ("encoded_h1", "encoded_h2", "fields", "status")

    def __init__(self, status: int, fields: tuple[Field, ...] = ()) -> None:
        self.status = status
        self.fields = fields
        self.encoded_h1: bytes | None = None
        self.encoded_h2: bytes | None = None

    def __repr__(self) -> str:
        """Return status and fields."""
        return f"<ReplyHead {self.status} {self.fields!r}>"


class Trailers:
    """Fields after the body, made once and sent many times."""

    __slots__ = ("encoded_h2", "fields")

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.encoded_h2: bytes | None = None

    def __repr__(self) -> str:
        """Return the fields."""
        return f"<Trailers {self.fields!r}>"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who a client is, as an authority that this server trusts has signed it."""

    subject: str
    """Such as ``O=Example,CN=worker``."""
    names: tuple[str, ...]
    """Alternative names with their kind, such as ``DNS:worker.example`` or ``URI:spiffe://example/worker``."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The connection a request came over. ``address`` is for logs; ``local`` is true on loopback and Unix sockets."""

    address: str
    local: bool
    tls: bool = False
    certificate: ClientCertificate | None = None
    """The client's, verified, if it showed one."""


class Exchange(ABC):
    """One request on its way to a reply."""

    __slots__ = ("arrived", "cancelled", "head", "on_cancel", "peer")

    head: RequestHead
    peer: Peer
    arrived: float
    """When the head was complete, in seconds of ``time.monotonic()``."""
    cancelled: bool
    on_cancel: Callable[[], None] | None
    watched: ClassVar[bool] = False
    """Whether somebody wants to know, by ``note``, what answered."""

    def note(self, answer: object) -> None:
        """Take what the route knows of its answer, before ``respond``. Called only if ``watched``."""
        raise NotImplementedError

    @abstractmethod
    def respond(self, head: ReplyHead, body: bytes | memoryview = b"", trailers: Trailers | None = None) -> None:
        """Send the whole reply. With no body and trailers, HTTP/2 sends head and trailers as two blocks.

        HTTP/1.1 drops trailers. For a gRPC "Trailers-Only" reply put everything into ``head``.
        """


class PartedReply(ABC):
    """A reply that leaves in parts, while it is being made. Belongs to the event loop.

    ``on_drained``, if set, is called when so much has gone out that ``write`` is welcome again. It is not called for
    a cancelled exchange: ``Exchange.on_cancel`` is. ``finish`` must be called in the end, then too.
    """

    __slots__ = ("on_drained",)

    on_drained: Callable[[], None] | None

    @abstractmethod
    def write(self, part: bytes) -> bool:
        """Send a part. Return False if so much waits for the client that the producer should wait for ``on_drained``.

        A part written in spite of that is kept, and is sent in its turn. Does nothing on a cancelled exchange.
        """

    @abstractmethod
    def finish(self, trailers: Trailers | None = None) -> None:
        """End the reply, once. gRPC needs trailers; HTTP/1.1 drops them."""

    @abstractmethod
    def fail(self) -> None:
        """End the reply, once, in the middle: the client learns that it is not whole."""


class RepliesInParts(Exchange):
    """What every exchange with a client can do besides ``respond``."""

    __slots__ = ()

    @abstractmethod
    def begin(self, head: ReplyHead) -> PartedReply:
        """Send the head now and the rest through what is returned. ``respond`` may not be called then."""


class PartReader(Protocol):
    """Takes a request body while it arrives. Called on the event loop; must not block."""

    def data(self, part: bytes) -> None:
        """Take the next bytes, cut anywhere."""

    def end(self) -> None:
        """The body is complete. Not called for a request that was answered or cancelled before."""


class PartedBody(ABC):
    """The flow of a request body to its ``PartReader``.

    What was handed over counts as memory of the connection, and closes the client's window, until it is consumed: a
    reader that waits makes its client wait, and nobody else.
    """

    __slots__ = ()

    @abstractmethod
    def start(self, reader: PartReader) -> None:
        """Hand over what has arrived, before this returns, and from now on what comes. Once."""

    @abstractmethod
    def consume(self, size: int) -> None:
        """Say that ``size`` more of the bytes handed over are done with: as many may be sent again."""

    @abstractmethod
    def need(self, size: int) -> None:
        """Say that nothing can be consumed before ``size`` more bytes have come: the client may send them at once.

        If then it sends nothing for too long, the request is cancelled.
        """


class TakesInParts(Exchange):
    """What an exchange over HTTP/2 can do whose route has ``in_parts``."""

    __slots__ = ()

    @abstractmethod
    def receive(self) -> PartedBody:
        """Return the flow of the body, once."""


class Route(ABC):
    """What is to happen with requests that share a head."""

    __slots__ = ()

    wants_body: bool = True
    """False: ``handle`` is called at once with an empty body, and whatever the client still sends is discarded."""
    max_body: int | None = None
    """Bytes of body accepted; ``None`` means the listener's limit. More is answered by ``too_large``."""
    in_parts: bool = False
    """True: over HTTP/2 ``handle`` is called at once with an empty body, and ``TakesInParts`` gives the body.

    ``max_body`` is not applied then: the client's window bounds what waits. HTTP/1.1 collects the body as ever.
    """
    prefix_size: int = 0
    """If > 0, ``body_size`` is asked as soon as so many bytes of an incomplete body have arrived."""

    @abstractmethod
    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Answer the request. ``body`` is complete."""

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        """Return the length of the whole body, known from its first bytes; or respond, and return -1 to discard it."""
        raise NotImplementedError

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Answer a body above the limit. The default is the transport's own 413."""
        exchange.respond(PAYLOAD_TOO_LARGE, b"the request body exceeds %d bytes\n" % limit)


class Application(Protocol):
    """Everything above the transport, as the transport sees it."""

    def route(self, head: RequestHead) -> Route:
        """Choose by the head alone."""


@runtime_checkable
class AnswersOversizedHeads(Protocol):
    """What an application may do besides: answer heads above the limit in its own words. Without it they get 431."""

    def oversized(self, head: RequestHead, size: int, limit: int) -> Route:
        """Choose for a head whose fields came to ``size`` bytes. Those beyond the limit are missing from ``head``.

        The route's ``handle`` is called at once, whatever its ``wants_body``, with an empty body.
        """


_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
PAYLOAD_TOO_LARGE = ReplyHead(413, _TEXT)
