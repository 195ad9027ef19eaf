"""Every flag of TensorFlow Serving's ``main.cc``: which work as there, which are mapped, which change nothing and why.

Those that work or are mapped are options, declared with all others; what has no effect is declared here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from servable.core.errors import invalid_argument
from servable.settings.values import value_of


@dataclass(frozen=True, slots=True)
class IdleFlag:
    """A flag that is read, checked for its type, and has no effect. ``refused`` is a value that cannot be ignored."""

    kind: type
    reason: str
    refused: str = ""
    advice: str = ""


_GPU = "models compute on CPUs"
_TFLITE = 'a SavedModel goes before model.tflite unless its servable.toml says artifact = "model.tflite"'
_INTERPRETERS = "a TFLite model has one interpreter, whose threads are those of --tensorflow_intra_op_parallelism"
_ENGINES = "the engine that was chosen for a model decides how its graph is compiled"
IDLE = {
    "rest_api_num_threads": IdleFlag(int, "one event loop answers all connections, and engines have their own threads"),
    "grpc_max_threads": IdleFlag(int, "one event loop answers all connections, and engines have their own threads"),
    "flush_filesystem_caches": IdleFlag(bool, "nothing of the file system is cached beyond what the kernel does"),
    "use_alts_credentials": IdleFlag(
        bool, "there is no ALTS", "true", "this server does not speak ALTS; use --ssl_config_file or --tls_certificate"
    ),
    "per_process_gpu_memory_fraction": IdleFlag(float, _GPU),
    "remove_unused_fields_from_bundle_metagraph": IdleFlag(bool, "only signatures are kept of a graph's description"),
    "prefer_tflite_model": IdleFlag(bool, _TFLITE),
    "num_tflite_pools": IdleFlag(int, _INTERPRETERS),
    "num_tflite_interpreters_per_pool": IdleFlag(int, _INTERPRETERS),
    "xla_cpu_compilation_enabled": IdleFlag(bool, _ENGINES),
    "xla_gpu_compilation_enabled": IdleFlag(bool, _GPU),
    "thread_pool_factory_config_file": IdleFlag(str, "each model has threads of its own"),
    "mixed_precision": IdleFlag(str, "every engine computes at f32: reduced precision is never silent"),
    "skip_initialize_tpu": IdleFlag(bool, _GPU),
    "enable_grpc_healthcheck_service": IdleFlag(bool, "grpc.health.v1 always answers"),
}
"""Name -> why giving it changes nothing, after "accepted, no effect because"."""

WORKING = {
    "port": "",
    "grpc_socket_path": "",
    "rest_api_port": "may equal `--port`: then that port speaks both",
    "rest_api_timeout_in_ms": "",
    "rest_api_enable_cors_support": "",
    "enable_batching": "",
    "allow_version_labels_for_unavailable_models": "",
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": "",
    "model_config_file": "beside models that are named on the command line too",
    "model_config_file_poll_wait_seconds": "",
    "model_name": "",
    "model_base_path": "",
    "num_load_threads": "",
    "num_unload_threads": "",
    "max_num_load_retries": "errors that a retry cannot mend end at once",
    "load_retry_interval_micros": "",
    "file_system_poll_wait_seconds": "fractions too",
    "tensorflow_session_config_file": "its numbers of threads",
    "ssl_config_file": "REST ports speak TLS too, Unix sockets do not",
    "platform_config_file": "the platform tensorflow",
    "saved_model_tags": "",
    "enable_model_warmup": "without a file of requests invented rows are run",
    "num_request_iterations_for_warmup": "",
    "enable_profiler": "a profile comes with the reply and is never written where a client says",
    "monitoring_config_file": "`/metrics` is there in any case",
    "enable_serialization_as_tensor_content": "",
    "enable_signature_method_name_check": "",
    "version": "prints and ends",
}
"""Name -> what differs; "" is nothing."""

MAPPED = {
    "tensorflow_session_parallelism": "to the two flags that follow it, for any engine",
    "tensorflow_intra_op_parallelism": "to the threads of any engine, not TensorFlow's alone",
    "tensorflow_inter_op_parallelism": "to the threads of any engine, not TensorFlow's alone",
    "grpc_channel_arguments": "to our own limits, by the name of each argument",
}
"""Name -> to what."""


def idle_line(name: str) -> str:
    """Return the line that is printed at start for a flag without effect."""
    return f"--{name}: accepted, no effect because {IDLE[name].reason}"


def check_idle(name: str, text: str) -> str:
    """Return the name of a flag whose value has the right type; ``ValueError`` says what would be right."""
    flag = IDLE[name]
    value = value_of(flag.kind, text)
    if flag.refused and str(value).lower() == flag.refused:
        raise ValueError(flag.advice)
    return name


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what somebody who wrote this flag probably meant, or ""."""
    plain = name.lstrip("-").replace("-", "_").lower()
    known = list(known)
    if plain in known:
        return plain
    found = difflib.get_close_matches(plain, known, 1)
    return found[0] if found else ""


def refuse_unknown(words: Iterable[str], known: frozenset[str], booleans: frozenset[str]) -> None:
    """Raise INVALID_ARGUMENT for the first word that looks like a flag and is none."""
    for word in words:
        name = word.partition("=")[0]
        is_number = name[1:2].isdigit()  # the value of the word before
        if not name.startswith("-") or name == "-" or is_number or name in {"-h", "--help"}:
            continue
        bare = name[2:] if name.startswith("--") else ""
        if bare in known or (bare.startswith("no") and bare[2:] in booleans):
            continue
        near = nearest(name, known)
        advice = f"did you mean --{near}?" if near else "--help lists those there are"
        raise invalid_argument(f"there is no flag {name}; {advice}")
