"""What ``servable doctor`` looks at. Nothing heavy is imported and nothing is left behind."""

from __future__ import annotations

import functools
import platform
import re
import resource
from collections.abc import Iterator
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from servable.app import listen_addresses
from servable.core.errors import ServingError
from servable.engines.base import ENGINES, engine_class
from servable.engines.machine import Cpus, cpus, memory
from servable.engines.plan import EXTRAS, artifact_of_file, choose, complete
from servable.lifecycle.config import ModelConfig, select
from servable.lifecycle.layout import list_versions
from servable.settings import ServeSettings
from servable.transport.address import Address
from servable.transport.sockets import UnixFile, bind
from servable.transport.tls import server_context

MIB = 1024 * 1024
LEAST_MEMORY = 256 * MIB
ENOUGH_FILES = 4096
LEAST_FILES = 128
LONG_DRAIN_S = 300.0
_PACKAGES = {"litert": "ai_edge_litert"}
"""Engine -> what is imported for it, where that is called otherwise."""
_owners = functools.cache(metadata.packages_distributions)
"""It reads the list of files of everything that is installed."""


class State(Enum):
    """``FAILS``: a server would not start or not work. ``WARNING``: it would work badly, or surprise."""

    OK = "ok"
    WARNING = "warning"
    FAILS = "fails"


class Finding(NamedTuple):
    """One thing that was looked at; ``advice`` is what to do about it."""

    state: State
    subject: str
    found: str
    advice: str = ""


def examine(settings: ServeSettings) -> Iterator[Finding]:
    """Look at everything that a server with these settings would meet."""
    yield from _software()
    yield from _engines()
    yield from _cpus(settings, cpus())
    yield from _memory(settings)
    yield _open_files()
    yield from _ports(settings)
    yield from _tls(settings)
    yield from _files(settings)
    yield from _models(settings)
    yield from _large_values(settings)


def _software() -> Iterator[Finding]:
    yield Finding(State.OK, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding(State.OK, "servable", metadata.version("servable"))
    engines = {name.lower() for name in ENGINES}
    for requirement in metadata.requires("servable") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if "extra ==" in requirement or name.lower() in engines:
            continue
        try:
            yield Finding(State.OK, name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(State.FAILS, name, "not installed", f"pip install '{requirement}'")
    try:
        import uvloop  # noqa: F401  # light, and built for each platform: only an import proves it
    except ImportError as error:
        yield Finding(State.FAILS, "uvloop", f"cannot be imported: {error}", "pip install --force-reinstall uvloop")


def _engines() -> Iterator[Finding]:
    owners = _owners()
    for name in ENGINES:
        if engine_class(name).installed():
            package = _PACKAGES.get(name, name)
            versions = [f"{owner} {metadata.version(owner)}" for owner in owners.get(package, ())]
            yield Finding(State.OK, f"engine {name}", ", ".join(dict.fromkeys(versions)) or "built in")
        elif name in EXTRAS:
            advice = f"if you need it: pip install '{EXTRAS[name]}'"
            yield Finding(State.OK, f"engine {name}", "not installed", advice)
        else:
            advice = "it belongs to the plain install: pip install --force-reinstall servable"
            yield Finding(State.WARNING, f"engine {name}", "not installed", advice)


def _cpus(settings: ServeSettings, found: Cpus) -> Iterator[Finding]:
    which = ",".join(map(str, found.usable))
    if found.quota is not None and found.quota < 1:
        advice = "below one CPU every request may wait for the next period: allow at least 1"
        yield Finding(State.WARNING, "CPUs", f"{found} ({which})", advice)
    else:
        yield Finding(State.OK, "CPUs", f"{found} ({which})")
    threads = settings.tensorflow_intra_op_parallelism
    if threads > found.threads:
        advice = f"more threads than CPUs get in each other's way: at most {found.threads}"
        yield Finding(State.WARNING, "threads of each engine", str(threads), advice)
    else:
        yield Finding(State.OK, "threads of each engine", str(threads or found.threads))


def _memory(settings: ServeSettings) -> Iterator[Finding]:
    found = memory()
    limit = "no limit" if found.limit is None else f"limit {_mib(found.limit)}"
    if found.available is None:
        yield Finding(State.WARNING, "memory", f"{limit}, what is available is not known")
        return
    text = f"{limit}, {_mib(found.available)} available"
    if found.available < LEAST_MEMORY:
        yield Finding(State.WARNING, "memory", text, f"a server and a small model want {_mib(LEAST_MEMORY)}")
    else:
        yield Finding(State.OK, "memory", text)
    if settings.max_body * MIB > found.available // 4:
        advice = "a few requests of that size fill the memory: lower --max_body"
        yield Finding(State.WARNING, "max_body", f"{settings.max_body} MiB", advice)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} (at most {'unlimited' if hard == resource.RLIM_INFINITY else hard})"
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        state = State.FAILS if soft < LEAST_FILES else State.WARNING
        advice = f"each connection takes one: ulimit -n {ENOUGH_FILES}, or LimitNOFILE= in a systemd unit"
        return Finding(state, "open files", text, advice)
    return Finding(State.OK, "open files", text)


def _ports(settings: ServeSettings) -> Iterator[Finding]:
    try:
        addresses = [place.address for place in listen_addresses(settings)]
    except ServingError as error:
        yield Finding(State.FAILS, "ports", "none", error.message)
        return
    for text in addresses:
        try:
            address = Address.parse(text)
            bound = bind(address)
        except ServingError as error:
            yield Finding(State.FAILS, text, error.message, "choose another address with --listen, or end who has it")
            continue
        if address.path is not None and not address.path.startswith("@"):
            UnixFile(address.path).remove()
        for one in bound:
            one.close()
        yield Finding(State.OK, text, "free")


def _tls(settings: ServeSettings) -> Iterator[Finding]:
    try:
        options = settings.tls_options()
        if options is not None:
            server_context(options, ["h2"])
            yield Finding(
                State.OK, "TLS", f"certificate {options.certificate}, clients' certificates: {options.client_auth}"
            )
    except ServingError as error:
        yield Finding(State.FAILS, "TLS", error.message)


def _files(settings: ServeSettings) -> Iterator[Finding]:
    """TensorFlow Serving's files but those of models and TLS, and what in all of them has no effect."""
    for subject, read in (
        ("batching", settings.batching_choice),
        ("metrics", settings.metrics_path),
        ("engines' threads", settings.engine_options),
        ("limits", settings.limits),
    ):
        try:
            read()
        except ServingError as error:
            yield Finding(State.FAILS, subject, error.message)
    try:
        for line in settings.idle_lines():
            where, _, why = line.partition(": accepted, no effect because ")
            yield Finding(State.OK, where, "no effect", why)
    except ServingError:
        return  # it is said above, or of TLS or the models


def _models(settings: ServeSettings) -> Iterator[Finding]:
    try:
        configs = settings.model_configs()
    except ServingError as error:
        yield Finding(State.FAILS, "models", error.message)
        return
    size = 0
    for config in configs:
        try:
            finding, bytes_on_disk = _model(config)
        except ServingError as error:
            finding, bytes_on_disk = Finding(State.FAILS, f"model {config.name}", error.message), 0
        size += bytes_on_disk
        yield finding
    available = memory().available
    if available is not None and size > available // 2:
        text = f"{_mib(size)} on disk, {_mib(available)} of memory available"
        advice = "a loaded model takes its size or more, and a new version is loaded beside the old one"
        yield Finding(State.WARNING, "size of the models", text, advice)


def _model(config: ModelConfig) -> tuple[Finding, int]:
    """Judge the versions that would be loaded; return their size on disk too."""
    subject = f"model {config.name}"
    versions = config.fixed_versions or list_versions(config.base_path).versions
    wanted = select(config.policy, versions, lambda _version: True) if config.fixed_versions is None else [*versions]
    if not wanted:
        return Finding(State.WARNING, subject, f"no version in {config.base_path}", "it is served when one appears"), 0
    words = []
    for version in wanted:
        artifact = artifact_of_file(versions[version])
        choice = choose(artifact, config.engine)
        lacking = complete(choice, artifact)
        if lacking is not None:
            return Finding(State.FAILS, subject, f"version {version} is not complete: {lacking}"), 0
        words.append(f"version {version}: {choice.engine}, {choice.reason}")
    return Finding(State.OK, subject, "; ".join(words)), sum(_size(versions[version]) for version in wanted)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _large_values(settings: ServeSettings) -> Iterator[Finding]:
    for name, most, advice in (
        ("max_queued_requests", 100_000, "each that waits keeps its tensors in memory, and its client waiting"),
        ("max_batch_rows", 1024, "the first row of a batch waits for the last: measure before going higher"),
        ("drain_timeout_s", LONG_DRAIN_S, "what stops the server (systemd, Kubernetes) kills it sooner by default"),
    ):
        value = getattr(settings, name)
        if value > most:
            yield Finding(State.WARNING, name, f"{value:g}", advice)


def _mib(count: int) -> str:
    return f"{count // MIB} MiB"
