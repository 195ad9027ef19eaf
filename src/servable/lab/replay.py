"""Sends logged calls to a server again and compares its answers with those that were logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from servable.core.errors import ServingError
from servable.core.messages import ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.lab.asking import Asker, wire_for
from servable.lab.exchange import Fault, Prepared, Sample, Tensors
from servable.lab.judge import Tolerance, agrees
from servable.lab.links import Connector, fault_of
from servable.lab.target import Endpoint
from servable.lab.wires import replies
from servable.protos import serving, serving_internal
from servable.transport.errors import TransportError
from servable.transport.reply import Reply
from servable.transport.tls import ClientTlsOptions
from servable.wire import grpc
from servable.wire import tfserving_grpc as tfserving
from servable.wire.prediction_log import LoggedCall


class Verdict(Enum):
    """What became of one call."""

    SAME = "same"
    DIFFERENT = "different"
    FAILED = "failed"
    UNCOMPARED = "no answer was logged"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One call and its verdict. ``difference`` is the largest absolute one between numbers of the two answers."""

    record: int
    verdict: Verdict
    detail: str = ""
    difference: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Replayer:
    """Replays calls against one server, ``concurrency`` at a time, each on a connection of its own."""

    endpoint: Endpoint
    tls: ClientTlsOptions | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    concurrency: int = 1
    timeout_s: float = 30.0
    _signatures: dict[str, Signature] = field(default_factory=dict)

    async def replay(self, calls: Iterable[LoggedCall], results: list[Replayed]) -> None:
        """Send all calls; a verdict on each is added to ``results`` as soon as there is one."""
        numbered = iter(enumerate(calls, 1))
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, self.concurrency)):
                group.create_task(self._work(numbered, results))

    async def _work(self, calls: Iterator[tuple[int, LoggedCall]], results: list[Replayed]) -> None:
        multiplexed = self.endpoint.wire.endswith("grpc")
        connector = Connector(self.endpoint.address, self.tls, multiplexed=multiplexed, timeout_s=self.timeout_s)
        connection = None
        try:
            for record, call in calls:
                try:
                    question = await self._question(call)
                    if question is None:
                        detail = f"a {call.kind} goes over TensorFlow Serving's gRPC only"
                        results.append(Replayed(record, Verdict.SKIPPED, detail))
                        continue
                    if connection is None or not connection.ready:
                        connection = await connector.connect()
                    began = time.monotonic()
                    reply = await connection.fetch(question.prepared.head, question.prepared.body, self.timeout_s)
                except TransportError as error:
                    results.append(_failed(record, fault_of(error)))
                    continue
                except ServingError as error:
                    results.append(_failed(record, Fault(error.code.name, error.message)))
                    continue
                results.append(self._judge(record, question, reply, time.monotonic() - began))
        finally:
            if connection is not None:
                connection.close()

    async def _question(self, call: LoggedCall) -> Question | None:
        if call.kind != "predict_log":
            return self._examples(call) if self.endpoint.wire == "tfserving-grpc" else None
        request = tfserving.decode_predict_request(call.request)
        expected = tfserving.decode_predict_response(call.response).outputs if call.response else None
        name = request.signature
        signature = None
        if self.endpoint.wire == "tfserving-rest":
            signature = self._signatures.get(name)
            if signature is None:
                asker = Asker(self.endpoint, self.tls, self.timeout_s)
                signature = self._signatures[name] = await asker.signature(name)
        wire = wire_for(self.endpoint, name or DEFAULT_SIGNATURE, signature)
        return Question(wire.prepare(Sample(request.inputs, expected)), wire)

    def _examples(self, call: LoggedCall) -> Question:
        """Ask again by the bytes that were logged; only the model's name changes."""
        endpoint = self.endpoint
        if call.kind == "multi_inference_log":
            message = serving_internal.SerializedMultiInferenceRequest.FromString(call.request)
            specs = [task.model_spec for task in message.tasks]
        else:
            message = serving_internal.SerializedExampleRequest.FromString(call.request)
            specs = [message.model_spec]
        for spec in specs:
            _point_to(spec, endpoint.model)
        head = replies.grpc_head(call.method, endpoint.authority, endpoint.scheme)
        expected = _numbers(call.kind, call.response) if call.response else None
        body = grpc.wrap_message(message.SerializeToString())
        return Question(Prepared(head, body, expected=expected), ExampleAnswers(call.kind))

    def _judge(self, record: int, question: Question, reply: Reply, seconds: float) -> Replayed:
        fault = question.wire.fault(reply)
        if fault is not None:
            return _failed(record, fault, seconds)
        expected: Any = question.prepared.expected
        try:
            outputs = question.wire.outputs(reply)
        except ServingError as error:
            return _failed(record, Fault("UNREADABLE", error.message), seconds)
        if expected is None:
            return Replayed(record, Verdict.UNCOMPARED, seconds=seconds)
        difference = largest_difference(outputs, expected)
        if agrees(outputs, expected, self.tolerance):
            return Replayed(record, Verdict.SAME, difference=difference, seconds=seconds)
        return Replayed(record, Verdict.DIFFERENT, _how(outputs, expected, difference), difference, seconds)


@dataclass(frozen=True, slots=True)
class Question:
    """A request as bytes, and what reads its replies."""

    prepared: Prepared
    wire: Any


@dataclass(frozen=True, slots=True)
class ExampleAnswers:
    """Reads the replies of Classify, Regress and MultiInference."""

    kind: str

    def fault(self, reply: Reply) -> Fault | None:
        """Look at the ``grpc-status``."""
        return replies.grpc_fault(reply)

    def outputs(self, reply: Reply) -> Tensors:
        """Return labels and numbers as arrays."""
        return _numbers(self.kind, replies.grpc_message(reply))


def _numbers(kind: str, response: bytes) -> Tensors:
    """Return the labels and numbers of an answer as arrays, by places in it."""
    if kind == "classify_log":
        return _classes("", tfserving.decode_classification_response(response))
    if kind == "regress_log":
        return {"value": np.asarray(tfserving.decode_regression_response(response))}
    found: dict[str, Array] = {}
    for index, result in enumerate(serving.MultiInferenceResponse.FromString(response).results):
        place = f"{index} "
        if result.HasField("regression_result"):
            found[f"{place}value"] = np.asarray([each.value for each in result.regression_result.regressions])
        else:
            rows = result.classification_result.classifications
            found |= _classes(place, [[(each.label, each.score) for each in row.classes] for row in rows])
    return found


def _classes(place: str, rows: list[list[tuple[str, float]]]) -> dict[str, Array]:
    labels: Array = np.array([label for row in rows for label, _ in row], dtype=object)
    return {f"{place}label": labels, f"{place}score": np.asarray([score for row in rows for _, score in row])}


def _point_to(spec: Any, model: ModelRef) -> None:
    spec.name = model.name
    spec.ClearField("version_choice")
    if model.version is not None:
        spec.version.value = model.version
    elif model.label is not None:
        spec.version_label = model.label


def largest_difference(outputs: Tensors | bytes, expected: Tensors) -> float:
    """Return the largest absolute difference between numbers of outputs that both have, in the same shape."""
    largest = 0.0
    if isinstance(outputs, bytes):
        return largest
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape or found.dtype.hasobject or wanted.dtype.hasobject:
            continue
        if found.size:
            wide = np.complex128 if "c" in found.dtype.kind + wanted.dtype.kind else np.float64
            gaps = np.abs(found.astype(wide) - wanted.astype(wide))
            largest = max(largest, float(np.max(np.nan_to_num(gaps, nan=0.0))))
    return largest


def _how(outputs: Tensors | bytes, expected: Tensors, difference: float) -> str:
    if isinstance(outputs, bytes):
        return "the answer is not tensors"
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None:
            return f"output {name} is missing"
        if found.shape != wanted.shape:
            return f"output {name} has shape {list(found.shape)} instead of {list(wanted.shape)}"
    return f"numbers differ by up to {difference:.3g}" if difference else "values differ"


def _failed(record: int, fault: Fault, seconds: float = 0.0) -> Replayed:
    return Replayed(record, Verdict.FAILED, f"{fault.code}: {fault.message}", seconds=seconds)


def in_order(results: Iterable[Replayed]) -> list[Replayed]:
    """Return verdicts in the order of the log."""
    return sorted(results, key=lambda one: one.record)
