"""An event loop in a daemon thread, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """Runs coroutines for other threads. The thread ends with ``stop``, or with the process."""

    def __init__(self) -> None:
        import uvloop  # not at import: a script that only builds requests has no use for it

        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servable client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return what the coroutine returns, or raise what it raises. An interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, work: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        """Yield what an asynchronous generator yields. Closing this closes it."""
        try:
            while True:
                yield self.call(_next_of(work))
        except StopAsyncIteration:
            return
        finally:
            self.call(work.aclose())

    def stop(self) -> None:
        """End the thread. Nothing may be called after that."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next_of(work: AsyncGenerator[Result, None]) -> Result:
    return await anext(work)
