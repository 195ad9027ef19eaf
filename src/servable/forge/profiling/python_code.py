"""Python's own profilers around calls of a model: by function, and by line. Runs in the worker."""

from __future__ import annotations

import cProfile
import inspect
import linecache
import pstats
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from servable.core.errors import failed_precondition

MOST_FUNCTIONS: Final = 200


def functions(repeat: Callable[[], None], stats: Path | None) -> list[dict[str, Any]]:
    """Return what each function took, the longest own time first; ``stats`` takes cProfile's own file."""
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        repeat()
    finally:
        profiler.disable()
    if stats is not None:
        profiler.dump_stats(stats)
    table: Any = pstats.Stats(profiler)
    rows = [
        {"name": name, "file": file, "line": line, "calls": calls, "own_s": own, "total_s": total}
        for (file, line, name), (_, calls, own, total, _) in table.stats.items()
    ]
    return sorted(rows, key=lambda row: -row["own_s"])[:MOST_FUNCTIONS]


def lines(repeat: Callable[[], None], folders: Sequence[Path], stats: Path | None) -> list[dict[str, Any]]:
    """Return hits and seconds of each line of the functions in modules that lie in these folders.

    FAILED_PRECONDITION if line_profiler is not here, or if no such function ran in this thread.
    """
    try:
        from line_profiler import LineProfiler
    except ImportError:
        raise failed_precondition("profiles by line need line_profiler: pip install 'servable[forge]'") from None
    profiler = LineProfiler()
    watched = {function for module in _modules(folders) for function in _functions(module)}
    for function in watched:
        profiler.add_function(function)
    profiler.enable_by_count()
    try:
        repeat()
    finally:
        profiler.disable_by_count()
    if stats is not None:
        profiler.dump_stats(str(stats))
    found = profiler.get_stats()
    rows = []
    for (file, first, name), timings in sorted(found.timings.items()):
        taken = {line: (hits, time * found.unit) for line, hits, time in timings}
        if not taken:
            continue
        source = inspect.getblock(linecache.getlines(file)[first - 1 :])
        for offset, text in enumerate(source):
            hits, seconds = taken.get(first + offset, (0, 0.0))
            rows.append(
                {
                    "file": file, "function": name, "line": first + offset,
                    "hits": hits, "seconds": seconds, "text": text.rstrip("\n"),
                }
            )  # fmt: skip
    if not rows:
        names = ", ".join(sorted(function.__qualname__ for function in watched)) or "none"
        raise failed_precondition(f"none of the model's own functions ran (found: {names})")
    return rows


def _modules(folders: Sequence[Path]) -> Iterator[ModuleType]:
    homes = {folder.resolve() for folder in folders}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and Path(file).resolve().parent in homes:
            yield module


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions that a module defines, those of its classes included."""
    for value in list(vars(module).values()):
        owners = [value, *vars(value).values()] if isinstance(value, type) else [value]
        for one in owners:
            function = inspect.unwrap(getattr(one, "__func__", one)) if callable(getattr(one, "__func__", one)) else one
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function
