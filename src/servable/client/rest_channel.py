"""TensorFlow Serving's REST API over HTTP/1.1 connections, one for each call in flight."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from servable.client.channel import Channel, ExampleCall, OpenConnections, error_of_transport
from servable.core.errors import Code
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.status import VersionStatus
from servable.transport.address import Address
from servable.transport.errors import TransportError
from servable.transport.exchange import Field, RequestHead
from servable.transport.http1.client import Http1ClientConnection
from servable.transport.reply import Reply
from servable.wire import tfserving_rest as tfserving

_JSON = ((b"content-type", tfserving.CONTENT_TYPE.encode()),)


class RestChannel(Channel):
    """Keeps idle connections for the next calls.

    JSON has no element types: outputs get those of the signature, which is asked for once a model.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None, fields: tuple[Field, ...] = ()) -> None:
        """``fields`` go with every request."""
        super().__init__(address)
        self._fields = fields
        self._tls = tls
        self._authority = b"localhost" if address.path is not None else str(address).encode()
        self._idle: list[Http1ClientConnection] = []
        self._open = OpenConnections()
        self._signatures: dict[ModelRef, Mapping[str, Signature]] = {}

    async def predict(self, request: InferRequest, timeout_s: float | None) -> InferResponse:
        """POST the inputs, columnar, and read the outputs. The reply does not tell the version that answered."""
        body = tfserving.encode_predict_request(
            request.inputs, signature_name=request.signature, output_filter=request.output_filter
        )
        reply = await self._call(b"POST", tfserving.make_path("predict", request.model), body, timeout_s)
        name = request.signature or DEFAULT_SIGNATURE
        signature = (await self._known_signatures(request.model, timeout_s)).get(name)
        specs = None if signature is None else signature.outputs
        if specs is not None and request.output_filter:
            specs = {name: specs[name] for name in request.output_filter}
        return InferResponse(request.model, name, tfserving.decode_predict_response(reply, specs))

    async def classify(self, request: ExampleCall, timeout_s: float | None) -> list[list[tuple[str, float]]]:
        """POST the examples for classify."""
        return tfserving.decode_classification(await self._ask(request, "classify", timeout_s))

    async def regress(self, request: ExampleCall, timeout_s: float | None) -> list[float]:
        """POST the examples for regress."""
        return tfserving.decode_regression(await self._ask(request, "regress", timeout_s))

    async def _ask(self, request: ExampleCall, action: tfserving.Action, timeout_s: float | None) -> bytes:
        body = tfserving.encode_examples_request(request.examples, request.signature, request.context)
        return await self._call(b"POST", tfserving.make_path(action, request.model), body, timeout_s)

    async def signatures(self, model: ModelRef, timeout_s: float | None) -> Mapping[str, Signature]:
        """GET the metadata."""
        return tfserving.decode_metadata(
            await self._call(b"GET", tfserving.make_path("metadata", model), b"", timeout_s)
        )[1]

    async def statuses(self, model: ModelRef, timeout_s: float | None) -> list[VersionStatus]:
        """GET the status."""
        return tfserving.decode_status(await self._call(b"GET", tfserving.make_path("status", model), b"", timeout_s))

    async def close(self) -> None:
        """Close the idle connections."""
        self._idle.clear()
        await self._open.close()

    async def get(self, path: str, timeout_s: float | None) -> bytes:
        """GET any page of the server."""
        return await self._call(b"GET", path, b"", timeout_s)

    async def _known_signatures(self, model: ModelRef, timeout_s: float | None) -> Mapping[str, Signature]:
        found = self._signatures.get(model)
        if found is None:
            found = self._signatures[model] = await self.signatures(model, timeout_s)
        return found

    async def _call(self, method: bytes, path: str, body: bytes, timeout_s: float | None) -> bytes:
        fields = (*_JSON, *self._fields) if body else self._fields
        head = RequestHead(method, path.encode(), fields, authority=self._authority, version=b"1.1")
        try:
            reply = await self._fetch(head, body, timeout_s)
        except TransportError as error:
            raise error_of_transport(error, self.address) from error
        if tfserving.http_status(Code.OK) != reply.status:
            raise tfserving.decode_error(reply.status, reply.body)
        return reply.body

    async def _fetch(self, head: RequestHead, body: bytes, timeout_s: float | None) -> Reply:
        while self._idle:
            connection = self._idle.pop()
            if not connection.ready:
                continue
            try:
                return await self._exchange(connection, head, body, timeout_s)
            except TransportError as error:
                # The server may close an idle connection at any moment: then it has not read the request.
                if not error.retry_safe:
                    raise
        connection = await Http1ClientConnection.connect(
            self.address, on_close=self._open.gone, timeout_s=timeout_s or 10.0, tls=self._tls
        )
        self._open.add(connection)
        return await self._exchange(connection, head, body, timeout_s)

    async def _exchange(
        self, connection: Http1ClientConnection, head: RequestHead, body: bytes, timeout_s: float | None
    ) -> Reply:
        reply = await connection.fetch(head, body, timeout_s)
        if connection.ready:
            self._idle.append(connection)
        return reply
