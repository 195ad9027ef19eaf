"""Nothing reports to strangers what is done here."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In the order of a user's script: ours first, then what would report.
LOOK = """
import {ring}
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
try:
    import openvino_telemetry
except ImportError:
    print("absent")
"""


@pytest.mark.parametrize("ring", ["servable.engines", "servable.forge"])
def test_openvino_has_nobody_to_report_to(ring: str) -> None:
    run = subprocess.run([sys.executable, "-c", LOOK.format(ring=ring)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "absent"]
