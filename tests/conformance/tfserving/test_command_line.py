"""``tensorflow_model_server`` as scripts start it: every flag at once, and starts that fail with their words."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.conformance.tfserving.rest import call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

COMMAND = "servable.cli.tensorflow_model_server"
HEALTH = "/grpc.health.v1.Health/Check"
WITHIN_S = 45.0


class ModelServer(ServerProcess):
    """``tensorflow_model_server``."""

    program = (COMMAND,)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# -- starts that fail --------------------------------------------------------------------------------------------------

FAILED = "Failed to start server. Error: "
STARTS = {
    "version": ("--version", 0, "TensorFlow ModelServer: "),
    "nothing": ("", 255, f"{FAILED}INVALID_ARGUMENT: Both server_options.model_base_path and"),
    "no_port": ("--port=0 --model_base_path=/m", 255, "At least one of server_options.grpc_port or"),
    "batching": ("--model_base_path=/m --batching_parameters_file=/b", 255, "enable_batching"),
    "threads": (
        (
            "--model_base_path=/m --tensorflow_session_parallelism=1 --tensorflow_intra_op_parallelism=1 "
            "--tensorflow_inter_op_parallelism=1"
        ),
        255,
        "sets both",
    ),
    "alts": ("--model_base_path=/m --use_alts_credentials", 2, "does not speak ALTS"),
    "type": ("--model_base_path=/m --port=http", 2, "--port"),
    "unknown": ("--model_base_path=/m --enable_batchin", 2, "did you mean --enable_batching?"),
    "config": ("--model_config_file=CONFIG", 255, "Invalid protobuf file: 'CONFIG'"),
    "place": ("--model_config_file=CONFIG", 255, "CONFIG:2:12: tensorflow.serving.ModelConfig has no field 'nam'"),
    "ssl": ("--model_base_path=/m --ssl_config_file=SSL", 255, "server_key"),
}
"""Words, exit code, and what is printed. CONFIG and SSL are files that are wrong."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Code and output of each of them; they run beside each other."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "CONFIG").write_text("model_config_list {\n  config { nam: 'x' } }")
    (folder / "SSL").write_text("server_cert: 'none'")
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", COMMAND, *words.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )
        for name, (words, _, _) in STARTS.items()
    }
    found = {}
    for name, process in started.items():
        with process:
            output, _ = process.communicate(timeout=WITHIN_S)
            found[name] = (process.returncode, output)
    return found


@pytest.mark.rule("flag-3", "flag-4", "flag-5", "flag-6", "flag-9", "flag-10", "flag-12", "file-2", "tls-1")
@pytest.mark.parametrize("name", STARTS)
def test_starts_that_end_at_once(ended: dict[str, tuple[int, str]], name: str) -> None:
    _, code, words = STARTS[name]
    found, output = ended[name]
    assert words in output
    assert found == code
    if code == 255:
        assert FAILED in output


# -- one that has every flag -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: LiveModels) -> Path:
    made = tmp_path_factory.mktemp("flags")
    base = models.onnx("half_plus_two")
    (made / "models.config").write_text(f"model_config_list: {{ config: {{ name: 'half', base_path: '{base}', }}, }}")
    (made / "batching.config").write_text("max_batch_size { value: 8 }")
    (made / "monitor.config").write_text('prometheus_config: { enable: true, path: "/a/path" }')
    (made / "session.config").write_text("intra_op_parallelism_threads: 1 allow_soft_placement: true")
    return made


@pytest.fixture(scope="module")
def full(folder: Path) -> Iterator[ModelServer]:
    ports = f"--port={free_port()} --rest_api_port={free_port()} --grpc_socket_path={folder}/socket"
    rest = "--rest_api_num_threads=8 --rest_api_timeout_in_ms=5000 --rest_api_enable_cors_support=1"
    models = (
        f"--model_config_file={folder}/models.config --model_config_file_poll_wait_seconds=60 --model_name=other "
        "--allow_version_labels_for_unavailable_models=false --saved_model_tags=serve"
    )
    loading = (
        "--num_load_threads=2 --num_unload_threads=1 --max_num_load_retries=1 --load_retry_interval_micros=-1 "
        "--file_system_poll_wait_seconds=1 --noflush_filesystem_caches --enable_model_warmup "
        "--num_request_iterations_for_warmup=1 --remove_unused_fields_from_bundle_metagraph=true"
    )
    batching = (
        f"--enable_batching --batching_parameters_file={folder}/batching.config "
        "--enable_per_model_batching_parameters=0"
    )
    threads = (
        f"--tensorflow_session_config_file={folder}/session.config --tensorflow_intra_op_parallelism=1 "
        "--tensorflow_inter_op_parallelism=1 --tensorflow_session_parallelism=0 --grpc_max_threads=8 "
        "--per_process_gpu_memory_fraction=0.5 --thread_pool_factory_config_file= --mixed_precision= "
        "--xla_cpu_compilation_enabled=false --xla_gpu_compilation_enabled=false --noskip_initialize_tpu"
    )
    others = (
        "--grpc_channel_arguments=grpc.max_concurrent_streams=50,grpc.lb_policy_name=x --use_alts_credentials=false "
        "--prefer_tflite_model --num_tflite_pools=2 --num_tflite_interpreters_per_pool=1 --enable_profiler=false "
        "--enable_signature_method_name_check=0 --enable_grpc_healthcheck_service=true --ssl_config_file= "
        f"--enable_serialization_as_tensor_content=false --monitoring_config_file={folder}/monitor.config"
    )
    words = f"{ports} {rest} {models} {loading} {batching} {threads} {others}".split()
    with ModelServer(*words, environment={"TF_CPP_MIN_LOG_LEVEL": "0"}) as started:
        yield started.ready()


def tcp(server: ModelServer) -> tuple[str, str]:
    """Return where it speaks gRPC and REST on this machine; its socket comes first in what it prints."""
    assert server.addresses[0].startswith("unix:")
    grpc_port, rest_port = (address.rpartition(":")[2] for address in server.addresses[1:])
    return f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}"


@pytest.mark.rule("flag-1", "flag-2", "flag-7", "rest-1")
def test_every_flag_at_once(full: ModelServer) -> None:
    grpc_address, rest = tcp(full)
    assert set(full.addresses[1:]) == {each.replace("127.0.0.1", "0.0.0.0") for each in (grpc_address, rest)}
    reply = call(rest, "POST", "/v1/models/half:predict", {"instances": [[1.0], [2.0]]})
    assert reply.json == {"predictions": [[2.5], [3.0]]}
    assert reply.headers["access-control-allow-origin"] == "*"
    too_many = call(rest, "POST", "/v1/models/half:predict", {"instances": [[1.0]] * 9})
    assert too_many.error.startswith("Task size 9 is larger than maximum")
    assert call(rest, "GET", "/a/path").status == 200


@pytest.mark.rule("flag-8")
def test_a_config_file_makes_the_name_moot(full: ModelServer) -> None:
    _, rest = tcp(full)
    assert call(rest, "GET", "/v1/models/half").status == 200
    assert call(rest, "GET", "/v1/models/other").status == 404


@pytest.mark.rule("flag-1", "service-10", "file-4", "savedmodel-2")
def test_what_has_no_effect_is_said_once(full: ModelServer) -> None:
    for words in (
        "--rest_api_num_threads: accepted, no effect because",
        "--grpc_max_threads: accepted, no effect because",
        "--prefer_tflite_model: accepted, no effect because",
        "grpc.lb_policy_name: accepted, no effect because",
        "allow_soft_placement",
    ):
        assert full.stderr.count(words) == 1, words


@pytest.mark.rule("service-9", "service-4")
def test_the_socket_speaks_grpc(full: ModelServer, folder: Path) -> None:
    for address in (f"unix:{folder}/socket", tcp(full)[0]):
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary(HEALTH)(b"", timeout=10) == b"\x08\x01"


@pytest.mark.rule("service-11", "service-3")
def test_the_profiler_can_be_off(full: ModelServer) -> None:
    with grpc.insecure_channel(tcp(full)[0]) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/tensorflow.ProfilerService/Monitor")(b"", timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
