"""gRPC routes: from a request head to a method, from a message to the request path, from an outcome to a reply."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from servable.core.errors import Code, ServingError, internal, unimplemented
from servable.core.messages import InferResponse, ModelRef
from servable.lifecycle.manager import Manager
from servable.listeners.grpc_compression import COMPRESSED_HEADS, pack, pays, unpack
from servable.listeners.server_timing import is_asked_in, timed_trailers
from servable.observe.path_metrics import Meter
from servable.serving.inference import Inference
from servable.transport.exchange import Exchange, ReplyHead, RequestHead, Route, Trailers
from servable.wire import grpc as wire
from servable.wire import tfserving_grpc as tfserving

log = logging.getLogger("servable.listeners")

OK_HEAD = ReplyHead(wire.HTTP_STATUS, wire.REPLY_FIELDS)
OK_TRAILERS = Trailers(wire.trailer_fields(Code.OK, ""))
NOT_POST = ReplyHead(wire.HTTP_METHOD_NOT_ALLOWED, ((b"allow", b"POST"),))
ACCEPT_ENCODING = (b"grpc-accept-encoding", wire.ACCEPT_ENCODING)
PAST_DEADLINE = ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded")
GIVEN_UP = ServingError(Code.CANCELLED, "the client has given up")

Unary = Callable[[bytes, int], bytes]
"""A method that answers at once: body and start of its message in, message out; ``ServingError`` if it fails."""
Check = Callable[[ModelRef, str], None]
"""Takes a model and the name of a signature, or ""; ``ServingError`` if it may not be called."""


class GrpcApplication:
    """The gRPC services of one server."""

    def __init__(
        self,
        inference: Inference,
        manager: Manager,
        meter: Meter,
        more: Mapping[bytes, Callable[[wire.Call], Route]] | None = None,
        compression: bytes | None = None,
        *,
        tensor_content: bool = False,
        check: Check | None = None,
    ) -> None:
        """``more``: further methods. ``compression``: of replies to clients that take it, ``gzip`` or ``deflate``.

        ``tensor_content``: Predict answers with that, not with typed values. ``check``: refuses signatures of Predict.
        """
        self.inference = inference
        self.meter = meter
        self._manager = manager
        self._more = more or {}
        self._compression = compression
        self.tensor_content = tensor_content
        self.check = check
        self._at_once: dict[bytes, Unary] = {
            tfserving.GET_MODEL_METADATA: self._model_metadata,
            tfserving.GET_MODEL_STATUS: self._model_status,
        }

    def services(self) -> set[str]:
        """Return the full names of all services that have a method here."""
        methods = (tfserving.PREDICT, *self._at_once, *self._more)
        return {wire.service_of(method) for method in methods}

    def route(self, head: RequestHead) -> Route:
        """Choose the method. What is wrong with the head itself is answered before the body arrives."""
        if head.method != b"POST":
            return Refusal(NOT_POST)
        try:
            call = wire.parse_call(head.fields, self._compression)
        except ServingError as error:
            return Refusal.of(error)
        if head.target == tfserving.PREDICT:
            return PredictRoute(self, call)
        method = self._at_once.get(head.target)
        if method is not None:
            return UnaryRoute(call, method)
        other = self._more.get(head.target)
        if other is not None:
            return other(call)
        return Refusal.of(unimplemented(f"this server does not implement the method {wire.printable(head.target)}"))

    def _model_metadata(self, body: bytes, start: int) -> bytes:
        loaded = self._manager.acquire(tfserving.decode_model_metadata_request(body, start))
        try:
            return tfserving.encode_model_metadata_response(loaded.ref, loaded.model.signatures)
        finally:
            self._manager.release(loaded)

    def _model_status(self, body: bytes, start: int) -> bytes:
        ref = tfserving.decode_model_status_request(body, start)
        return tfserving.encode_model_status_response(self._manager.statuses(ref.name, ref.version, ref.label))


class Refusal(Route):
    """An answer that needs no body."""

    __slots__ = ("_head",)
    wants_body = False

    def __init__(self, head: ReplyHead) -> None:
        self._head = head

    @classmethod
    def of(cls, error: ServingError) -> Refusal:
        """Return the refusal that carries an error."""
        return cls(error_head(error))

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Answer."""
        exchange.respond(self._head)


def error_head(error: ServingError) -> ReplyHead:
    """Return the one header block of a reply that is nothing but an error."""
    fields = (*wire.REPLY_FIELDS, *wire.trailer_fields(*wire.encode_error(error)))
    if error.code is Code.UNIMPLEMENTED:
        fields = (*fields, ACCEPT_ENCODING)
    return ReplyHead(wire.HTTP_STATUS, fields)


class MessageRoute(Route):
    """A method that takes exactly one message."""

    __slots__ = ("call", "timed")
    prefix_size = wire.PREFIX_SIZE

    def __init__(self, call: wire.Call) -> None:
        self.call = call
        self.timed = bool(call.metadata) and is_asked_in(call.metadata)

    def body_size(self, exchange: Exchange, prefix: bytes) -> int:
        """Read the message length that gRPC puts first."""
        try:
            return wire.PREFIX_SIZE + wire.message_size(prefix)
        except ServingError as error:
            self.fail(exchange, error)
            return -1

    def too_large(self, exchange: Exchange, limit: int) -> None:
        """Answer in gRPC's words."""
        message = f"SERVER: Received message larger than max ({limit - wire.PREFIX_SIZE})"
        self.fail(exchange, ServingError(Code.RESOURCE_EXHAUSTED, message))

    def handle(self, exchange: Exchange, body: bytes) -> None:
        """Find the message and go on with it; answer every failure."""
        try:
            timeout_s = self.call.timeout_s
            if timeout_s is not None and timeout_s <= 0:
                self.fail(exchange, PAST_DEADLINE)
            elif wire.is_plain(body):
                self.receive(exchange, body, wire.PREFIX_SIZE)
            else:
                unpack(body, self.call.encoding, partial(self._unpacked, exchange))
        except ServingError as error:
            self.fail(exchange, error)
        except Exception:
            log.exception("a gRPC request failed")
            self.fail(exchange, internal("the server failed; its log says why"))

    def _unpacked(self, exchange: Exchange, message: Callable[[], bytes]) -> None:
        """Go on with a message that was compressed, or is none."""
        try:
            if exchange.cancelled:
                self.fail(exchange, GIVEN_UP)
            else:
                self.receive(exchange, message(), 0)
        except ServingError as error:
            self.fail(exchange, error)
        except Exception:
            log.exception("a gRPC request failed")
            self.fail(exchange, internal("the server failed; its log says why"))

    def send(self, exchange: Exchange, message: bytes, trailers: Trailers = OK_TRAILERS) -> None:
        """Send the one message of a reply, compressed if client and server like that."""
        encoding = self.call.reply_encoding
        if encoding is None or not pays(message, encoding):
            exchange.respond(OK_HEAD, wire.wrap_message(message), trailers)
        else:
            head = COMPRESSED_HEADS[encoding]
            pack(message, encoding, lambda framed: exchange.respond(head, framed, trailers))

    def trailers(self, response: InferResponse) -> Trailers:
        """Return what ends a reply: with the times of the answer if the client asks."""
        return timed_trailers(OK_TRAILERS, response) if self.timed else OK_TRAILERS

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Answer the message at ``body[start:]``, at once or later."""
        raise NotImplementedError

    def fail(self, exchange: Exchange, error: ServingError) -> None:
        """Answer with an error."""
        exchange.respond(error_head(error))


class UnaryRoute(MessageRoute):
    """A method that answers at once."""

    __slots__ = ("_method",)

    def __init__(self, call: wire.Call, method: Unary) -> None:
        super().__init__(call)
        self._method = method

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Call the method and send what it returns."""
        self.send(exchange, self._method(body, start))


class MeteredRoute(MessageRoute):
    """A method whose requests are counted for the model that they ask; ``meter`` counts them."""

    __slots__ = ("meter",)
    meter: Meter

    def fail(self, exchange: Exchange, error: ServingError) -> None:
        """Count a request that did not get as far as a model, and answer."""
        self._refuse(exchange, None, error)

    def _refuse(self, exchange: Exchange, asked: ModelRef | None, error: ServingError) -> None:
        self.meter.failed(asked, error.code)
        if exchange.watched:
            exchange.note(asked)
        exchange.respond(error_head(error))


class PredictRoute(MeteredRoute):
    """``PredictionService/Predict``, the hot path."""

    __slots__ = ("_check", "_inference", "_tensor_content")

    def __init__(self, application: GrpcApplication, call: wire.Call) -> None:
        super().__init__(call)
        self._inference = application.inference
        self.meter = application.meter
        self._tensor_content = application.tensor_content
        self._check = application.check

    def receive(self, exchange: Exchange, body: bytes, start: int) -> None:
        """Submit the request."""
        call = self.call
        deadline = None if call.timeout_s is None else exchange.arrived + call.timeout_s
        request = tfserving.decode_predict_request(body, start, deadline=deadline, metadata=call.metadata)
        if self._check is not None:
            self._check(request.model, request.signature)
        item = self._inference.submit(request, partial(self._answer, exchange, request.model))
        if item is not None:
            exchange.on_cancel = item.cancel

    def _answer(self, exchange: Exchange, asked: ModelRef, outcome: InferResponse | ServingError) -> None:
        if isinstance(outcome, ServingError):
            self._refuse(exchange, asked, outcome)
            return
        try:
            message = tfserving.encode_predict_response(
                outcome, tensor_content=self._tensor_content, framed=self.call.reply_encoding is None
            )
        except ServingError as error:
            self._refuse(exchange, asked, error)
            return
        except Exception:
            log.exception("an answer over gRPC could not be written")
            self._refuse(exchange, asked, internal("the server failed; its log says why"))
            return
        if exchange.watched:
            exchange.note(outcome)
        if self.call.reply_encoding is None:
            exchange.respond(OK_HEAD, message, self.trailers(outcome))
        else:
            self.send(exchange, message, self.trailers(outcome))
        self.meter.answered(outcome, time.monotonic() - exchange.arrived)
