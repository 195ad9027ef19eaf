"""Runs in a worker: which shapes the tensors of a TFLite file have in a call, as LiteRT finds them.

The file states a one for each size that was open when it was converted, also where that is fifty times the batch. So
the model is run once, on zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition


def resized(
    path: str, shapes: Mapping[str, Sequence[int]], report: Callable[[str], None]
) -> list[tuple[int, list[int]]]:
    """Return each tensor's number and shape; ``shapes`` are those of inputs by the names of their tensors."""
    from ai_edge_litert.interpreter import Interpreter

    del report
    try:
        interpreter: Any = Interpreter(model_path=path, experimental_preserve_all_tensors=True)
        inputs = [found for found in interpreter.get_input_details() if found["name"] in shapes]
        for found in inputs:
            interpreter.resize_tensor_input(found["index"], list(shapes[found["name"]]), strict=False)
        interpreter.allocate_tensors()
        for found in inputs:
            interpreter.set_tensor(found["index"], np.zeros(shapes[found["name"]], found["dtype"]))
        interpreter.invoke()
        return [(found["index"], [int(size) for size in found["shape"]]) for found in interpreter.get_tensor_details()]
    except (ValueError, RuntimeError) as error:
        raise failed_precondition(" ".join(str(error).split())[:300]) from error
