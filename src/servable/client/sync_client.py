"""The synchronous client. Generated from ``async_client.py`` by ``make sync-client``; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self

from servable.client.async_client import DEFAULT_TIMEOUT_S, AsyncClient
from servable.client.background import Background
from servable.client.prediction import Prediction
from servable.core.signatures import Signature
from servable.core.status import VersionStatus


class Client:
    """Calls models on a server that speaks TensorFlow Serving's gRPC (``grpc://``, ``unix:``) or REST (``http://``).

    The synchronous form of ``AsyncClient``: each method waits for the coroutine of the same name. It may be used from
    several threads, and inside a running event loop (a notebook) too.
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
        self._background = Background()
        self._client = self._background.call(
            _opened(url, timeout_s=timeout_s, ca=ca, certificate=certificate, key=key, api_key=api_key)
        )

    def predict(
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
        return self._background.call(
            self._client.predict(
                model, signature, version=version, label=label, outputs=outputs, inputs=inputs, **named_inputs
            )
        )

    def predict_stream(
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
    ) -> Generator[Prediction, None, None]:
        """Call a model, as ``predict`` does, and yield its answer's parts as it makes them. Over gRPC only.

        Closing this, or leaving a loop over it, ends the call. ``timeout_s`` bounds the whole answer.
        """
        return self._background.iterate(
            self._client.predict_stream(
                model, signature, version=version, label=label, outputs=outputs, inputs=inputs, **named_inputs
            )
        )

    def classify(
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
        return self._background.call(
            self._client.classify(model, examples, signature, version=version, label=label, context=context)
        )

    def regress(
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
        return self._background.call(
            self._client.regress(model, examples, signature, version=version, label=label, context=context)
        )

    def signatures(
        self, model: str, /, *, version: int | None = None, label: str | None = None
    ) -> Mapping[str, Signature]:
        """Return the signatures of a model by name. Asked of the server once for each model and version."""
        return self._background.call(self._client.signatures(model, version=version, label=label))

    def status(self, model: str, /, *, version: int | None = None) -> list[VersionStatus]:
        """Return the versions of a model that the server knows, newest first, or the one asked for."""
        return self._background.call(self._client.status(model, version=version))

    def close(self) -> None:
        """Close the connections. The client can be used again."""
        self._background.call(self._client.close())

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections and the thread behind this client."""
        self.close()
        self._background.stop()


async def _opened(url: str, **options: Any) -> AsyncClient:
    return AsyncClient(url, **options)
