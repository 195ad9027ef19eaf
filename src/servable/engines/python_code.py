"""Imports a file of the user's Python, in a child process, and says plainly what is wrong with it."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from servable.core.errors import ServingError, failed_precondition, internal, not_found
from servable.core.tensors import Array
from servable.engines.python_hints import Form


def incomplete(path: Path) -> str | None:
    """Return what shows that a file of Python is not whole, or ``None``. Parses it; runs nothing."""
    try:
        text = path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if not text.strip():
        return f"{path} is empty"
    try:
        ast.parse(text, str(path))
    except SyntaxError as error:
        where = f"{path} line {error.lineno}" if error.lineno else f"{path}"
        return f"{where} is no Python: {error.msg}"
    except ValueError as error:
        return f"{path} is no Python: {error}"
    return None


def import_file(path: Path) -> ModuleType:
    """Run a file as a module of its own name. What lies beside it can be imported; no bytecode is written there.

    FAILED_PRECONDITION carries the exception that stopped it; the traceback goes to the log.
    """
    if not path.is_file():
        raise not_found(f"there is no file {path}")
    lacking = incomplete(path)
    if lacking is not None:
        raise failed_precondition(lacking)
    sys.dont_write_bytecode = True
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # A file that is called like a library must not take its place.
    name = path.stem if path.stem not in sys.modules else f"_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise failed_precondition(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001  # the user's code; exit() too must not pass for a success
        raise load_failure(f"{path} cannot be imported", error) from None
    return module


def load_failure(what: str, error: BaseException) -> ServingError:
    """Return why a load stops, in one line, for an exception of the user's code; log its traceback."""
    if isinstance(error, ServingError):
        return ServingError(error.code, f"{what}: {error.message}")
    traceback.print_exception(error)
    place = next((f" (line {frame.lineno} of {Path(frame.filename).name})" for frame in _trail(error)), "")
    return failed_precondition(f"{what}: {type(error).__name__}: {error}{place}")


def _trail(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("<", str(Path(__file__).parent)))]
    return own[::-1]


class Function:
    """A function of the user's with its form: called with tensors, it gives tensors or a ``ServingError``.

    ``from_client`` tells whose fault it is if the inputs do not fit: the client's, or that of the model before it.
    """

    def __init__(self, call: Callable[..., Any], form: Form, *, from_client: bool = True) -> None:
        self.form = form
        self._call = call
        self._from_client = from_client
        self._loop = asyncio.new_event_loop() if inspect.iscoroutinefunction(call) else None

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Call it. A ``ServingError`` that it raises goes to the client; of others only the type, and to the log all.

        INVALID_ARGUMENT for inputs that do not fit its annotations, INTERNAL for a failure or a wrong result of its.
        """
        try:
            arguments, sizes = self.form.arguments(inputs)
        except ServingError as error:
            raise error if self._from_client else internal(f"{self.form.title}: {error.message}") from None
        try:
            value = self._call(**arguments)
            if self._loop is not None:
                value = self._loop.run_until_complete(value)
        except ServingError:
            raise
        except BaseException as error:  # noqa: BLE001  # the user's code
            traceback.print_exc()
            raise internal(f"{self.form.title} raised {type(error).__name__}") from None
        return self.form.results(value, sizes)

    def close(self) -> None:
        """Free what calls have kept."""
        if self._loop is not None:
            self._loop.close()
