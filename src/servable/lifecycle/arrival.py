"""Waiting for models that were just configured, and saying which of them did not come."""

from __future__ import annotations

from collections.abc import Collection

from servable.core.errors import Code, ServingError, not_found
from servable.core.status import VersionState
from servable.lifecycle.manager import Manager


async def await_models(manager: Manager, names: Collection[str], timeout_s: float) -> None:
    """Return when each of these models has an available version.

    UNKNOWN, as in TensorFlow Serving, names those that failed or that have no version, with the reasons;
    DEADLINE_EXCEEDED those that are not ready in time. What is loading goes on in either case.
    """
    in_time = await manager.wait_reached(names, timeout_s)
    missing = [name for name in names if not _is_available(manager, name)]
    if not missing:
        return
    reasons = "".join(f"{{{_reason(manager, name)}}}, " for name in sorted(missing))
    raise ServingError(
        Code.UNKNOWN if in_time else Code.DEADLINE_EXCEEDED,
        f"{len(missing)} model(s) did not become available: {{{reasons}}}",
    )


def _is_available(manager: Manager, name: str) -> bool:
    try:
        return any(status.state is VersionState.AVAILABLE for status in manager.statuses(name))
    except ServingError:
        return False


def _reason(manager: Manager, name: str) -> str:
    try:
        newest = manager.statuses(name)[0]
    except ServingError:
        error = manager.problem(name) or not_found("there is no version of it under its base path")
        return f"{{name: {name}}} due to error: {error}"
    where = f"{{name: {name} version: {newest.version}}}"
    return f"{where} due to error: {newest.error}" if newest.error else f"{where} is in state {newest.state.name}"
