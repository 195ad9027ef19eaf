"""Shared by all tests: the plain mode, that conformance may not be skipped in CI, that no event loop may be blocked."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servable.core.cache import cache_dir

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import loop_watch  # noqa: E402  # found by the line above

loop_watch.install()

# A shell's job in the background ignores Ctrl-C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # and under nohup the end of its terminal
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Plans of whoever works here are not for the tests: they are of the same models. What is installed is.
_cache = tempfile.TemporaryDirectory(prefix="servable-tests-cache-")
for _kind in ("peers", "converters"):
    _installed = cache_dir() / _kind
    if _installed.is_dir():
        (Path(_cache.name) / "servable").mkdir(exist_ok=True)
        (Path(_cache.name) / "servable" / _kind).symlink_to(_installed)
os.environ["XDG_CACHE_HOME"] = _cache.name


@pytest.fixture(autouse=True)
def no_loop_is_blocked() -> Iterator[None]:
    """Fail the test whose loop was held for more than a second."""
    loop_watch.begin()
    yield
    assert loop_watch.found == [], "an event loop may never be blocked for more than a second"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plain", action="store_true", help="prove the plain install: TensorFlow must not be there")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--plain") and importlib.util.find_spec("tensorflow") is not None:
        raise pytest.UsageError("--plain wants an environment without TensorFlow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("tensorflow") is not None:
        return
    for item in items:
        if item.get_closest_marker("tensorflow"):
            item.add_marker(pytest.mark.skip(reason="TensorFlow is not installed: pip install 'servable[tensorflow]'"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    required = os.environ.get("SERVABLE_CONFORMANCE") == "required"
    if required and report.skipped and "tests/conformance" in item.nodeid and not item.config.getoption("--plain"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped, but here nothing under tests/conformance may be: {report.longrepr}"
        )
