"""What one look at a model's base path makes of it: which versions to wish for. No threads, no timers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from servable.core.errors import Code, ServingError, not_found
from servable.lifecycle.config import ModelConfig, Specific, VersionSpec, select
from servable.lifecycle.intake import Evidence, Intake, Taken, Waiting, fingerprint
from servable.lifecycle.layout import Listing, file_error, list_versions, misnamed_version
from servable.lifecycle.loading import uses_of
from servable.lifecycle.manifest import disagreement

Prove: TypeAlias = Callable[[Path, str | None], str | None]
"""Says what a version's files lack for an engine (``None`` is the one that will be chosen); ``None`` if nothing."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is wished for after a look, what waits and why, and what a person should know."""

    versions: Mapping[int, VersionSpec]
    waiting: Mapping[int, str]
    warnings: tuple[str, ...]


class Watch:
    """The memory of one model between looks.

    1. A look that fails changes nothing, and one empty listing changes nothing: a storage outage never unloads.
    2. A version is wished for once its files are complete, and until its directory goes or the policy leaves it out.
    3. A version that failed and whose files then change is wished for anew, once they are complete again.
    4. While every version that the policy asks for is still incomplete, the wish stays what it was.

    ``wished`` is what was wished for under the configuration before. ``proof_alone`` holds for the first look;
    ``once`` says that there will be no other.
    """

    def __init__(
        self,
        config: ModelConfig,
        prove: Prove,
        wished: Mapping[int, VersionSpec] = MappingProxyType({}),
        *,
        proof_alone: bool,
        once: bool,
    ) -> None:
        self._config = config
        self._prove = prove
        self._proof_alone = proof_alone
        self._once = once
        self._intakes: dict[int, Intake] = {}
        self._wished = {
            version: replace(spec, engine=config.engine, options=config.options) for version, spec in wished.items()
        }
        self._waiting: dict[int, str] = {}
        self._empty_looks = 0

    def look(self, now: float, failed: AbstractSet[int]) -> Scan:
        """Scan once. ``failed`` are the wished versions whose load has failed so far.

        Raises ``ServingError`` if the base path cannot be read. Blocks on the file system.
        """
        listing = self._list()
        warnings = [*listing.warnings, *self._unmet(listing)]
        if listing.versions:
            self._empty_looks = 0
            self._choose(listing.versions, now, failed)
        else:
            warnings.append(self._none_found())
            self._empty_looks += 1
            if self._empty_looks > 1:
                self._forget()
        self._proof_alone = self._once
        return Scan(dict(self._wished), dict(self._waiting), tuple(warnings))

    def _list(self) -> Listing:
        config = self._config
        fixed = config.fixed_versions
        try:
            if fixed is None:
                return list_versions(config.base_path)
            for path in fixed.values():
                path.stat()
        except ServingError as error:
            raise ServingError(error.code, self._not_found(error.message)) from None
        except OSError as error:
            raise not_found(self._not_found(f"{error.filename}: {error.strerror}")) from None
        return Listing(dict(fixed))

    def _not_found(self, reason: str) -> str:
        return f"Could not find base path {self._config.base_path} for servable {self._config.name} with error {reason}"

    def _unmet(self, listing: Listing) -> list[str]:
        policy = self._config.policy
        if not isinstance(policy, Specific):
            return []
        absent = sorted(set(policy.versions) - listing.versions.keys())
        where = f"under base path {self._config.base_path}"
        if not policy.versions:
            return [f"the version policy of model {self._config.name} names no version, so none is served"]
        return [f"Version {version} of servable {self._config.name} is not found {where}" for version in absent]

    def _none_found(self) -> str:
        config = self._config
        return (
            f"No versions of servable {config.name} found under base path {config.base_path}. Did you forget to name "
            f"your leaf directory as a number (eg. '/1/')?{misnamed_version(config.base_path)}"
        )

    def _forget(self) -> None:
        self._intakes.clear()
        self._wished.clear()
        self._waiting.clear()

    def _choose(self, versions: Mapping[int, Path], now: float, failed: AbstractSet[int]) -> None:
        taken: dict[int, VersionSpec] = {}
        waiting: dict[int, str] = {}

        def good(version: int) -> bool:
            found = self._consider(version, versions[version], now, failed)
            if isinstance(found, Waiting):
                waiting[version] = found.reason
                return False
            taken[version] = found
            return version not in failed

        for version in select(self._config.policy, versions, good):
            if version not in taken and version not in waiting:
                good(version)
        self._waiting = waiting
        self._intakes = {version: intake for version, intake in self._intakes.items() if version in versions}
        if taken or not waiting:
            self._wished = taken

    def _consider(self, version: int, path: Path, now: float, failed: AbstractSet[int]) -> VersionSpec | Waiting:
        wished = self._wished.get(version)
        if wished is not None and wished.path != path:
            wished = None
        # What is loaded is in use: its files are not looked at again.
        if wished is not None and version not in failed:
            return wished
        intake = self._intakes.setdefault(version, Intake())
        try:
            stable = intake.look(fingerprint(path), now)
            if wished is not None and wished.files == hash(intake.seen):
                return wished
            stable = stable or self._proof_alone
            evidence = self._evidence(path, provable=stable)
        except ServingError as error:
            return Waiting(error.message)
        except OSError as error:
            return Waiting(file_error(error, path).message)
        verdict = intake.judge(evidence, now, stable=stable, once=self._once)
        return self._spec(version, path, hash(intake.seen), verdict) if isinstance(verdict, Taken) else verdict

    def _evidence(self, path: Path, *, provable: bool) -> Evidence:
        damage = disagreement(path)
        if damage is not None:
            return Evidence(damage, manifest=True)
        # Files that were just seen to change must be seen again whatever the format says of them now.
        return Evidence((self._prove(path, self._config.engine) or "") if provable else "")

    def _spec(self, version: int, path: Path, files: int, verdict: Taken) -> VersionSpec:
        config = self._config
        refusal = None
        if verdict.refused:
            refusal = ServingError(Code.DATA_LOSS, f"{path} is not what its manifest states: {verdict.doubt}")
        uses: tuple[str, ...] = ()
        try:
            uses = uses_of(path)
        except ServingError as error:
            refusal = refusal or error
        return VersionSpec(
            config.name, version, path, config.engine, config.options, files, verdict.doubt, refusal, uses
        )
