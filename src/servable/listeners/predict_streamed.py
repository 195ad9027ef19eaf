"""Predict in parts, on both wires: a gRPC method with many replies, and an HTTP route whose reply is lines of JSON."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from servable.core.errors import Code, ServingError, unimplemented
from servable.core.messages import InferRequest, InferResponse
from servable.listeners.grpc import Check
from servable.listeners.grpc_streams import MakeRoute, StreamCall, Streams
from servable.listeners.http_models import PredictRoute
from servable.observe.path_metrics import Meter
from servable.serving.inference import Inference
from servable.serving.streaming import Stream
from servable.transport.exchange import Exchange, PartedReply, RepliesInParts, ReplyHead
from servable.wire import tfserving_grpc as tfserving
from servable.wire import tfserving_rest as rest

LINES = ReplyHead(rest.http_status(Code.OK), ((b"content-type", rest.LINES_CONTENT_TYPE.encode()),))

Encode = Callable[[InferResponse], bytes]


class PredictStreamedService:
    """``PredictionService/PredictStreamed``: one PredictRequest, a PredictResponse for each part."""

    def __init__(
        self, inference: Inference, meter: Meter, *, tensor_content: bool = False, check: Check | None = None
    ) -> None:
        """The options are those of ``GrpcApplication``."""
        self._inference = inference
        self._meter = meter
        self._tensor_content = tensor_content
        self._check = check

    def routes(self, streams: Streams) -> dict[bytes, MakeRoute]:
        """Return the method by its path."""
        return {tfserving.PREDICT_STREAMED: streams.server_streaming(self._predict)}

    async def _predict(self, message: bytes, call: StreamCall) -> AsyncGenerator[bytes, None]:
        began = time.monotonic()
        asked = last = None
        try:
            request = tfserving.decode_predict_request(message, deadline=call.deadline, metadata=call.metadata)
            asked = request.model
            if self._check is not None:
                self._check(request.model, request.signature)
            async with aclosing(self._inference.infer_stream(request)) as parts:
                async for part in parts:
                    yield tfserving.encode_predict_response(part, tensor_content=self._tensor_content)
                    last = part
        except ServingError as error:
            self._meter.failed(last.model if last is not None else asked, error.code)
            raise
        if last is not None:
            self._meter.answered(last, time.monotonic() - began)


class PredictStreamedRoute(PredictRoute):
    """``POST /v1/models/...:predictStreamed``: what ``:predict`` answers, a line for each part.

    An error before the first part is the reply's status; one after it is the last line.
    """

    __slots__ = ()

    def ask(self, exchange: Exchange, request: InferRequest, encode: Encode) -> None:
        """Have it answered in parts."""
        if not isinstance(exchange, RepliesInParts):
            raise unimplemented("this connection cannot carry an answer in parts; ask for it whole, with :predict")
        lines = Lines(self, exchange, exchange.begin, request, encode)
        item = self.routes.inference.submit_stream(request, lines)
        if item is not None:
            exchange.on_cancel = item.cancel
            if isinstance(item, Stream):
                lines.stream = item


class Lines:
    """Sends the parts of one answer."""

    def __init__(
        self,
        route: PredictStreamedRoute,
        exchange: Exchange,
        begin: Callable[[ReplyHead], PartedReply],
        request: InferRequest,
        encode: Encode,
    ) -> None:
        self.stream: Stream | None = None
        self._route = route
        self._exchange = exchange
        self._begin = begin
        self._model = request.model
        self._last: InferResponse | None = None
        self._encode = encode
        self._reply: PartedReply | None = None
        self._error: ServingError | None = None

    def part(self, response: InferResponse) -> bool:
        """Send a line. False while the client has too much to read."""
        try:
            line = self._encode(response) + b"\n"
        except ServingError as error:
            self._error = error
            if self.stream is not None:
                self.stream.cancel()
            return True
        self._last = response
        if self._exchange.watched and self._reply is None:
            self._exchange.note(response)
        return self._opened().write(line)

    def end(self, error: ServingError | None) -> None:
        """End the reply."""
        error = self._error or error
        if error is not None and self._reply is None:
            self._route.fail(self._exchange, error)
            return
        reply = self._opened()
        meter = self._route.meter
        if error is None and self._last is not None:
            meter.answered(self._last, time.monotonic() - self._exchange.arrived)
        elif error is not None:
            meter.failed(self._model if self._last is None else self._last.model, error.code)
            reply.write(rest.encode_error_line(error) + b"\n")
        reply.finish()

    def _opened(self) -> PartedReply:
        if self._reply is None:
            self._reply = self._begin(LINES)
            self._reply.on_drained = self._go_on
        return self._reply

    def _go_on(self) -> None:
        if self.stream is not None:
            self.stream.resume()
