"""The asynchronous client. ``sync_client.py`` is generated from this file: ``make sync-client``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from os import PathLike, environ, fspath
from types import TracebackType
from typing import Any, Self

from servable.client.channel import ExampleCall, open_channel
from servable.client.inputs import as_inputs, needs_signature
from servable.client.prediction import Prediction
from servable.core.errors import invalid_argument
from servable.core.messages import InferRequest, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.status import VersionStatus
from servable.transport.tls import ClientTlsOptions

DEFAULT_TIMEOUT_S = 60.0


class AsyncClient:
    """Calls models on a server that speaks TensorFlow Serving's gRPC (``grpc://``, ``unix:``) or REST (``http://``).

    ``grpcs://`` and ``https://`` speak TLS: the server is verified by the authorities in the file ``ca``, else by the
    system's, and must have the URL's host as its name. ``certificate`` and ``key`` are shown to it if it asks.
    ``api_key``, or the environment's ``SERVABLE_API_KEY``, goes with every request to a server that wants one.

    Errors are ``ServingError`` with the server's code and message; no answer in time is DEADLINE_EXCEEDED, no server
    UNAVAILABLE. ``timeout_s`` ``None`` waits for ever. Calls may run beside each other on one client.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        ca: str | PathLike[str] = "",
        certificate: str | PathLike[str] = "",
        key: str | PathLike[str] = "",
        api_key: str = "",
    ) -> None:
        tls = ClientTlsOptions(fspath(ca), fspath(certificate), fspath(key))
        self._channel = open_channel(url, tls, api_key or environ.get("SERVABLE_API_KEY", ""))
        self._timeout_s = timeout_s
        self._signatures: dict[ModelRef, Mapping[str, Signature]] = {}

    async def predict(
        self,
        model: str,
        /,
        signature: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
        **named_inputs: Any,
    ) -> Prediction:
        """Call a model with arrays, or with lists and numbers, which become arrays of the signature's types.

        ``inputs`` takes inputs whose names are no identifiers or are parameters of this method. ``outputs`` names those
        to compute; none named is all.
        """
        ref = _model_ref(model, version, label)
        request = await self._request(ref, signature, outputs, {**(inputs or {}), **named_inputs})
        response = await self._channel.predict(request, self._timeout_s)
        return Prediction(response.model, response.outputs)

    async def predict_stream(
        self,
        model: str,
        /,
        signature: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
        **named_inputs: Any,
    ) -> AsyncGenerator[Prediction, None]:
        """Call a model, as ``predict`` does, and yield its answer's parts as it makes them. Over gRPC only.

        Closing this, or leaving a loop over it, ends the call. ``timeout_s`` bounds the whole answer.
        """
        ref = _model_ref(model, version, label)
        request = await self._request(ref, signature, outputs, {**(inputs or {}), **named_inputs})
        async with aclosing(self._channel.predict_stream(request, self._timeout_s)) as parts:
            async for part in parts:
                yield Prediction(part.model, part.outputs)

    async def _request(
        self, ref: ModelRef, signature: str | None, outputs: Sequence[str], given: Mapping[str, Any]
    ) -> InferRequest:
        found = None
        if needs_signature(given):
            signatures = await self.signatures(ref.name, version=ref.version, label=ref.label)
            found = signatures.get(signature or DEFAULT_SIGNATURE)
        return InferRequest(ref, as_inputs(given, found), signature or "", tuple(outputs))

    async def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        /,
        signature: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Return label and score of each class, for each example: a mapping of features to a value or a list.

        Floats make a float feature, integers and bools an int64 feature, text and bytes a bytes feature. ``context``
        holds features of all examples that lack them.
        """
        request = ExampleCall(_model_ref(model, version, label), signature or "", examples, context)
        return await self._channel.classify(request, self._timeout_s)

    async def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        /,
        signature: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> list[float]:
        """Return a number for each example; examples and context as for ``classify``."""
        request = ExampleCall(_model_ref(model, version, label), signature or "", examples, context)
        return await self._channel.regress(request, self._timeout_s)

    async def signatures(
        self, model: str, /, *, version: int | None = None, label: str | None = None
    ) -> Mapping[str, Signature]:
        """Return the signatures of a model by name. Asked of the server once for each model and version."""
        ref = _model_ref(model, version, label)
        found = self._signatures.get(ref)
        if found is None:
            found = self._signatures[ref] = await self._channel.signatures(ref, self._timeout_s)
        return found

    async def status(self, model: str, /, *, version: int | None = None) -> list[VersionStatus]:
        """Return the versions of a model that the server knows, newest first, or the one asked for."""
        return await self._channel.statuses(ModelRef(model, version), self._timeout_s)

    async def close(self) -> None:
        """Close the connections. The client can be used again."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()


def _model_ref(model: str, version: int | None, label: str | None) -> ModelRef:
    if version is not None and label is not None:
        raise invalid_argument("a request names a version or a label, not both")
    return ModelRef(model, version, label)
