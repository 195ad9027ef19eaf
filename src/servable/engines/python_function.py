"""A function of the user's as the server calls it: with tensors, for tensors, at once or in parts."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import suppress
from typing import Any

from servable.core.errors import ServingError, internal
from servable.core.tensors import Array, join_parts
from servable.engines.python_hints import Form
from servable.engines.python_models import Turns

_NO_MORE = object()


class Function:
    """A function with its form: called with tensors, it gives tensors or a ``ServingError``.

    ``from_client`` tells whose fault it is if the inputs do not fit: the client's, or that of the model before it.
    """

    def __init__(
        self, call: Callable[..., Any], form: Form, *, from_client: bool = True, turns: Turns | None = None
    ) -> None:
        self.form = form
        self._call = call
        self._from_client = from_client
        self._turns = turns or Turns()
        self._waits = inspect.iscoroutinefunction(call)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Call it. A ``ServingError`` that it raises goes to the client; of others only the type, and to the log all.

        INVALID_ARGUMENT for inputs that do not fit its annotations, INTERNAL for a failure or a wrong result of its.
        What comes in parts is joined.
        """
        if self.form.streamed:
            try:
                return join_parts(list(self.parts(inputs)))
            except ValueError as error:
                raise internal(f"{self.form.title}: {error}") from None
        arguments, sizes = self._arguments(inputs)
        return self.form.results(self._run(lambda: self._called(arguments)), sizes)

    def parts(self, inputs: Mapping[str, Array]) -> Generator[dict[str, Array], None, None]:
        """Call a function that yields; a part is computed when it is asked for. Closing this closes the generator."""
        arguments, sizes = self._arguments(inputs)
        values = self._run(lambda: self._iterator(arguments))
        try:
            while (value := self._run(lambda: self._next(values))) is not _NO_MORE:
                yield self.form.results(value, sizes)
        finally:
            self._close(values)

    def _arguments(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, int]]:
        try:
            return self.form.arguments(inputs)
        except ServingError as error:
            raise error if self._from_client else internal(f"{self.form.title}: {error.message}") from None

    def _called(self, arguments: Mapping[str, Any]) -> Any:
        value = self._call(**arguments)
        return self._turns.run(value) if self._waits else value

    def _iterator(self, arguments: Mapping[str, Any]) -> Any:
        values = self._called(arguments)
        return values if isinstance(values, AsyncIterator) else iter(values)

    def _next(self, values: Any) -> Any:
        if isinstance(values, AsyncIterator):
            return self._turns.run(_next_of(values))
        return next(values, _NO_MORE)

    def _close(self, values: Any) -> None:
        """Let the generator clean up. Nobody is left to be told what goes wrong with that."""
        with suppress(ServingError):
            if isinstance(values, AsyncGenerator):
                self._run(lambda: self._turns.run(values.aclose()))
            elif isinstance(values, Generator):
                self._run(values.close)

    def _run(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ServingError:
            raise
        except BaseException as error:  # noqa: BLE001  # the user's code
            traceback.print_exc()
            raise internal(f"{self.form.title} raised {type(error).__name__}") from None

    def close(self) -> None:
        """Free what calls have kept."""
        self._turns.close()


async def _next_of(values: AsyncIterator[Any]) -> Any:
    return await anext(values, _NO_MORE)
