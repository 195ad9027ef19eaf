"""Every option of ``servable serve``, declared once. Flags, environment, file keys, checks and pages derive from it.

Options that TensorFlow Serving has carry its names, units and defaults.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any

from servable.listeners.http_replies import RestOptions
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.plans import BatchingOptions
from servable.settings.models import ServedModel
from servable.transport.limits import MIB, Limits
from servable.transport.tls import CLIENT_AUTH

DEFAULT_LISTEN = ("127.0.0.1:8500", "127.0.0.1:8501")
HIGHEST_PORT = 65535


def _option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    least: float | None = None,
    most: float | None = None,
    is_path: bool = False,
) -> Any:
    """Declare one option. A path in a file of settings is relative to that file."""
    metadata = {
        "help": help_text,
        "choices": choices,
        "metavar": metavar,
        "least": least,
        "most": most,
        "is_path": is_path,
    }
    if isinstance(default, list):
        return field(default_factory=tuple, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything that ``servable serve`` can be told. What each part of the server gets of it: ``ServeSettings``."""

    models: tuple[str, ...] = _option([], "[NAME=]PATH of a model directory, a root of many, a version or an artifact")
    tables: tuple[ServedModel, ...] = _option([], "the models of the file of settings")
    batching_table: BatchingParameters | None = field(default=None)
    """The table ``[batching]`` of the file of settings."""
    without_effect: tuple[str, ...] = _option([], "flags of TensorFlow Serving that were given and change nothing here")
    config: str = _option("", "file with any of these options and models, in TOML", metavar="FILE")
    listen: tuple[str, ...] = _option(
        [],
        "address to listen on, every wire on each; repeatable; port 0 takes a free one",
        metavar="[HOST:]PORT|unix:PATH",
    )
    host: str = _option("127.0.0.1", "interface for --port and --rest_api_port")
    port: int | None = _option(
        None, "gRPC port, as TensorFlow Serving's; 0 is off", metavar="PORT", least=0, most=HIGHEST_PORT
    )
    rest_api_port: int | None = _option(
        None, "REST port, as TensorFlow Serving's; 0 is off", metavar="PORT", least=0, most=HIGHEST_PORT
    )
    tls_certificate: str = _option(
        "", "certificate chain in PEM: every TCP port speaks TLS alone", metavar="FILE", is_path=True
    )
    tls_key: str = _option("", "its private key; by default in the same file", metavar="FILE", is_path=True)
    ssl_config_file: str = _option(
        "", "the same as a text protobuf SSLConfig, with the PEM text in it", metavar="FILE", is_path=True
    )
    tls_client_ca: str = _option(
        "", "authorities in PEM that sign certificates of clients", metavar="FILE", is_path=True
    )
    tls_client_auth: str = _option(
        "none", "whether clients must show a certificate of those authorities", choices=tuple(CLIENT_AUTH)
    )
    api_keys_file: str = _option(
        "",
        "keys in TOML that requests over TCP must come with, each for some models or for all",
        metavar="FILE",
        is_path=True,
    )
    admin_listen: tuple[str, ...] = _option(
        [],
        "address of the operator's own port: metrics, the overview and changes of what is served are offered there, "
        "and not on the other ports",
        metavar="[HOST:]PORT|unix:PATH",
    )
    grpc_socket_path: str = _option("", "Unix socket for gRPC, as TensorFlow Serving's", metavar="PATH", is_path=True)
    model_name: str = _option("", "name of the model at --model_base_path (default: default)", metavar="NAME")
    model_base_path: str = _option("", "directory with integer version directories", metavar="PATH", is_path=True)
    model_config_file: str = _option(
        "", "text protobuf ModelServerConfig with one or many models", metavar="FILE", is_path=True
    )
    model_config_file_poll_wait_seconds: float = _option(
        0.0, "seconds between looks at --model_config_file; 0 or less reads it once", metavar="S"
    )
    allow_version_labels_for_unavailable_models: bool = _option(
        False, "let a new label name a version that is not available (yet)"
    )
    engine: str = _option("", "engine for every model instead of the one that correctness chooses", metavar="NAME")
    plan: str = _option(
        "auto",
        "follow a plan of servable tune: the one that the cache has for a model here, none, or that of a file",
        metavar="auto|off|FILE",
        is_path=True,
    )
    device: str = _option("cpu", "where models compute", choices=("cpu",))
    file_system_poll_wait_seconds: float = _option(1.0, "seconds between scans for versions; 0 scans once", metavar="S")
    num_load_threads: int = _option(
        0, "versions loaded at once after the start; 0 is one at a time", metavar="N", least=0
    )
    num_unload_threads: int = _option(0, "versions unloaded at once; 0 is one at a time", metavar="N", least=0)
    max_num_load_retries: int = _option(5, "attempts after a failed load", metavar="N", least=0)
    load_retry_interval_micros: int = _option(60_000_000, "pause between these attempts", metavar="US")
    version_transition: str = _option(
        "availability_preserving",
        "load the new version before the old one goes, or after",
        choices=(
            "availability_preserving",
            "resource_preserving",
        ),
    )
    startup: str = _option(
        "auto",
        "open the ports at once, or wait until the models are loaded; auto waits with TensorFlow Serving's port flags",
        choices=("auto", "open", "wait"),
    )
    startup_timeout_s: float = _option(
        0.0, "fail if not every model is available after so long; 0 waits for ever", metavar="S", least=0
    )
    batching: str = _option(
        "auto",
        "merge rows of different requests where warm-up proved that they are independent",
        choices=("auto", "off"),
    )
    enable_batching: bool = _option(
        False, "merge rows of different requests by TensorFlow Serving's parameters instead"
    )
    batching_parameters_file: str = _option(
        "", "these parameters: a text protobuf BatchingParameters", metavar="FILE", is_path=True
    )
    enable_per_model_batching_parameters: bool = _option(
        False, "take them from batching_params.pbtxt in each version; what has none is not batched"
    )
    max_batch_rows: int = _option(BatchingOptions().max_rows, "rows of a merged batch at most", metavar="N", least=1)
    max_queued_requests: int = _option(
        BatchingOptions().max_queued,
        "requests a version may have waiting; more are refused UNAVAILABLE",
        metavar="N",
        least=1,
    )
    enable_model_warmup: bool = _option(
        True,
        "before a version becomes available, run the requests in its assets.extra/tf_serving_warmup_requests, and each "
        "signature on invented rows",
    )
    num_request_iterations_for_warmup: int = _option(
        0, "how often each request of that file is run; 0 is once", metavar="N", least=0
    )
    tensorflow_session_parallelism: int = _option(0, "sets the two that follow, where they are 0", metavar="N", least=0)
    tensorflow_intra_op_parallelism: int = _option(
        0, "threads within an operation, any engine; 0 asks the CPU quota", metavar="N", least=0
    )
    tensorflow_inter_op_parallelism: int = _option(
        0, "threads between operations; 0 lets the engine choose", metavar="N", least=0
    )
    tensorflow_session_config_file: str = _option(
        "", "text protobuf tensorflow.ConfigProto; of it the two numbers of threads count", metavar="FILE", is_path=True
    )
    platform_config_file: str = _option(
        "",
        "text protobuf PlatformConfigMap; it replaces the flags of batching, sessions, tags and warm-up",
        metavar="FILE",
        is_path=True,
    )
    allow_python: bool = _option(
        False,
        "let models and transforms in roots, configuration files and settings files run Python, not only those whose "
        "own path is on the command line",
    )
    child_timeout_s: float = _option(
        0.0,
        "seconds a call may take in a model's own process (Python, transforms, TensorFlow) before that is killed and "
        "started again; 0 is any time",
        metavar="S",
        least=0,
    )
    child_memory_mb: int = _option(
        0,
        "MiB that a model's own process may take, mapped files not counted, before it is killed and started again; "
        "0 is any amount",
        metavar="MIB",
        least=0,
    )
    saved_model_tags: str = _option("serve", "comma-separated tags of the graph in a SavedModel", metavar="TAGS")
    rest_api_timeout_in_ms: int = _option(30_000, "time a REST request may take; 0 or less is unlimited", metavar="MS")
    rest_api_enable_cors_support: bool = _option(False, "let scripts of other origins call the REST API")
    rest_api_gzip_bytes: int = _option(
        RestOptions().gzip_bytes,
        "least size of a reply that is compressed for clients that accept gzip; 0 compresses none",
        metavar="N",
        least=0,
    )
    grpc_compression: str = _option(
        "off",
        "compress replies over gRPC that become smaller by it, for clients that accept the encoding",
        choices=("off", "gzip", "deflate"),
    )
    enable_signature_method_name_check: bool = _option(
        False, "refuse signatures whose method name is not that of the method that was called"
    )
    enable_serialization_as_tensor_content: bool = _option(
        False, "answer Predict over gRPC with tensor_content instead of typed values"
    )
    enable_profiler: bool = _option(True, "answer tensorflow.ProfilerService with profiles of the request path")
    monitoring_config_file: str = _option(
        "", "text protobuf MonitoringConfig: where Prometheus finds the metrics", metavar="FILE", is_path=True
    )
    monitoring_path: str = _option("", "the same as a path of the REST ports, beside /metrics", metavar="PATH")
    grpc_channel_arguments: str = _option(
        "", "comma-separated NAME=VALUE of gRPC; those that ours correspond to count", metavar="LIST"
    )
    max_body: int = _option(Limits().max_body // MIB, "largest request accepted, in MiB", metavar="MIB", least=1)
    drain_timeout_s: float = _option(30.0, "how long SIGTERM waits for requests in work", metavar="S", least=0)
    max_connection_age_s: float = _option(
        0.0, "let a gRPC client connect anew after so long, give or take a tenth; 0 = never", metavar="S", least=0
    )
    max_connection_age_grace_s: float = _option(
        30.0, "how long calls may go on after that before their connection is cut", metavar="S", least=0
    )
    keepalive_interval_s: float = _option(
        7200.0, "ask a silent gRPC client for a sign of life after so long; it has 20 s to answer", metavar="S", least=1
    )
    min_ping_interval_s: float = _option(
        5.0,
        "least time between PINGs of a gRPC client; the third that is too early ends its connection",
        metavar="S",
        least=0,
    )
    access_log: str = _option(
        "off",
        "one line for each request: off, - for stderr, or a file, which SIGHUP opens anew",
        metavar="off|-|FILE",
        is_path=True,
    )
    log_level: str = _option("info", "least severe log lines shown", choices=("debug", "info", "warning", "error"))
    log_format: str = _option(
        "auto",
        "console for people, json for machines; auto asks whether stderr is a terminal",
        choices=("auto", "console", "json"),
    )


NOT_OPTIONS = frozenset({"models", "tables", "batching_table", "without_effect"})
"""Fields without a flag of their own."""


def option_fields() -> list[Field[Any]]:
    """Return the declared options, for flags, files and documentation."""
    return [item for item in fields(ServeOptions) if item.name not in NOT_OPTIONS]


def models_help() -> str:
    """Return what a model on the command line may be."""
    return str(next(item for item in fields(ServeOptions) if item.name == "models").metadata["help"])
