"""Programs from outside that judge the server, and how to run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}: make conformance-tools")


def run_tool(*command: object, stdin: bytes = b"", timeout_s: float = 20.0) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; whoever calls this judges its exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, input=stdin, capture_output=True, timeout=timeout_s)
