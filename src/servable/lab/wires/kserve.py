"""The Open Inference Protocol (KServe v2), from the asking side: gRPC, JSON, and HTTP with binary tensors."""

from __future__ import annotations

from dataclasses import dataclass

from servable.core.messages import InferRequest, ModelRef
from servable.lab.exchange import Fault, Prepared, Sample, Tensors
from servable.lab.wires import replies
from servable.transport.exchange import Field, RequestHead
from servable.transport.reply import Reply
from servable.wire import kserve_grpc, kserve_rest


@dataclass(frozen=True)
class KserveGrpc:
    """``GRPCInferenceService/ModelInfer`` with raw tensors."""

    model: ModelRef
    authority: bytes
    scheme: bytes = b"http"

    multiplexed = True

    def prepare(self, sample: Sample) -> Prepared:
        """Encode the inputs as ``raw_input_contents``."""
        body = kserve_grpc.encode_infer_request(InferRequest(self.model, dict(sample.inputs)), framed=True)
        head = replies.grpc_head(kserve_grpc.MODEL_INFER, self.authority, self.scheme)
        return Prepared(head, body, sample.rows, sample.expected)

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the ``grpc-status``."""
        return replies.grpc_fault(reply)

    def outputs(self, reply: Reply) -> Tensors:
        """Decode the ModelInferResponse."""
        return kserve_grpc.decode_infer_response(replies.grpc_message(reply)).outputs


@dataclass(frozen=True)
class KserveRest:
    """``POST /v2/models/NAME/infer``, as JSON or with ``binary`` tensors both ways."""

    model: ModelRef
    authority: bytes
    scheme: bytes = b"http"
    binary: bool = False

    multiplexed = False

    def prepare(self, sample: Sample) -> Prepared:
        """Encode the inputs."""
        request = InferRequest(self.model, dict(sample.inputs))
        body, length = kserve_rest.encode_infer_request(request, binary=self.binary)
        kind = kserve_rest.JSON_TYPE if length is None else kserve_rest.BINARY_TYPE
        fields: tuple[Field, ...] = ((b"content-type", kind),)
        if length is not None:
            fields += ((kserve_rest.HEADER_LENGTH, b"%d" % length),)
        path = kserve_rest.make_path(self.model).encode()
        head = RequestHead(b"POST", path, fields, authority=self.authority, scheme=self.scheme, version=b"1.1")
        return Prepared(head, body, sample.rows, sample.expected)

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the status; the text is in the body."""
        if reply.status == replies.HTTP_OK:
            return None
        return replies.http_fault(reply, kserve_rest.decode_error(reply.status, reply.body))

    def outputs(self, reply: Reply) -> Tensors:
        """Decode the outputs, JSON or binary."""
        return kserve_rest.decode_infer_response(reply.body, reply.get(kserve_rest.HEADER_LENGTH)).outputs
