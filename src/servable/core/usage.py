"""No reports of usage to strangers."""

from __future__ import annotations

import sys


def withhold_usage_reports() -> None:
    """Keep OpenVINO and NNCF from reporting each conversion to Google Analytics. Both have a way for its absence.

    Their reporter also forks the process from a thread, which stops numpy for good in the midst of a product.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what import then refuses
