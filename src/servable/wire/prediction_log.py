"""Records of calls (PredictionLog), which TensorFlow Serving takes for warm-up and request logs: both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from servable import protos
from servable.core.errors import invalid_argument, unimplemented
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.wire import tfserving_grpc as tfserving
from servable.wire.tfserving_examples import CLASSIFY, REGRESS
from servable.wire.tfserving_model_spec import model_ref, model_spec

METHODS: Final[Mapping[str, bytes]] = {
    "predict_log": tfserving.PREDICT,
    "classify_log": tfserving.CLASSIFY,
    "regress_log": tfserving.REGRESS,
    "multi_inference_log": tfserving.MULTI_INFERENCE,
}
"""Kind of record -> path of the gRPC method that was called."""
_KINDS = {"Classify": "classify_log", "Regress": "regress_log"}
_SHOWN_BYTES = 40
NOBODY: Final = ModelRef("")


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One call: what went over gRPC, as serialized messages. ``response`` may be empty; ``time_s`` is since the epoch.

    ``kind`` is a key of ``METHODS``.
    """

    kind: str
    request: bytes
    response: bytes
    model: ModelRef = NOBODY
    time_s: int = 0

    @property
    def method(self) -> bytes:
        """Return the path of the gRPC method."""
        return METHODS[self.kind]


def decode_prediction_log(record: bytes) -> LoggedCall | None:
    """Return the call in a record, ``None`` if there is none in it.

    INVALID_ARGUMENT for other bytes, UNIMPLEMENTED for calls that this server does not know.
    """
    try:
        message = protos.serving_internal.SerializedPredictionLog.FromString(record)
    except DecodeError:
        raise invalid_argument(f"Failed to parse warmup record: {record[:_SHOWN_BYTES]!r}") from None
    kind = message.WhichOneof("log_type")
    if kind is None:
        return None
    if kind not in METHODS:
        number = message.DESCRIPTOR.fields_by_name[kind].number
        raise unimplemented(f"Unsupported log_type for warmup: {number} ({kind})")
    call, metadata = getattr(message, kind), message.log_metadata
    return LoggedCall(kind, call.request, call.response, model_ref(metadata.model_spec), metadata.timestamp_secs)


def encode_call(call: LoggedCall, sampling_rate: float = 1.0, tags: tuple[str, ...] = ()) -> bytes:
    """Return the record of a call."""
    message = protos.serving_internal.SerializedPredictionLog()
    metadata = message.log_metadata
    metadata.model_spec.CopyFrom(model_spec(call.model))
    metadata.sampling_config.sampling_rate = sampling_rate
    metadata.saved_model_tags.extend(tags)
    metadata.timestamp_secs = call.time_s
    logged = getattr(message, call.kind)
    logged.request, logged.response = call.request, call.response
    return bytes(message.SerializeToString())


def logged_call(request: InferRequest, response: InferResponse, time_s: float) -> LoggedCall:
    """Return a request and its answer, whatever wire they came over, as the gRPC call that they would have been.

    Tasks of a MultiInference are calls of their own.
    """
    kind = _KINDS.get(request.api, "predict_log")
    if kind == "predict_log":
        body = tfserving.encode_predict_request(request)
        answer = tfserving.encode_predict_response(response)
    else:
        examples = request.inputs["inputs"].tolist()
        body = tfserving.encode_example_request(tfserving.ExampleRequest(request.model, request.signature, examples))
        encode = (
            tfserving.encode_classification_response if kind == "classify_log" else tfserving.encode_regression_response
        )
        answer = encode(response, len(examples))
    return LoggedCall(kind, body, answer, response.model, int(time_s))


def requests_of(
    call: LoggedCall, ref: ModelRef, signatures: Mapping[str, Signature], engine: str
) -> list[InferRequest]:
    """Return what the request path was asked by a call, for a version that has these signatures; a task each."""
    if call.kind == "predict_log":
        return [tfserving.decode_predict_request(call.request)]
    if call.kind == "multi_inference_log":
        joint = tfserving.decode_multi_inference_request(call.request)
        tasks = joint.tasks(ref, signatures, engine, check_method=False)
        inputs = joint.inputs()
        return [InferRequest(ref, inputs, task.signature, task.outputs, api=task.method.api) for task in tasks]
    given = tfserving.decode_example_request(call.request)
    signature = signatures.get(given.signature or DEFAULT_SIGNATURE)
    if signature is None:
        raise tfserving.missing_signature(given.signature)
    method = CLASSIFY if call.kind == "classify_log" else REGRESS
    outputs = tfserving.example_outputs(method, signature, ref, engine, check_method=False)
    return [InferRequest(ref, given.inputs(), signature.name, outputs, api=method.api)]
