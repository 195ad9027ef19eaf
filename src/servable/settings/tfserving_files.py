"""TensorFlow Serving's other files in protobuf's text format, as values of ours; and what in them has no effect."""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from servable import protos
from servable.core.errors import ServingError
from servable.protos.text_locations import FieldPath
from servable.serving.batching_parameters import BatchingParameters
from servable.settings.batching import batching_parameters
from servable.settings.config_fields import BATCHING, CONFIG_PROTO, PLATFORM, idle_reason
from servable.settings.text_files import TextMessage, read_text_message
from servable.transport.tls import TlsOptions, server_context

MONITORING_PATH = "/monitoring/prometheus/metrics"
_PLATFORM_MAP = frozenset({"platform_configs", "key", "value", "source_adapter_config", "legacy_config"})


def read_monitoring_path(path: Path) -> str:
    """Return where a text ``MonitoringConfig`` wants the metrics; "" is nowhere."""
    found = read_text_message(path, protos.serving.MonitoringConfig)
    prometheus = found.message.prometheus_config
    if prometheus.path and not prometheus.path.startswith("/"):
        raise found.wrong(
            f"path: expected one that begins with /, not {prometheus.path!r}", "prometheus_config", 0, "path", 0
        )
    return (prometheus.path or MONITORING_PATH) if prometheus.enable else ""


# -- TLS --------------------------------------------------------------------------------------------------------------


def read_ssl_config(path: Path) -> tuple[TlsOptions, list[str]]:
    """Return what a text ``SSLConfig`` with PEM text in it says, and what of it has no effect.

    INVALID_ARGUMENT names the file and the field whose PEM is not what it should be.
    """
    found = read_text_message(path, protos.serving.SSLConfig)
    message, idle = found.message, []
    for name in ("server_key", "server_cert"):
        if not getattr(message, name):
            raise found.wrong(f"{name} is missing: it holds the PEM text itself, not the name of a file", name, 0)
    files = {name: _in_memory(getattr(message, name)) for name in ("server_key", "server_cert")}
    authorities = ""
    if message.client_verify:
        files["custom_ca"] = authorities = _in_memory(message.custom_ca) if message.custom_ca else _system_ca(found)
    elif message.custom_ca:
        idle.append(f"{found.place('custom_ca', 0)}custom_ca: accepted, no effect because client_verify is false")
    options = TlsOptions(
        files["server_cert"], files["server_key"], authorities, "required" if message.client_verify else "none"
    )
    try:
        server_context(options, ["h2"])
    except ServingError as error:
        words = error.message
        about = next((name for name, file in files.items() if words.startswith(f"{file}: ")), "server_key")
        for name, file in files.items():
            words = words.replace(file, name)
        raise ServingError(error.code, f"{found.place(about, 0)}{words}") from None
    return options, idle


@cache
def _in_memory(pem: str) -> str:
    """Return the name of a file that only this process has: OpenSSL reads files, and no key is to lie on a disk."""
    descriptor = os.memfd_create("servable-pem", os.MFD_CLOEXEC)
    os.write(descriptor, pem.encode())
    return f"/proc/self/fd/{descriptor}"


def _system_ca(found: TextMessage) -> str:
    """Return the system's authorities: what gRPC takes when it is given none."""
    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return candidate
    raise found.wrong("client_verify needs custom_ca: this machine has no authorities of its own", "client_verify", 0)


# -- sessions and platforms -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What counts of a ``ConfigProto``: threads, 0 for those it does not name; and the fields that do not count."""

    intra_op_threads: int = 0
    inter_op_threads: int = 0
    idle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Platform:
    """What a ``PlatformConfigMap`` says for the platform tensorflow. It replaces the flags of the same meaning."""

    session: SessionConfig = SessionConfig()
    batching: BatchingParameters | None = None
    per_version_batching: bool = False
    saved_model_tags: tuple[str, ...] = ("serve",)
    enable_model_warmup: bool = False
    warmup_iterations: int = 0
    idle: tuple[str, ...] = ()


def read_session_config(path: Path) -> SessionConfig:
    """Return what counts of a text ``tensorflow.ConfigProto``. Fields that TensorFlow does not have are errors."""
    # TensorFlow's own message has hundreds of fields that mean nothing here.
    return _session(read_text_message(path, protos.tensorflow.ConfigProto, allow_unknown=True))


def _session(found: TextMessage) -> SessionConfig:
    _refuse_unknown(found, CONFIG_PROTO, "ConfigProto")
    message = found.message
    for name in ("intra_op_parallelism_threads", "inter_op_parallelism_threads"):
        if getattr(message, name) < 0:
            raise found.wrong(f"{name}: expected 0 or more, not {getattr(message, name)}", name, 0)
    idle = tuple(_idle(found, CONFIG_PROTO))
    return SessionConfig(message.intra_op_parallelism_threads, message.inter_op_parallelism_threads, idle)


def read_platform_config(path: Path) -> Platform:
    """Return what a text ``PlatformConfigMap`` says for the platform tensorflow, the only one there is."""
    found = read_text_message(path, protos.serving.PlatformConfigMap, allow_unknown=True)
    for key in found.places:
        outside = key[: key.index("legacy_config")] if "legacy_config" in key else key
        for name in outside[::2]:
            if str(name) not in _PLATFORM_MAP and not str(name).startswith("["):
                raise found.wrong(f"PlatformConfigMap has no field {name!r}", *key)
    platforms = found.message.platform_configs
    others = sorted(set(platforms) - {"tensorflow"})
    if others:
        raise found.wrong(f"there is no platform {others[0]!r}; it can be 'tensorflow'", "platform_configs", 0)
    adapter = protos.serving.SavedModelBundleSourceAdapterConfig()
    wrapped = platforms["tensorflow"].source_adapter_config
    if wrapped.type_url and not wrapped.Unpack(adapter):
        wanted = adapter.DESCRIPTOR.full_name
        raise found.wrong(f"expected a [type.googleapis.com/{wanted}], not {wrapped.type_url}", "platform_configs", 0)
    inner = next((key for key in found.places if key[-2] == "legacy_config"), ())
    return _platform(_inside(found, inner, adapter.legacy_config))


def _platform(found: TextMessage) -> Platform:
    _refuse_unknown(found, PLATFORM, "SessionBundleConfig")
    bundle = found.message
    session = _inside(found, ("session_config", 0), bundle.session_config)
    batching = _inside(found, ("batching_parameters", 0), bundle.batching_parameters)
    _refuse_unknown(batching, BATCHING, "BatchingParameters")
    return Platform(
        session=_session(session),
        batching=batching_parameters(batching) if bundle.HasField("batching_parameters") else None,
        per_version_batching=bundle.enable_per_model_batching_params,
        saved_model_tags=tuple(bundle.saved_model_tags) or ("serve",),
        enable_model_warmup=bundle.enable_model_warmup,
        warmup_iterations=bundle.model_warmup_options.num_request_iterations.value,
        idle=tuple(_idle(found, PLATFORM)),
    )


def _inside(found: TextMessage, outer: FieldPath, message: Any) -> TextMessage:
    """Return the message in a field, with the places below that field."""
    depth = len(outer)
    places = {key[depth:]: place for key, place in found.places.items() if key[:depth] == outer and len(key) > depth}
    return TextMessage(message, found.source, places)


def _refuse_unknown(found: TextMessage, table: Mapping[str, str], message_name: str) -> None:
    for key in found.places:
        name = str(key[0])
        if name not in table:
            near = difflib.get_close_matches(name, table, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(table))}"
            raise found.wrong(f"{message_name} has no field {name!r}; {advice}", *key[:2])


def _idle(found: TextMessage, table: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each field that was given and changes nothing."""
    for name in dict.fromkeys(str(key[0]) for key in found.places):
        reason = idle_reason(table[name])
        if reason:
            yield f"{found.place(name, 0)}{name}: accepted, no effect because {reason}"
