"""What runs in litert-torch's own environment: a program of torch.export becomes TFLite.

Of ours it may import only what imports nothing beyond the standard library.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any

from servable.core.errors import failed_precondition
from servable.core.progress import Progress


def convert(program: str, target: str, signature: str, inputs: Sequence[str], report: Progress) -> dict[str, Any]:
    """Read the program, whose sizes are all fixed, and write the file with one signature.

    ``inputs`` names its arguments in order; its outputs are a dict by name. Numbers keep their types, 64-bit ones too.
    """
    logging.disable(logging.WARNING)
    torch: Any = importlib.import_module("torch")
    interface: Any = importlib.import_module("litert_torch._convert.interface")
    exported = torch.export.load(program)
    inner, (examples, _) = exported.module(), exported.example_inputs
    report("converting by litert-torch")

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, **given: Any) -> Any:
            return self.inner(*[given[name] for name in inputs])

    module = Named()
    module.training = False  # an exported program refuses eval(), and is in evaluation mode as it is
    converter = interface.Converter()
    converter.signature(signature, module, (), dict(zip(inputs, examples, strict=True)))
    try:
        converter.convert(strict_export=False, enable_x64=True).export(target)
    except Exception as error:
        raise failed_precondition(f"litert-torch cannot translate it: {_line(error)}") from error
    return {}


def _line(error: Exception) -> str:
    """Return the first line that says something: what follows are traces of graphs."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:400]
