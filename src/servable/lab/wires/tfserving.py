"""TensorFlow Serving's gRPC and REST, from the asking side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servable.core.errors import ServingError
from servable.core.messages import InferRequest, ModelRef
from servable.core.signatures import TensorSpec
from servable.lab.exchange import Fault, Prepared, Sample, Tensors
from servable.lab.wires import replies
from servable.transport.exchange import RequestHead
from servable.transport.reply import Reply
from servable.wire import json_writer
from servable.wire import tfserving_grpc as grpc
from servable.wire import tfserving_rest as rest

_JSON = ((b"content-type", b"application/json"),)


@dataclass(frozen=True)
class TfservingGrpc:
    """``PredictionService/Predict``."""

    model: ModelRef
    authority: bytes
    scheme: bytes = b"http"
    signature: str = ""

    multiplexed = True

    def prepare(self, sample: Sample) -> Prepared:
        """Encode the inputs as ``tensor_content``."""
        request = InferRequest(self.model, dict(sample.inputs), self.signature)
        body = grpc.encode_predict_request(request, framed=True)
        head = replies.grpc_head(grpc.PREDICT, self.authority, self.scheme)
        return Prepared(head, body, sample.rows, sample.expected)

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the ``grpc-status``."""
        return replies.grpc_fault(reply)

    def outputs(self, reply: Reply) -> Tensors:
        """Decode the PredictResponse."""
        return grpc.decode_predict_response(replies.grpc_message(reply)).outputs


@dataclass(frozen=True)
class TfservingRest:
    """``POST /v1/models/NAME:predict``: rows where the inputs share their first dimension, else columns."""

    model: ModelRef
    authority: bytes
    scheme: bytes = b"http"
    signature: str = ""
    specs: Mapping[str, TensorSpec] | None = None
    """The outputs' names and types: JSON does not tell them."""

    multiplexed = False

    def prepare(self, sample: Sample) -> Prepared:
        """Encode the inputs as ``instances``, or, if they are no rows, as ``inputs``."""
        path = rest.make_path("predict", self.model).encode()
        head = RequestHead(b"POST", path, _JSON, authority=self.authority, scheme=self.scheme, version=b"1.1")
        return Prepared(head, self._body(sample.inputs), sample.rows, sample.expected)

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the status; the text is in the body."""
        if reply.status == replies.HTTP_OK:
            return None
        return replies.http_fault(reply, rest.decode_error(reply.status, reply.body))

    def outputs(self, reply: Reply) -> Tensors:
        """Decode ``predictions`` or ``outputs``."""
        return rest.decode_predict_response(reply.body, self.specs)

    def _body(self, inputs: Tensors) -> bytes:
        if len(inputs) == 1 and not self.signature:
            ((name, array),) = inputs.items()
            if array.ndim:
                return json_writer.dumps_tensor("instances", name, array)
        try:
            return rest.encode_predict_request(inputs, self.signature, row_format=True)
        except ServingError:
            return rest.encode_predict_request(inputs, self.signature)
