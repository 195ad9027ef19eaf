"""Moves versions through their states: asks the policy what to do for a model, and does it in loader threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from servable.core.errors import Code, ServingError
from servable.core.status import VersionState
from servable.engines.plan import cpu_threads
from servable.lifecycle.config import ManagerOptions
from servable.lifecycle.dependencies import judge
from servable.lifecycle.loading import (
    RETRYABLE,
    Load,
    LoadedVersion,
    Prepare,
    Workers,
    close_version,
    load_version,
)
from servable.lifecycle.model import Key, Tracked, TrackedModel
from servable.lifecycle.policy import Verb, next_action

log = logging.getLogger("servable.lifecycle")


class Transitions:
    """The doer behind the manager. Lives on the event loop.

    ``changed`` is called after every change of a version's state, ``failed`` after every load that failed.
    """

    def __init__(
        self,
        options: ManagerOptions,
        loop: asyncio.AbstractEventLoop,
        models: Mapping[str, TrackedModel],
        *,
        load: Load,
        prepare: Prepare,
        retire: Callable[[LoadedVersion], None],
        changed: Callable[[TrackedModel, Tracked], None],
        failed: Callable[[TrackedModel], None],
    ) -> None:
        self._options = options
        self._loop = loop
        self._models = models
        self._load = load
        self._prepare = prepare
        self._retire = retire
        self._changed = changed
        self._failed = failed
        self._loaders = Workers("load", loop, options.load_threads or cpu_threads())
        self._closers = Workers("unload", loop, max(1, options.unload_threads))

    def calm_down(self) -> None:
        """From now on load one version at a time, unless told otherwise: there are requests to disturb."""
        self._loaders.limit = self._options.load_threads or 1

    def step_all(self) -> None:
        """Do for every model what can be done now."""
        for model in list(self._models.values()):
            self.step(model)

    def step(self, model: TrackedModel) -> None:
        """Do for one model what can be done now."""
        self._drop_unwished(model)
        for key, spec in model.wished.items():
            if key not in model.versions:
                tracked = model.versions[key] = Tracked(key, spec)
                self._changed(model, tracked)
        held = self._hold(model)
        while action := next_action(model.states(), model.wished.keys(), self._options.transition, held):
            tracked = model.versions[action.key]
            if action.verb is Verb.UNLOAD:
                self._unload(model, tracked)
            elif self._loaders.free:
                self._begin(model, tracked)
            else:
                return

    def _hold(self, model: TrackedModel) -> set[Key]:
        """Return the versions that wait for models they call; end those that would wait for ever."""
        held: set[Key] = set()
        for key, tracked in list(model.versions.items()):
            if tracked.state is not VersionState.START or not tracked.spec.uses:
                continue
            models = {name: each.known() for name, each in self._models.items() if each.config is not None}
            verdict = judge(model.name, tracked.spec.uses, models)
            if isinstance(verdict, ServingError):
                tracked.failures += 1
                self._end(model, tracked, verdict)
                self._failed(model)
                continue
            waits_for, note = ((), "") if verdict is None else (verdict.models, verdict.reason)
            if verdict is not None:
                held.add(key)
            if (waits_for, note) != (tracked.waits_for, tracked.note):
                tracked.waits_for, tracked.note = waits_for, note
                self._changed(model, tracked)
        return held

    def _drop_unwished(self, model: TrackedModel) -> None:
        for key, tracked in list(model.versions.items()):
            if key in model.wished:
                continue
            if tracked.state is VersionState.START or tracked.retry is not None:
                self._end(model, tracked, ServingError(Code.CANCELLED, "Loading of servable cancelled"))
            if tracked.state is VersionState.END:
                self._forget(model, tracked)

    def _forget(self, model: TrackedModel, tracked: Tracked) -> None:
        del model.versions[tracked.key]
        model.ended.add(tracked.status())

    def _end(self, model: TrackedModel, tracked: Tracked, error: ServingError | None) -> None:
        if tracked.retry is not None:
            tracked.retry.cancel()
            tracked.retry = None
        tracked.state, tracked.error, tracked.note = VersionState.END, error, ""
        self._changed(model, tracked)

    # -- loading --------------------------------------------------------------------------------------------------

    def _begin(self, model: TrackedModel, tracked: Tracked) -> None:
        tracked.state = VersionState.LOADING
        self._attempt(model, tracked)
        self._changed(model, tracked)

    def _attempt(self, model: TrackedModel, tracked: Tracked) -> None:
        tracked.retry = None

        def done(outcome: LoadedVersion | ServingError) -> None:
            if isinstance(outcome, LoadedVersion):
                self._loaded(model, tracked, outcome)
            else:
                self._not_loaded(model, tracked, outcome)
            self.step_all()

        self._loaders.run(lambda: load_version(tracked.spec, self._load, self._prepare), done)

    def _loaded(self, model: TrackedModel, tracked: Tracked, loaded: LoadedVersion) -> None:
        tracked.loaded, tracked.choice = loaded, loaded.choice
        tracked.note, tracked.failures = "", 0
        if not model.wished:
            self._unload(model, tracked)
            return
        tracked.state = VersionState.AVAILABLE
        self._changed(model, tracked)

    def _not_loaded(self, model: TrackedModel, tracked: Tracked, error: ServingError) -> None:
        tracked.failures += 1
        options = self._options
        may_retry = error.code in RETRYABLE and not tracked.spec.doubt and tracked.key in model.wished
        if may_retry and tracked.failures <= options.max_load_retries:
            pause_s = max(0.0, options.load_retry_interval_s)
            tracked.note = (
                f"attempt {tracked.failures} of {options.max_load_retries + 1} failed: {error}; next in {pause_s:g} s"
            )
            tracked.retry = self._loop.call_later(pause_s, self._attempt, model, tracked)
            self._changed(model, tracked)
        else:
            self._end(model, tracked, error)
        self._failed(model)

    # -- unloading ------------------------------------------------------------------------------------------------

    def _unload(self, model: TrackedModel, tracked: Tracked) -> None:
        loaded = tracked.loaded
        assert loaded is not None
        tracked.state = VersionState.UNLOADING
        self._changed(model, tracked)
        loaded.on_drained = lambda: self._drained(model, tracked, loaded)
        if loaded.in_use == 0:
            loaded.on_drained()

    def _drained(self, model: TrackedModel, tracked: Tracked, loaded: LoadedVersion) -> None:
        loaded.on_drained = None
        tracked.loaded = None
        try:
            self._retire(loaded)
        except Exception:
            log.exception("retiring %s version %d failed", loaded.name, loaded.version)

        def done(_: None) -> None:
            self._end(model, tracked, None)
            self._forget(model, tracked)
            self.step(model)

        self._closers.run(lambda: close_version(loaded), done)
