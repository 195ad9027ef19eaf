"""Runs in a worker: which shapes the tensors of a TFLite file have in a call, as LiteRT finds them.

The file states a one for each size that was open when it was converted, also where that is fifty times the batch. So
each signature is run once, on zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.progress import Progress


def resized(
    path: str, calls: Sequence[tuple[str, Mapping[str, Sequence[int]]]], report: Progress
) -> list[list[tuple[int, int, list[int]]]]:
    """Return for each call the number of a graph, that of a tensor in it, and its shape.

    A call is the name of a signature, "" where the file has none, and the shapes of its inputs by name.
    """
    from ai_edge_litert.interpreter import Interpreter

    del report
    found = []
    for signature, shapes in calls:
        try:
            interpreter: Any = Interpreter(model_path=path, experimental_preserve_all_tensors=True)
            if signature:
                _run_signature(interpreter, signature, shapes)
            else:
                _run_first(interpreter, shapes)
            found.append(list(_all_shapes(interpreter)))
        except (ValueError, RuntimeError) as error:
            raise failed_precondition(" ".join(str(error).split())[:300]) from error
    return found


def _run_signature(interpreter: Any, signature: str, shapes: Mapping[str, Sequence[int]]) -> None:
    runner = interpreter.get_signature_runner(signature)
    details = runner.get_input_details()
    runner(**{name: np.zeros(shapes[name], detail["dtype"]) for name, detail in details.items()})


def _run_first(interpreter: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    inputs = interpreter.get_input_details()
    for detail in inputs:
        interpreter.resize_tensor_input(detail["index"], list(shapes[detail["name"]]), strict=False)
    interpreter.allocate_tensors()
    for detail in inputs:
        interpreter.set_tensor(detail["index"], np.zeros(shapes[detail["name"]], detail["dtype"]))
    interpreter.invoke()


def _all_shapes(interpreter: Any) -> Any:
    graph = 0
    while True:
        try:
            details = interpreter.get_tensor_details(graph)
        except ValueError:  # there are no more
            return
        yield from ((graph, detail["index"], [int(size) for size in detail["shape"]]) for detail in details)
        graph += 1
