"""Questions asked one by one, before a load: what a model takes, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from servable.client.channel import OpenConnections
from servable.core.errors import Code, ServingError, failed_precondition, not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.lab.exchange import Prepared, Sample, Tensors, Wire
from servable.lab.links import Connector
from servable.lab.target import Endpoint
from servable.lab.wires import replies
from servable.lab.wires.kserve import KserveGrpc, KserveRest
from servable.lab.wires.tfserving import TfservingGrpc, TfservingRest
from servable.transport.errors import TransportError
from servable.transport.exchange import RequestHead
from servable.transport.http1.client import Http1ClientConnection
from servable.transport.http2.client import ClientConnection
from servable.transport.reply import Reply
from servable.transport.tls import ClientTlsOptions
from servable.wire import grpc, kserve_grpc, kserve_rest, tfserving_grpc, tfserving_rest


@dataclass(frozen=True, slots=True)
class Asker:
    """One server, asked one request at a time over a connection of its own."""

    endpoint: Endpoint
    tls: ClientTlsOptions | None = None
    timeout_s: float = 30.0

    async def fetch(self, requests: Sequence[tuple[RequestHead, bytes]], *, multiplexed: bool) -> list[Reply]:
        """Return the replies in order; UNAVAILABLE if there is none."""
        connector = Connector(self.endpoint.address, self.tls, multiplexed=multiplexed, timeout_s=self.timeout_s)
        opened = OpenConnections()

        async def connect() -> ClientConnection | Http1ClientConnection:
            connection = await connector.connect(opened.gone)
            opened.add(connection)
            return connection

        try:
            connection = await connect()
            found = []
            for head, body in requests:
                if not connection.ready:
                    connection = await connect()
                found.append(await connection.fetch(head, body, self.timeout_s))
        except TransportError as error:
            raise ServingError(Code.UNAVAILABLE, f"{self.endpoint.address}: {error.reason}") from error
        finally:
            await opened.close()
        return found

    async def answers(self, wire: Wire, prepared: Sequence[Prepared]) -> list[Tensors | bytes]:
        """Return what the server answers; FAILED_PRECONDITION if one of the answers is an error."""
        replied = await self.fetch([(one.head, one.body) for one in prepared], multiplexed=wire.multiplexed)
        found = []
        for place, reply in enumerate(replied):
            fault = wire.fault(reply)
            if fault is not None:
                raise failed_precondition(
                    f"{self.endpoint.url} answered sample {place} with {fault.code}: {fault.message}; "
                    "that is no answer to compare with"
                )
            found.append(wire.outputs(reply))
        return found

    async def signature(self, name: str) -> Signature:
        """Return a signature from the server's own metadata; NOT_FOUND names those that there are."""
        signatures = await self._signatures()
        found = signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise not_found(f"{self.endpoint.url} has no signature {name!r}: there are {', '.join(signatures)}")
        return found

    async def _signatures(self) -> Mapping[str, Signature]:
        endpoint = self.endpoint
        if endpoint.wire == "tfserving-grpc":
            body = await self._call(
                tfserving_grpc.GET_MODEL_METADATA, tfserving_grpc.encode_model_metadata_request(endpoint.model)
            )
            return tfserving_grpc.decode_model_metadata_response(body)[1]
        if endpoint.wire == "kserve-grpc":
            body = await self._call(
                kserve_grpc.MODEL_METADATA, kserve_grpc.encode_model_metadata_request(endpoint.model)
            )
            return {DEFAULT_SIGNATURE: kserve_grpc.decode_model_metadata_response(body)}
        if endpoint.wire == "tfserving-rest":
            reply = await self._get(tfserving_rest.make_path("metadata", endpoint.model))
            if reply.status != replies.HTTP_OK:
                raise tfserving_rest.decode_error(reply.status, reply.body)
            return tfserving_rest.decode_metadata(reply.body)[1]
        reply = await self._get(kserve_rest.make_path(endpoint.model, ""))
        if reply.status != replies.HTTP_OK:
            raise kserve_rest.decode_error(reply.status, reply.body)
        return {DEFAULT_SIGNATURE: kserve_rest.decode_metadata(reply.body)}

    async def _call(self, method: bytes, message: bytes) -> bytes:
        head = replies.grpc_head(method, self.endpoint.authority, self.endpoint.scheme)
        (reply,) = await self.fetch([(head, grpc.wrap_message(message))], multiplexed=True)
        fault = replies.grpc_fault(reply)
        if fault is not None:
            raise ServingError(Code[fault.code], f"{self.endpoint.url}: {fault.message}")
        return replies.grpc_message(reply)

    async def _get(self, path: str) -> Reply:
        endpoint = self.endpoint
        head = RequestHead(
            b"GET", path.encode(), (), authority=endpoint.authority, scheme=endpoint.scheme, version=b"1.1"
        )
        return (await self.fetch([(head, b"")], multiplexed=False))[0]


def wire_for(endpoint: Endpoint, signature_name: str = "", signature: Signature | None = None) -> Wire:
    """Return how to speak to an endpoint's model. ``http`` has a template instead: ``wires.http``."""
    model, authority, scheme = endpoint.model, endpoint.authority, endpoint.scheme
    if endpoint.wire == "tfserving-grpc":
        return TfservingGrpc(model, authority, scheme, signature_name)
    if endpoint.wire == "tfserving-rest":
        specs = None if signature is None else dict(signature.outputs)
        return TfservingRest(model, authority, scheme, signature_name, specs)
    if endpoint.wire == "kserve-grpc":
        return KserveGrpc(model, authority, scheme)
    return KserveRest(model, authority, scheme, binary=endpoint.wire == "kserve-binary")


def expecting(samples: Sequence[Sample], answers: Sequence[Tensors]) -> list[Sample]:
    """Return the samples with the answers that are expected of them."""
    return [replace(sample, expected=answer) for sample, answer in zip(samples, answers, strict=True)]
