"""NNCF as the steps of quantization use it. It loads torch: in the worker only."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from servable.core.progress import Progress
from servable.forge.arrays import Tensors
from servable.forge.quantization.eight_bits import has_vnni

_LONGEST_LINE = 200


def load_nncf(report: Progress) -> Any:
    """Import NNCF so that it tells its makers nothing, and us what it does."""
    os.environ["NNCF_CI"] = "1"  # else it sends over the network what it is used for
    import nncf

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(f"nncf: {' '.join(record.getMessage().split())[:_LONGEST_LINE]}")

    logging.getLogger("nncf").handlers = [Forward(logging.INFO)]
    return nncf


def preset(nncf: Any) -> Any:
    """Return the kind of scales: activations that are not around zero get a zero of their own, and so all 8 bits."""
    return nncf.QuantizationPreset.MIXED


def dataset(nncf: Any, batches: Sequence[Tensors]) -> Any:
    """Return batches as NNCF takes them."""
    return nncf.Dataset([dict(batch) for batch in batches])


def ignored(nncf: Any, names: Sequence[str]) -> Any:
    """Return nodes that NNCF is to leave as they are; some of them may be gone by the time it looks."""
    return nncf.IgnoredScope(names=list(names), validate=False)


def exact_ranges(nncf: Any) -> Any:
    """Return options that take ranges as they were seen, and all 8 bits of weights where sums of them do not overflow.

    NNCF's own ranges are means over the rows, which cut off what single rows have.
    """
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        overflow_fix=OverflowFix.DISABLE if has_vnni() else OverflowFix.FIRST_LAYER,
    )
