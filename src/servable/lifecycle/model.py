"""What the manager remembers of one model: its versions at work, those that ended, and its labels. No threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from servable.core.errors import ServingError
from servable.core.status import VersionState, VersionStatus
from servable.engines.plan import Choice
from servable.lifecycle.config import ModelConfig, VersionSpec
from servable.lifecycle.dependencies import Known
from servable.lifecycle.loading import LoadedVersion

REMEMBERED_ENDS = 32


class Key(NamedTuple):
    """One loading of a version. The generation grows when the same version must be loaded anew (other path, engine).

    So the new one is loaded and swapped in as any newer version is.
    """

    version: int
    generation: int


class Tracked:
    """One version at work: its state, and what is needed to go on from there."""

    __slots__ = ("choice", "error", "failures", "key", "loaded", "note", "retry", "spec", "state", "waits_for")

    def __init__(self, key: Key, spec: VersionSpec) -> None:
        self.key = key
        self.spec = spec
        self.state = VersionState.START
        self.error: ServingError | None = None
        self.loaded: LoadedVersion | None = None
        self.choice: Choice | None = None
        self.failures = 0
        self.note = ""
        self.retry: asyncio.TimerHandle | None = None
        self.waits_for: tuple[str, ...] = ()
        """Models without which it may not be loaded, and which are not available."""

    def status(self) -> VersionStatus:
        """Return what the world is told of it."""
        choice = self.choice
        if choice is None:
            return VersionStatus(self.spec.version, self.state, self.error, reason=self.note)
        return VersionStatus(self.spec.version, self.state, self.error, choice.engine, choice.precision, choice.reason)


class TrackedModel:
    """One model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.config: ModelConfig | None = None
        """``None`` once it is no longer configured."""
        self.versions: dict[Key, Tracked] = {}
        self.wished: dict[Key, VersionSpec] = {}
        self.ended = Ended()
        self.labels: dict[str, int] = {}
        """Labels that requests may use now."""

    def wish(self, specs: Mapping[int, VersionSpec]) -> None:
        """Take over a new wish: what changed in more than its number becomes a new generation."""
        self.wished = {self._key(version, spec): spec for version, spec in specs.items()}

    def wish_anew(self) -> None:
        """Wish for the same versions, loaded again."""
        self.wished = {Key(key.version, key.generation + 1): spec for key, spec in self.wished.items()}

    def _key(self, version: int, spec: VersionSpec) -> Key:
        known = {key: tracked.spec for key, tracked in self.versions.items()} | self.wished
        newest = max((key for key in known if key.version == version), default=Key(version, -1))
        return newest if known.get(newest) == spec else Key(version, newest.generation + 1)

    def states(self) -> dict[Key, VersionState]:
        """Return what the policy decides upon."""
        return {key: tracked.state for key, tracked in self.versions.items()}

    def available(self) -> dict[int, LoadedVersion]:
        """Return what requests may find, by version, in rising order."""
        tracked = (self.versions[key] for key in sorted(self.versions))
        return {item.key.version: item.loaded for item in tracked if item.loaded and _is_available(item)}

    def failed(self) -> frozenset[int]:
        """Return the wished versions of which no load has succeeded so far, after one at least."""
        failed = {item.key.version for item in self.versions.values() if item.failures and item.key in self.wished}
        return frozenset(failed - self.available().keys())

    def expects(self, version: int) -> bool:
        """Return whether a version is available or on its way."""
        states = {key.version: VersionState.START for key in self.wished}
        states |= {key.version: tracked.state for key, tracked in sorted(self.versions.items())}
        return version in self.available() or states.get(version) in {VersionState.START, VersionState.LOADING}

    def settled(self, in_vain: Callable[[str], bool]) -> bool:
        """Return whether something was wished for, and every load of it has come to its end.

        A version that waits for a model ``in_vain`` has come to its end too, for now.
        """

        def ended(key: Key) -> bool:
            tracked = self.versions.get(key)
            if tracked is None or tracked.state is VersionState.LOADING:
                return False
            return tracked.state is not VersionState.START or any(map(in_vain, tracked.waits_for))

        return bool(self.wished) and all(map(ended, self.wished))

    def known(self) -> Known:
        """Return what matters to models that call this one."""
        alive = [tracked for tracked in self.versions.values() if tracked.state is not VersionState.END]
        specs = [tracked.spec for tracked in alive]
        specs += [spec for key, spec in self.wished.items() if key not in self.versions]
        failed = not alive and any(tracked.error for tracked in self.versions.values())
        return Known(bool(self.available()), failed, frozenset(name for spec in specs for name in spec.uses))

    def apply_labels(self, *, early: bool) -> None:
        """Let labels follow their versions: one moves when the version it is to name is available.

        ``early`` lets a label that is new name a version that is not.
        """
        wished = self.config.labels if self.config else {}
        available = self.available()
        self.labels = {
            label: version if version in available else self.labels.get(label, version)
            for label, version in wished.items()
            if version in available or label in self.labels or early
        }

    def statuses(self) -> list[VersionStatus]:
        """Return every version known, newest first; of two loadings of one version the one that serves."""
        found = {status.version: status for status in self.ended}
        for key in sorted(self.versions):
            known, status = found.get(key.version), self.versions[key].status()
            if known is not None and known.state is VersionState.AVAILABLE is not status.state:
                if status.error is not None:
                    known = replace(known, reason=f"{known.reason}; loading it anew failed: {status.error}")
                status = known
            found[key.version] = status
        return [found[version] for version in sorted(found, reverse=True)]


def _is_available(tracked: Tracked) -> bool:
    return tracked.state is VersionState.AVAILABLE


class Ended:
    """The last versions that ended, bounded; failures are kept before those that ended well."""

    def __init__(self, limit: int = REMEMBERED_ENDS) -> None:
        self._limit = limit
        self._statuses: dict[int, VersionStatus] = {}

    def __iter__(self) -> Iterator[VersionStatus]:
        return iter(self._statuses.values())

    def add(self, status: VersionStatus) -> None:
        """Remember one, and forget the oldest one that may be forgotten."""
        self._statuses.pop(status.version, None)
        self._statuses[status.version] = status
        if len(self._statuses) > self._limit:
            del self._statuses[self._oldest()]

    def _oldest(self) -> int:
        well = (version for version, status in self._statuses.items() if status.error is None)
        return next(well, next(iter(self._statuses)))
