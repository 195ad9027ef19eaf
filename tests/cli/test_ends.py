"""How a command ends: its exit code, and one line instead of a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from servable.cli import COMMANDS, FAILED, main


@pytest.mark.parametrize(
    ("happens", "code", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, ""),
        (lambda: os.kill(os.getpid(), signal.SIGHUP), 129, ""),
        (lambda: signal.raise_signal(signal.SIGINT), 130, ""),
        (lambda: fail(OSError(errno.ENOSPC, "No space left on device", "/there")), FAILED,
         "servable try: /there: No space left on device\n"),
        (lambda: fail(OSError("5 requested and 0 written")), FAILED, "servable try: 5 requested and 0 written\n"),
        (lambda: fail(BrokenPipeError()), FAILED, ""),
    ],
)  # fmt: skip
def test_a_command_ends_with_a_code_and_a_line(
    happens: Callable[[], object],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = SimpleNamespace(add_arguments=lambda _parser: None, run=lambda _arguments: happens())
    monkeypatch.setitem(sys.modules, "tried_command", module)
    monkeypatch.setitem(COMMANDS, "try", ("tried_command", "a command of the tests"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["try"]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == said


def fail(error: Exception) -> None:
    raise error
