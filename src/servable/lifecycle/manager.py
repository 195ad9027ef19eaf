"""Which versions are loaded: follows the wish, acts on the policy's decisions, counts who uses what.

Guarantees:

1. Everything here happens on the event loop, except ``load``, ``prepare`` and closing a model, which have threads.
2. ``acquire`` finds a version from the moment it is AVAILABLE until it is UNLOADING, in one dictionary look-up.
3. A version is closed after it can no longer be found and the last handle was released, ``retire`` having been called.
4. A load that fails changes nothing for other versions and models; its reason is in ``statuses``.
5. At most one action at a time is decided for a model; loads of different models may run beside each other.

A call sequence: ``apply(configs)``, ``await start()``, ``await wait_ready(60)``; for each request ``acquire`` and
``release``; ``await stop()``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from servable.core.errors import (
    ServingError,
    failed_precondition,
    invalid_argument,
    not_found,
    unavailable,
)
from servable.core.messages import ModelRef
from servable.core.status import VersionState, VersionStatus
from servable.lifecycle.config import ManagerOptions, ModelConfig, Wish
from servable.lifecycle.loading import Load, LoadedModel, LoadedVersion, Prepare, load_artifact, prove_artifact
from servable.lifecycle.model import Tracked, TrackedModel
from servable.lifecycle.source import Source
from servable.lifecycle.transitions import Transitions
from servable.lifecycle.watch import Prove

log = logging.getLogger("servable.lifecycle")

REMEMBERED_MODELS = 256
"""Models that are no longer configured, whose ended versions ``statuses`` still knows."""

OnChange = Callable[[str, VersionStatus], None]

__all__ = ["LoadedModel", "LoadedVersion", "Manager", "ManagerOptions", "OnChange"]


class Manager:
    """The models of a server.

    ``prepare`` is called in the loader thread after a load and before the version is AVAILABLE; what it returns becomes
    ``loaded.executor``, what it raises fails the load. A thread that it starts inherits the loader's niceness.
    ``retire`` is called on the loop when an unloading version has no user left, before it is closed.
    """

    def __init__(
        self,
        options: ManagerOptions | None = None,
        *,
        prepare: Prepare = lambda _loaded: None,
        retire: Callable[[LoadedVersion], None] = lambda _loaded: None,
        load: Load = load_artifact,
        prove: Prove = prove_artifact,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._options = options or ManagerOptions()
        self._loop = loop or asyncio.get_running_loop()
        self._latest: dict[str, LoadedVersion] = {}
        self._exact: dict[str, dict[int, LoadedVersion]] = {}
        self._models: dict[str, TrackedModel] = {}
        self._callbacks: list[OnChange] = []
        self._change = asyncio.Event()
        self._applied = False
        self._starting = True
        self._transitions = Transitions(
            self._options,
            self._loop,
            self._models,
            load=load,
            prepare=prepare,
            retire=retire,
            changed=self._publish,
            failed=self._look_again,
        )
        self._source = Source(
            prove,
            self._looked,
            lambda name: self._models[name].failed(),
            poll_s=self._options.poll_s,
            timeout_s=self._options.scan_timeout_s,
        )

    # -- requests -------------------------------------------------------------------------------------------------

    def acquire(self, ref: ModelRef) -> LoadedVersion:
        """Return a loaded version and keep it in memory until it is released.

        Raises ``ServingError`` with TensorFlow Serving's codes and texts if there is none.
        """
        loaded = self._latest.get(ref.name) if ref.version is None and ref.label is None else self._find(ref)
        if loaded is None:
            raise _servable_not_found(ref.name, ref.version)
        loaded.in_use += 1
        return loaded

    def release(self, loaded: LoadedVersion) -> None:
        """Give back what ``acquire`` returned, once."""
        loaded.in_use -= 1
        if loaded.on_drained is not None and loaded.in_use == 0:
            loaded.on_drained()

    def _find(self, ref: ModelRef) -> LoadedVersion | None:
        versions = self._exact.get(ref.name, {})
        if ref.version is not None:
            return versions.get(ref.version)
        version = self._labelled(ref.name, ref.label or "")
        if version not in versions:
            raise _servable_not_found(ref.name, version)
        return versions[version]

    def _labelled(self, name: str, label: str) -> int:
        if not name:
            raise _servable_not_found(name, None)
        if not self._applied:
            raise unavailable(f"Model labels does not init yet.{label}")
        model = self._models.get(name)
        if model is None or label not in model.labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return model.labels[label]

    # -- what is known --------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Return the names of the models that are configured or still being unloaded, in order of configuration."""
        return [name for name, model in self._models.items() if model.config is not None or model.versions]

    def loaded(self) -> list[LoadedVersion]:
        """Return every version that is available."""
        return [loaded for versions in self._exact.values() for loaded in versions.values()]

    def available(self, name: str) -> Collection[int]:
        """Return the versions of a model that requests may find now."""
        return self._exact.get(name, {}).keys()

    def statuses(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """Return the versions of a model that this server knows, newest first, or the one asked for.

        Versions that ended are remembered, the last 32 of each model. NOT_FOUND if there is nothing to tell.
        """
        if version is None and label is not None:
            version = self._labelled(name, label)
        model = self._models.get(name)
        statuses = model.statuses() if model else []
        if version is not None:
            statuses = [status for status in statuses if status.version == version]
            if not statuses:
                raise not_found(f"Could not find version {version} of model {name}")
        if not statuses:
            raise not_found(f"Could not find any versions of model {name}")
        return statuses

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a model that requests may use now. A label follows once its version is available."""
        model = self._models.get(name)
        return dict(model.labels) if model else {}

    def waiting(self, name: str) -> dict[int, str]:
        """Return the versions of a model that are on disk but not yet complete, and what they lack."""
        return self._source.waiting(name)

    def problem(self, name: str) -> ServingError | None:
        """Return why the base path of a model cannot be looked at, if it cannot."""
        return self._source.problem(name)

    def ready(self) -> bool:
        """Return whether every configured model has an available version."""
        return all(name in self._latest for name, model in self._models.items() if model.config is not None)

    async def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until every configured model is available or has failed; return whether all are available."""
        await self.wait_settled(None, timeout_s)
        return self.ready()

    async def wait_loaded(self, timeout_s: float | None = None) -> bool:
        """Wait until something is available and all that lies on the disk is or has failed; false if time ran out.

        A model without versions does not hold up the others. If all failed there is nothing to wait for.
        """

        def loaded() -> bool:
            pending = [name for name in self._models if not self._settled({name}) and not self._source.empty(name)]
            return not pending and (bool(self._latest) or self._settled(None))

        return await self._until(loaded, timeout_s)

    async def wait_settled(self, names: Collection[str] | None, timeout_s: float | None = None) -> bool:
        """Wait until each of these models (``None`` is all) is available or has failed; false if time ran out."""
        return await self._until(lambda: self._settled(names), timeout_s)

    async def wait_reached(self, names: Collection[str], timeout_s: float | None = None) -> bool:
        """Wait as ``wait_settled`` does, but not for models of which nothing lies on the disk."""
        return await self._until(lambda: all(self._settled({n}) or self._source.empty(n) for n in names), timeout_s)

    def _settled(self, names: Collection[str] | None) -> bool:
        models = [model for name, model in self._models.items() if names is None or name in names]
        return all(self._has_settled(model) for model in models if model.config is not None)

    def _has_settled(self, model: TrackedModel, asked: tuple[str, ...] = ()) -> bool:
        if model.available():
            return True

        def in_vain(name: str) -> bool:
            """Whether nothing is on its way that could end the wait for a model."""
            other = self._models.get(name)
            if other is None or other.config is None or name in asked:
                return True
            return not other.available() and self._has_settled(other, (*asked, model.name))

        # After a failure the source may yet find another version to wish for, or one may be on its way to the disk.
        return model.settled(in_vain) and not self._source.looking(model.name) and not self._source.waiting(model.name)

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._change.wait()
        return condition()

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Have ``callback(name, status)`` called on the loop after each change of a version; return how to end that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    # -- what is wished for ---------------------------------------------------------------------------------------

    def apply(self, configs: Sequence[ModelConfig]) -> None:
        """Replace the set of models. Models that are left out are unloaded; new ones are looked for at once.

        Raises ``ServingError`` and changes nothing if a name is missing or twice there, or a label cannot be assigned.
        """
        _check_names(configs)
        for config in configs:
            self._check_labels(config)
        names = {config.name for config in configs}
        for name, model in self._models.items():
            if name not in names:
                model.config = None
                model.wish({})
        for config in configs:
            model = self._models.setdefault(config.name, TrackedModel(config.name))
            model.config = config
        for model in self._models.values():
            model.apply_labels(early=self._options.labels_before_versions)
        self._applied = True
        self._source.apply(configs)
        self._transitions.step_all()
        self._forget_models()
        self._wake()

    def follow(self, wish: Wish) -> None:
        """Take over the whole wish for the configured models; what it leaves out is unloaded.

        The source calls this after its looks. With ``poll_s`` below 0 there are none, and another may.
        """
        for name, model in self._models.items():
            if model.config is not None:
                model.wish(wish.get(name, {}))
        self._transitions.step_all()
        self._wake()

    def scan(self, name: str | None = None) -> None:
        """Look for versions now instead of at the next poll."""
        self._source.scan(None if name is None else {name})

    def reload(self, name: str) -> None:
        """Load the wished versions of a model anew; those that serve do so until they are replaced."""
        model = self._models.get(name)
        if model is None or model.config is None:
            raise _servable_not_found(name, None)
        model.wish_anew()
        self._transitions.step(model)
        self.scan(name)

    def _check_labels(self, config: ModelConfig) -> None:
        model = self._models.get(config.name)
        if model is None or model.config is None:
            return
        before = model.config
        # A version that this change of configuration may bring can be waited for; others can not.
        if (before.base_path, before.policy, before.fixed_versions) != (
            config.base_path, config.policy, config.fixed_versions,
        ):  # fmt: skip
            return
        for label, version in config.labels.items():
            known = before.labels.get(label)
            if known == version or model.expects(version) or (known is None and self._options.labels_before_versions):
                continue
            raise failed_precondition(
                f"Request to assign label to version {version} of model {config.name}, "
                "which is not currently available for inference"
            )

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look for versions and to load them. Returns at once; ``wait_ready`` waits."""
        self._source.start(self._loop)
        self._transitions.step_all()

    async def stop(self, timeout_s: float | None = None) -> None:
        """Unload everything. Waits ``timeout_s`` at most (default: the options' ``drain_timeout_s``) for requests that
        still use a version.

        Versions in use after that are left in memory: closing one under a running request would crash the process.
        """
        self._source.stop()
        for model in self._models.values():
            model.config = None
            model.wish({})
        self._transitions.step_all()
        limit_s = self._options.drain_timeout_s if timeout_s is None else timeout_s
        ended = await self._until(lambda: not any(m.versions for m in self._models.values()), limit_s)
        if not ended:
            held = [repr(t.loaded or t.spec) for m in self._models.values() for t in m.versions.values()]
            log.warning("stopped with versions still in memory: %s", ", ".join(held))

    def _looked(self, changed: bool) -> None:
        if changed:
            self.follow(self._source.wish())
        self._wake()

    def _look_again(self, model: TrackedModel) -> None:
        """After a failure an older version may be wished for in place of what failed."""
        self._source.scan({model.name})

    def _publish(self, model: TrackedModel, tracked: Tracked) -> None:
        available = model.available()
        if available:
            self._exact[model.name] = available
            self._latest[model.name] = available[max(available)]
        else:
            self._exact.pop(model.name, None)
            self._latest.pop(model.name, None)
        model.apply_labels(early=self._options.labels_before_versions)
        if self._starting and self._settled(None):
            self._starting = False
            self._transitions.calm_down()
        status = tracked.status()
        _log_change(model.name, status)
        for callback in list(self._callbacks):
            try:
                callback(model.name, status)
            except Exception:
                log.exception("an observer of model changes failed")
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _forget_models(self) -> None:
        gone = [name for name, model in self._models.items() if model.config is None and not model.versions]
        for name in gone[:-REMEMBERED_MODELS]:
            del self._models[name]


def _check_names(configs: Sequence[ModelConfig]) -> None:
    seen: set[str] = set()
    for config in configs:
        if not config.name:
            raise invalid_argument(f"the model at {config.base_path} has no name")
        if config.name in seen:
            raise invalid_argument(f"Illegal to list model {config.name} multiple times in config list")
        seen.add(config.name)


def _servable_not_found(name: str, version: int | None) -> ServingError:
    if not name:
        return invalid_argument("ModelSpec has no name specified.")
    request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return not_found(f"Servable not found for request: {request}")


def _log_change(name: str, status: VersionStatus) -> None:
    if status.error is not None:
        log.error("%s version %d: %s: %s", name, status.version, status.state.name, status.error)
        return
    details = ", ".join(part for part in (status.engine, status.precision, status.reason) if part)
    level = logging.DEBUG if status.state is VersionState.START and not status.reason else logging.INFO
    log.log(level, "%s version %d: %s%s", name, status.version, status.state.name, f" ({details})" if details else "")
