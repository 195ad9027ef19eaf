"""A real server process: started on a free port, ready when it says so, and always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Self

import psutil
import pytest
from tests import loop_watch

READY_WITHIN_S = 150.0
ENDED_WITHIN_S = 30.0
STARVED_S = 5.0
"""What a disk and a crowded machine may take from a server that does not compute; more than from the test beside it."""
_SETTLED = re.compile(r"(ready|not every model is available) after")
_BLOCKED = re.compile(r"the event loop was blocked for ([\d.]+) s, computing for ([\d.]+) s")
_LISTENING = re.compile(r"listening on (\S+)")

_started: list[ServerProcess] = []


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Return when the condition holds; a test that waits in vain says for what."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s:g} s in vain until {what}"
        time.sleep(0.01)


class ServerProcess:
    """``servable serve`` with these arguments; on a free port of the loopback unless they name where to listen."""

    program: tuple[str, ...] = ("servable", "serve")
    """The module that is run, and its first arguments."""

    def __init__(self, *arguments: str | os.PathLike[str], environment: dict[str, str] | None = None) -> None:
        words = [str(argument) for argument in arguments]
        if not any(re.match(r"--(listen|port|rest_api_port|grpc_socket_path)\b", word) for word in words):
            words += ["--listen", "127.0.0.1:0"]
        self.command = [sys.executable, "-m", *self.program, *words]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it is read until the server is killed
        self._log: bytes | None = None
        self._marked = 0
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**_clean_environment(), **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        _started.append(self)

    def __repr__(self) -> str:
        return f"<{' '.join(self.command[2:])}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # -- what it says ---------------------------------------------------------------------------------------------

    @property
    def stdout(self) -> str:
        """All that it has printed."""
        with self._changed:
            return "".join(self._lines)

    @property
    def stderr(self) -> str:
        """All that it has logged."""
        return self._logged().decode("utf-8", "replace")

    def _logged(self) -> bytes:
        if self._log is not None:
            return self._log
        file = self._stderr.fileno()
        return os.pread(file, os.fstat(file).st_size, 0)

    def log_of_this_test(self, *, last: bool) -> str:
        """Return what was logged since the test began; ``last`` says that the next test begins now."""
        logged = self._logged()
        text = logged[self._marked :].decode("utf-8", "replace")
        if last:
            self._marked = len(logged)
        return text

    def wait_for(self, pattern: str | re.Pattern[str], timeout_s: float = READY_WITHIN_S) -> str:
        """Return the first printed line that has the pattern; fail with all there is if none comes."""
        with self._changed:

            def found() -> str | None:
                return next((line for line in self._lines if re.search(pattern, line)), None)

            self._changed.wait_for(lambda: found() is not None or self._ended, timeout_s)
            line = found()
        if line is None:
            raise AssertionError(f"{self} did not print {pattern!r}\n{self.stdout}\n{self.stderr}")
        return line

    def ready(self) -> Self:
        """Wait until the models are loaded, or have failed."""
        self.wait_for(_SETTLED)
        return self

    @property
    def addresses(self) -> list[str]:
        """Where it listens, in the order of its flags."""
        return _LISTENING.findall(self.stdout)

    @property
    def address(self) -> str:
        """Where it listens first."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.address.rpartition(":")[2])

    @property
    def rest_url(self) -> str:
        return f"http://{self.address}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://{self.address}"

    # -- its life -------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Return the processes that it started."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def terminate(self) -> None:
        """Ask it to end, as an orchestrator would."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = ENDED_WITHIN_S) -> int:
        """Return its exit code once it has ended and all it printed was read."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """End it and everything it started, whatever state they are in."""
        children = self.children()
        with suppress(ProcessLookupError):
            self.process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log = self._logged()
        self._stderr.close()


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SERVABLE_")}


@pytest.hookimpl(wrapper=True)
def show_logs_of_servers(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what servers logged during a test to its report if it fails; a conftest takes it as its makereport hook.

    The test fails as well if a server says that its event loop was blocked.
    """
    report = yield
    ended = call.when == "teardown"
    for server in list(_started):
        log = server.log_of_this_test(last=ended)
        for blocked in _BLOCKED.finditer(log) if ended and report.passed else ():
            if loop_watch.is_blocked(float(blocked[1]), float(blocked[2]), STARVED_S):
                report.outcome = "failed"
                report.longrepr = f"{server}: {blocked[0]}"
        if report.failed:
            report.sections.append((f"log of {server}", log))
        if ended and not server.running:
            _started.remove(server)
    return report
