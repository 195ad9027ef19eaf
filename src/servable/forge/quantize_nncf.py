"""NNCF as the steps of quantization use it. It loads torch: in the worker only."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from servable.forge.arrays import Tensors

_LONGEST_LINE = 200


def load_nncf(report: Callable[[str], None]) -> Any:
    """Import NNCF so that it tells its makers nothing, and us what it does."""
    os.environ["NNCF_CI"] = "1"  # else it sends over the network what it is used for
    import nncf

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(f"nncf: {' '.join(record.getMessage().split())[:_LONGEST_LINE]}")

    logging.getLogger("nncf").handlers = [Forward(logging.INFO)]
    return nncf


def dataset(nncf: Any, batches: Sequence[Tensors]) -> Any:
    """Return batches as NNCF takes them."""
    return nncf.Dataset([dict(batch) for batch in batches])


def ignored(nncf: Any, names: Sequence[str]) -> Any:
    """Return nodes that NNCF is to leave as they are; some of them may be gone by the time it looks."""
    return nncf.IgnoredScope(names=list(names), validate=False)
