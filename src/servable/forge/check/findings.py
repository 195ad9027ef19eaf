"""What a check is, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from servable.core.errors import ServingError

SUITES = ("inference", "save-load", "determinism", "corrupted", "ranges", "known-fail")


class State(Enum):
    """``NOTE``: nothing is wrong, but somebody should know. ``KNOWN``: wrong, as it is known to be."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    NOTE = "note"
    KNOWN = "known"
    NONE = "n/a"


class NoInputsError(Exception):
    """There are no inputs to check with, and it has been said why."""


class Found(NamedTuple):
    """What a check saw, in words."""

    state: State
    detail: str


class Finding(NamedTuple):
    """What came of one check."""

    suite: str
    name: str
    state: State
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. ``look`` may raise ``ServingError``: then the check has failed."""

    suite: str
    name: str
    look: Callable[[], Found] = field(repr=False)

    def run(self) -> Finding:
        """Look, and say how long it took."""
        began = time.monotonic()
        try:
            state, detail = self.look()
        except NoInputsError:
            state, detail = State.NONE, "there are no inputs that the model takes"
        except ServingError as error:
            state, detail = State.FAIL, str(error)
        return Finding(self.suite, self.name, state, detail, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Examined:
    """All findings about one model."""

    target: str
    engine: str
    origins: tuple[str, ...]
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Return whether nothing failed."""
        return not self.count(State.FAIL)

    def count(self, state: State) -> int:
        """Return how many findings are of that state."""
        return sum(finding.state is state for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "target": self.target,
            "engine": self.engine,
            "inputs": list(self.origins),
            "ok": self.ok,
            "counts": {state.value: self.count(state) for state in State},
            "findings": [
                {
                    "suite": finding.suite,
                    "check": finding.name,
                    "result": finding.state.value,
                    "detail": finding.detail,
                    "seconds": finding.seconds,
                }
                for finding in self.findings
            ],
        }
