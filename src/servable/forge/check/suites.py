"""The suites by name, and what a whole examination consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from servable.core.errors import invalid_argument
from servable.forge.check import corruption, determinism, inference, known, loading, ranges
from servable.forge.check.examination import Examination
from servable.forge.check.findings import SUITES, Check, Examined, Finding

_CHECKS: Mapping[str, Callable[[Examination], Iterator[Check]]] = MappingProxyType(
    {module.SUITE: module.checks for module in (inference, loading, determinism, corruption, ranges, known)}
)


def suites_named(text: str) -> tuple[str, ...]:
    """Read ``all`` or ``inference,ranges``; INVALID_ARGUMENT names those that exist."""
    if text == "all":
        return SUITES
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        raise invalid_argument(f"no suite is called {', '.join(unknown) or text!r}; there are all, {', '.join(SUITES)}")
    return names


def plan(examination: Examination, suites: Sequence[str]) -> list[Check]:
    """Return all checks of these suites, in order. Nothing is asked yet."""
    return [check for suite in suites for check in _CHECKS[suite](examination)]


def examine(
    examination: Examination, suites: Sequence[str], report: Callable[[Finding], None] = lambda _finding: None
) -> Examined:
    """Run the checks; ``report`` hears of each as it is done."""
    findings = []
    for check in plan(examination, suites):
        findings.append(check.run())
        report(findings[-1])
    subject = examination.subject
    return Examined(subject.target, subject.engine, tuple(examination.origins()), findings)
