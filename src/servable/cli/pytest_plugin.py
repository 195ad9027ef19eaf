"""The checks of ``servable check`` as tests: ``pytest --servable-model PATH``.

Nothing of Servable is imported before that option is given. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from servable.forge.check.findings import Check, Finding

NOTES = pytest.StashKey[list[str]]()
OPENED = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they are those of ``servable check``."""
    group = parser.getgroup("servable", "checks of a model (servable check)")
    group.addoption("--servable-model", metavar="MODEL", help="path or URL of a model whose checks are run as tests")
    group.addoption("--servable-suite", default="all", metavar="NAME,...", help="default: all")
    group.addoption("--servable-engine", metavar="NAME", help="for an artifact: the engine to run it with")
    group.addoption("--servable-signature", default="", metavar="NAME", help="default: every signature")
    group.addoption("--servable-data", type=Path, metavar="FILE", help="inputs; default: made up")
    group.addoption("--servable-profile", type=Path, metavar="FILE", help="ranges and distributions to compare with")
    group.addoption("--servable-known", type=Path, metavar="FILE", help="questions known to be answered wrongly")
    group.addoption("--servable-nan", default="any", metavar="POLICY", help="what must become of NaN and Inf")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that picks these tests."""
    if config.getoption("--servable-model"):
        config.addinivalue_line("markers", "servable: a check of the model that --servable-model names")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks to the tests that were collected; first, so that ``-k`` and ``-m`` choose among them too."""
    target = config.getoption("--servable-model")
    if target:
        items += ModelChecks.from_parent(session, name=target, nodeid="servable").collect()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the model's process."""
    subject = config.stash.get(OPENED, None)
    if subject is not None:
        subject.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what is worth a note."""
    notes = config.stash.get(NOTES, [])
    if notes:
        terminalreporter.section("servable notes")
        for note in notes:
            terminalreporter.line(note)


class ModelChecks(pytest.Collector):
    """All checks of one model. It is loaded when they are collected: its signatures say which there are."""

    def collect(self) -> list[pytest.Item]:
        """Return one test for each check."""
        from servable.core.errors import ServingError

        try:
            return list(self._items())
        except ServingError as error:
            raise pytest.UsageError(f"--servable-model {self.name}: {error.message}") from None

    def _items(self) -> Iterator[pytest.Item]:
        from servable.cli.check_subjects import open_subject
        from servable.forge.check.corruption import POLICIES
        from servable.forge.check.examination import Examination, Options
        from servable.forge.check.suites import plan, suites_named

        config = self.config
        nan = config.getoption("--servable-nan")
        if nan not in POLICIES:
            raise pytest.UsageError(f"--servable-nan {nan}: there are {', '.join(POLICIES)}")
        options = Options(
            data=config.getoption("--servable-data"),
            profile=config.getoption("--servable-profile"),
            known=config.getoption("--servable-known"),
            signature=config.getoption("--servable-signature"),
            nan=nan,
        )
        suites = suites_named(config.getoption("--servable-suite"))
        subject = config.stash[OPENED] = open_subject(self.name, None, config.getoption("--servable-engine"))
        for check in plan(Examination(subject, options), suites):
            yield CheckItem.from_parent(self, name=f"{check.suite}: {check.name}", check=check)


class CheckItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.check = check
        self.add_marker("servable")

    def runtest(self) -> None:
        """Run it. What does not apply is skipped; what is known to be wrong is an expected failure."""
        from servable.forge.check.findings import State

        finding = self.check.run()
        self.user_properties.append(("servable", finding.detail))
        if finding.state is State.FAIL:
            raise CheckFailedError(finding)
        if finding.state is State.NONE:
            pytest.skip(finding.detail)
        if finding.state is State.KNOWN:
            pytest.xfail(finding.detail)
        if finding.state is State.NOTE:
            self.config.stash.setdefault(NOTES, []).append(f"{self.name}: {finding.detail}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what was found, without a traceback: it would be of this package."""
        if isinstance(excinfo.value, CheckFailedError):
            return f"{self.name}: {excinfo.value.finding.detail}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where it belongs."""
        return self.path, None, f"servable check {self.name}"


class CheckFailedError(AssertionError):
    """A check that failed."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding
