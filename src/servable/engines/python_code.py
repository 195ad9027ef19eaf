"""Reads a file of the user's Python, and runs it, in a child process; says plainly what is wrong with it."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from servable.core.errors import ServingError, failed_precondition, not_found


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


def declared_uses(path: Path) -> tuple[str, ...]:
    """Return the names of the models that a Python model says it calls: ``uses = ["lstm"]`` in its class. Runs nothing.

    FAILED_PRECONDITION if they are not written out there.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()  # the load says what is wrong with it
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for statement in node.body:
                if _name_of(statement) == "uses":
                    return _names_in(statement, path)
    return ()


def _name_of(statement: ast.stmt) -> str:
    """Return the name that a statement of a class defines, if it defines one."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return next((target.id for target in targets if isinstance(target, ast.Name)), "")


def _names_in(statement: ast.stmt, path: Path) -> tuple[str, ...]:
    value = getattr(statement, "value", None)
    try:
        names = ast.literal_eval(value) if value is not None else None
    except ValueError:
        names = None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise failed_precondition(
            f"uses in {path} line {statement.lineno} is read before the file is run: "
            'write the names of the models out, as in uses = ["lstm"]'
        )
    return tuple(dict.fromkeys(names))


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
