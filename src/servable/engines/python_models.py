"""How a Python model calls the other models of its server: ``self.models["lstm"](x=...)``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servable.core.errors import failed_precondition, invalid_argument
from servable.core.messages import InferRequest, ModelRef
from servable.core.tensors import Array, as_tensor
from servable.engines.base import Link


class Turns:
    """The loop on which a model's coroutines run, in whatever thread computes. Made when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._predicting = False
        """Whether the loop runs predict itself, and not only calls for it."""

    def run(self, work: Any) -> Any:
        """Run predict, which is a coroutine, to its end."""
        self._predicting = True
        try:
            return self._run(work)
        finally:
            self._predicting = False

    def wait_for(self, call: Any) -> Any:
        """Wait for a call in a thread that has no loop: for a plain predict, or in a thread beside it."""
        if self._predicting and self._loop is not None:
            return asyncio.run_coroutine_threadsafe(call, self._loop).result()
        return self._run(call)

    def _run(self, work: Any) -> Any:
        with self._lock:  # threads of a plain predict take turns
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            return self._loop.run_until_complete(work)

    def runs_here(self) -> bool:
        """Return whether this is code that the loop runs; FAILED_PRECONDITION if another loop does."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if running is not self._loop:
            raise failed_precondition("models are called from predict itself, not from an event loop of its own")
        return True

    def close(self) -> None:
        """Free the loop."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


class Models(Mapping[str, "OtherModel"]):
    """The models that a model names in its ``uses``, by name."""

    def __init__(self, title: str, uses: Sequence[str], link: Link | None, turns: Turns) -> None:
        self._title = title
        self._models = {name: OtherModel(name, link, turns) for name in uses}

    def __getitem__(self, name: str) -> OtherModel:
        """Return a model; FAILED_PRECONDITION if it was not declared."""
        found = self._models.get(name)
        if found is None:
            named = ", ".join(self._models) or "nothing"
            raise failed_precondition(f"{self._title} calls the model {name!r}, but its uses names {named}")
        return found

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._models)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self._models)


class OtherModel:
    """Another model of the server, whichever version of it is the newest when it is called."""

    def __init__(self, name: str, link: Link | None, turns: Turns) -> None:
        self.name = name
        self._link = link
        self._turns = turns

    def __repr__(self) -> str:
        """Return the name."""
        return f"<OtherModel {self.name}>"

    def __call__(
        self,
        signature: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        inputs: Mapping[str, Any] | None = None,
        **named_inputs: Any,
    ) -> Any:
        """Return the outputs by name, or, in a coroutine, something to await that gives them.

        The parameters are those of ``servable.Client.predict``; arrays are of the types that the signature takes.
        What goes wrong is a ``ServingError``: that of the model, or DEADLINE_EXCEEDED, CANCELLED or NOT_FOUND.
        """
        if version is not None and label is not None:
            raise invalid_argument("a call names a version or a label, not both")
        request = InferRequest(
            ModelRef(self.name, version, label),
            {name: self._tensor(name, value) for name, value in {**(inputs or {}), **named_inputs}.items()},
            signature or "",
            tuple(outputs),
        )
        call = self._call(request)
        try:
            inside = self._turns.runs_here()
        except BaseException:
            call.close()
            raise
        return call if inside else self._turns.wait_for(call)

    def _tensor(self, name: str, value: Any) -> Array:
        try:
            return as_tensor(value)
        except (TypeError, ValueError) as error:
            raise invalid_argument(f"input {name} of the call of model {self.name}: {error}") from None

    async def _call(self, request: InferRequest) -> Mapping[str, Array]:
        if self._link is None:
            raise failed_precondition(f"model {self.name} can be called on a server, and not otherwise")
        return await self._link.call(request)
