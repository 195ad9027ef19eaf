"""TensorFlow Serving's gRPC over one HTTP/2 connection, shared by all calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping

from servable.client.channel import Channel, ExampleCall, OpenConnections, error_of_transport
from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import Signature
from servable.core.status import VersionStatus
from servable.transport.address import Address
from servable.transport.errors import TransportError
from servable.transport.exchange import Field, RequestHead
from servable.transport.http2.client import ClientConnection
from servable.transport.http2.client_streams import ClientStream
from servable.transport.reply import Reply
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc as tfserving
from servable.wire.example_features import example_bytes
from servable.wire.grpc_messages import MessageBuffer

_FIELDS = (
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", wire.ACCEPT_ENCODING),
    (b"user-agent", b"grpc-python-servable/1"),
)


class GrpcChannel(Channel):
    """Calls run beside each other on one connection."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None, fields: tuple[Field, ...] = ()) -> None:
        """``fields`` go with every request."""
        super().__init__(address)
        self._fields = (*_FIELDS, *fields)
        self._tls = tls
        self._scheme = b"http" if tls is None else b"https"
        self._authority = b"localhost" if address.path is not None else str(address).encode()
        self._heads: dict[tuple[bytes, bytes], RequestHead] = {}
        self._connection: ClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._open = OpenConnections()

    async def predict(self, request: InferRequest, timeout_s: float | None) -> InferResponse:
        """Call ``PredictionService/Predict``."""
        body = tfserving.encode_predict_request(request, framed=True)
        return tfserving.decode_predict_response(await self._call(tfserving.PREDICT, body, timeout_s))

    async def classify(self, request: ExampleCall, timeout_s: float | None) -> list[list[tuple[str, float]]]:
        """Call ``PredictionService/Classify``."""
        reply = await self._call(tfserving.CLASSIFY, _example_message(request), timeout_s)
        return tfserving.decode_classification_response(reply)

    async def regress(self, request: ExampleCall, timeout_s: float | None) -> list[float]:
        """Call ``PredictionService/Regress``."""
        reply = await self._call(tfserving.REGRESS, _example_message(request), timeout_s)
        return tfserving.decode_regression_response(reply)

    async def predict_stream(
        self, request: InferRequest, timeout_s: float | None
    ) -> AsyncGenerator[InferResponse, None]:
        """Call ``PredictionService/PredictStreamed``. The server makes a part when the one before has been taken."""
        body = tfserving.encode_predict_request(request, framed=True)
        head = self._head(tfserving.PREDICT_STREAMED, timeout_s)
        messages = Messages()
        try:
            connection = self._connection
            if connection is None or not connection.ready:
                connection = await self._connect(timeout_s)
            messages.stream = connection.request(head, body, messages.settle, timeout_s, messages.add)
        except TransportError as error:
            raise error_of_transport(error, self.address) from error
        try:
            while (message := await messages.take(self.address)) is not None:
                yield tfserving.decode_predict_response(message)
        finally:
            messages.stream.cancel()

    async def signatures(self, model: ModelRef, timeout_s: float | None) -> Mapping[str, Signature]:
        """Call ``PredictionService/GetModelMetadata``."""
        body = wire.wrap_message(tfserving.encode_model_metadata_request(model))
        return tfserving.decode_model_metadata_response(
            await self._call(tfserving.GET_MODEL_METADATA, body, timeout_s)
        )[1]

    async def statuses(self, model: ModelRef, timeout_s: float | None) -> list[VersionStatus]:
        """Call ``ModelService/GetModelStatus``."""
        body = wire.wrap_message(tfserving.encode_model_status_request(model))
        return list(
            tfserving.decode_model_status_response(await self._call(tfserving.GET_MODEL_STATUS, body, timeout_s))
        )

    async def close(self) -> None:
        """Close the connection."""
        self._connection = None
        await self._open.close()

    async def _call(self, method: bytes, body: bytes, timeout_s: float | None) -> bytes:
        head = self._head(method, timeout_s)
        for attempt in (1, 2):
            try:
                connection = self._connection
                if connection is None or not connection.ready:
                    connection = await self._connect(timeout_s)
                reply = await connection.fetch(head, body, timeout_s)
            except TransportError as error:
                if attempt == 1 and error.retry_safe and self._connection is not None:
                    continue
                raise error_of_transport(error, self.address) from error
            return _message(reply)
        raise AssertionError("unreachable")

    async def _connect(self, timeout_s: float | None) -> ClientConnection:
        async with self._connecting:
            if self._connection is None or not self._connection.ready:
                self._connection = None
                self._connection = await ClientConnection.connect(
                    self.address, on_close=self._open.gone, timeout_s=timeout_s or 10.0, tls=self._tls
                )
                self._open.add(self._connection)
            return self._connection

    def _head(self, method: bytes, timeout_s: float | None) -> RequestHead:
        timeout = b"" if timeout_s is None else wire.format_timeout(timeout_s)
        key = (method, timeout)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) > 64:
                self._heads.clear()
            fields = ((b"grpc-timeout", timeout), *self._fields) if timeout else self._fields
            head = self._heads[key] = RequestHead(
                b"POST", method, fields, authority=self._authority, scheme=self._scheme
            )
        return head


def _example_message(request: ExampleCall) -> bytes:
    examples = [example_bytes(features) for features in request.examples]
    context = None if request.context is None else example_bytes(request.context)
    asked = tfserving.ExampleRequest(request.model, request.signature, examples)
    return wire.wrap_message(tfserving.encode_example_request(asked, context))


class Messages:
    """The messages of a streamed reply, and its end."""

    def __init__(self) -> None:
        self.stream: ClientStream | None = None
        self._buffer = MessageBuffer()
        self._outcome: Reply | TransportError | None = None
        self._news = asyncio.Event()

    def add(self, part: bytes) -> None:
        """Take bytes as they come."""
        self._buffer.add(part)
        self._news.set()

    def settle(self, outcome: Reply | TransportError) -> None:
        """Take what ended the reply."""
        self._outcome = outcome
        self._news.set()

    async def take(self, address: Address) -> bytes | None:
        """Return the next message, ``None`` after the last; raise the status that ended the reply."""
        while self._buffer.missing():
            outcome = self._outcome
            if isinstance(outcome, TransportError):
                raise error_of_transport(outcome, address) from outcome
            if outcome is not None:
                _check_status(outcome)
                self._buffer.check_end()
                return None
            self._news.clear()
            await self._news.wait()
        message, compressed = self._buffer.take()
        if self.stream is not None:
            self.stream.consume(wire.PREFIX_SIZE + len(message))
        if compressed:
            raise ServingError(Code.INTERNAL, "the server compressed a message, which this client did not ask for")
        return message


def _message(reply: Reply) -> bytes:
    """Return the reply's only message, or raise the status that came instead of it."""
    fields = _check_status(reply)
    return bytes(wire.unwrap_message(reply.body, fields.get(b"grpc-encoding")))


def _check_status(reply: Reply) -> dict[bytes, bytes]:
    """Return a reply's fields, or raise its status if that is not OK."""
    fields = dict(reply.fields) | dict(reply.trailers)
    status = fields.get(b"grpc-status")
    if status is None:
        raise ServingError(wire.status_of_http(reply.status), f"the server answered HTTP {reply.status}, not gRPC")
    code = wire.parse_status(status)
    if code is not Code.OK:
        raise ServingError(code, wire.decode_message(fields.get(b"grpc-message", b"")))
    return fields
