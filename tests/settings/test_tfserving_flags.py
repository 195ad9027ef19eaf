"""Every flag of TensorFlow Serving works, is mapped, or says why it changes nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from servable.cli import main
from servable.cli import tensorflow_model_server as alias
from servable.core.errors import Code, ServingError
from servable.settings import ServeSettings, add_flags, option_fields, read_settings, spell_out
from servable.settings.tfserving_flags import IDLE, MAPPED, WORKING

MAIN_CC = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name model_base_path
num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_session_config_file tensorflow_intra_op_parallelism
tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file
per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup version monitoring_config_file remove_unused_fields_from_bundle_metagraph
prefer_tflite_model num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file
mixed_precision skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
""".split()  # noqa: SIM905  # a list of seventy lines would hide what is missing
BOOLEANS = """
rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models
enable_per_model_batching_parameters flush_filesystem_caches use_alts_credentials enable_model_warmup
remove_unused_fields_from_bundle_metagraph prefer_tflite_model enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler skip_initialize_tpu
enable_grpc_healthcheck_service enable_serialization_as_tensor_content
""".split()  # noqa: SIM905  # a list of seventy lines would hide what is missing
DEFAULTS: dict[str, Any] = {
    "rest_api_timeout_in_ms": 30000, "max_num_load_retries": 5, "load_retry_interval_micros": 60_000_000,
    "file_system_poll_wait_seconds": 1, "saved_model_tags": "serve", "enable_model_warmup": True,
    "model_config_file_poll_wait_seconds": 0, "num_load_threads": 0, "num_unload_threads": 0, "enable_batching": False,
}  # fmt: skip


def parse(*words: str) -> ServeSettings:
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_flags(parser)
    return read_settings(vars(parser.parse_args(spell_out(words))), {})


@pytest.mark.rule("flag-1")
def test_every_flag_of_main_cc_is_declared_once() -> None:
    options = {item.name for item in option_fields()} | {"version"}
    assert sorted([*WORKING, *MAPPED, *IDLE]) == sorted(MAIN_CC)
    assert {*WORKING, *MAPPED} <= options
    assert not options & IDLE.keys()


@pytest.mark.rule("flag-1")
def test_defaults_are_those_of_tensorflow_serving() -> None:
    found = ServeSettings()
    assert {name: getattr(found, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", sorted({*WORKING, *MAPPED} - {"version"}))
@pytest.mark.rule("flag-1")
def test_a_flag_that_works_takes_its_values_and_prints_nothing(name: str) -> None:
    item = next(item for item in option_fields() if item.name == name)
    text = "true" if name in BOOLEANS else item.metadata["choices"][-1] if item.metadata["choices"] else "1"
    found = parse(f"--{name}={text}")
    assert str(getattr(found, name)).lower() in {text, f"{text}.0"}
    assert parse(f"--{name}", text) == found or name in BOOLEANS
    assert found.without_effect == ()


@pytest.mark.parametrize("name", sorted(IDLE))
@pytest.mark.rule("flag-1")
def test_a_flag_without_effect_prints_one_line(name: str) -> None:
    flag = IDLE[name]
    text = {bool: "false", int: "4", float: "0.5", str: "x"}[flag.kind]
    found = parse(f"--{name}={text}", f"--{name}={text}")
    assert {**{item.name: getattr(found, item.name) for item in option_fields()}} == {
        item.name: getattr(ServeSettings(), item.name) for item in option_fields()
    }
    lines = found.idle_lines()
    if name == "use_alts_credentials":
        assert lines == []  # that it is off asks for nothing
    else:
        assert lines == [f"--{name}: accepted, no effect because {flag.reason}"]


@pytest.mark.parametrize("name", sorted(name for name in IDLE if IDLE[name].kind is not str))
@pytest.mark.rule("flag-3")
def test_a_flag_without_effect_still_has_a_type(name: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="expected"):
        parse(f"--{name}=x")


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.rule("flag-2")
def test_booleans_in_all_spellings(name: str) -> None:
    def value(word: str) -> Any:
        found = parse(word, "/models/m")
        assert found.models == ("/models/m",)
        return found.without_effect if name in IDLE else getattr(found, name)

    refused = name == "use_alts_credentials"
    spellings = [f"--no{name}", f"--{name}=false", f"--{name}=0"]
    assert len({value(word) for word in spellings}) == 1
    if not refused:
        on = {value(word) for word in (f"--{name}", f"--{name}=true", f"--{name}=1", f"--{name}=True")}
        assert on == ({(name,)} if name in IDLE else {True})


@pytest.mark.rule("flag-12")
def test_alts_is_refused_and_not_ignored() -> None:
    with pytest.raises(argparse.ArgumentError, match="does not speak ALTS; use --ssl_config_file"):
        parse("--use_alts_credentials")


def test_negative_values_are_no_flags() -> None:
    assert parse("--load_retry_interval_micros", "-1").load_retry_interval_micros == -1
    assert parse("--file_system_poll_wait_seconds=-1").manager_options().poll_s == -1


# -- what is mapped -----------------------------------------------------------------------------------------------


@pytest.mark.rule("flag-10")
def test_session_parallelism_sets_both() -> None:
    both = parse("--tensorflow_session_parallelism=3").engine_options()
    assert (both.intra_op_threads, both.inter_op_threads) == (3, 3)
    mixed = parse("--tensorflow_session_parallelism=3", "--tensorflow_inter_op_parallelism=1").engine_options()
    assert (mixed.intra_op_threads, mixed.inter_op_threads) == (3, 1)
    with pytest.raises(ServingError, match="sets both") as raised:
        parse(
            "--tensorflow_session_parallelism=3", "--tensorflow_inter_op_parallelism=1",
            "--tensorflow_intra_op_parallelism=1",
        ).engine_options()  # fmt: skip
    assert raised.value.code is Code.INVALID_ARGUMENT


def test_load_threads_and_labels_reach_the_manager() -> None:
    found = parse("--num_load_threads=4", "--num_unload_threads=2", "--allow_version_labels_for_unavailable_models")
    options = found.manager_options()
    assert (options.load_threads, options.unload_threads, options.labels_before_versions) == (4, 2, True)
    assert parse().manager_options().unload_threads == 1


@pytest.mark.rule("service-10")
def test_channel_arguments_become_limits() -> None:
    found = parse(
        "--grpc_channel_arguments=grpc.max_concurrent_streams=7,grpc.max_connection_age_ms=1500,"
        "grpc.keepalive_timeout_ms=2500,grpc.max_receive_message_length=-1,grpc.lb_policy_name=x"
    )
    limits = found.limits()
    assert (limits.max_concurrent_streams, limits.max_connection_age_s, limits.keepalive_timeout_s) == (7, 1.5, 2.5)
    assert limits.max_body == ServeSettings().limits().max_body
    assert [line.split(": ")[1] for line in found.idle_lines()] == [
        "grpc.max_receive_message_length", "grpc.lb_policy_name",
    ]  # fmt: skip
    assert parse("--grpc_channel_arguments=grpc.max_connection_age_ms=2147483647").limits() == ServeSettings().limits()


@pytest.mark.parametrize(
    ("text", "words"),
    [("x", "expected NAME=VALUE, not 'x'"), ("grpc.max_concurrent_streams=0", "at least 1, not 0"),
     ("grpc.keepalive_time_ms=soon", "expected a whole number, not 'soon'")],
)  # fmt: skip
def test_wrong_channel_arguments_are_refused(text: str, words: str) -> None:
    with pytest.raises(ServingError, match=words):
        parse(f"--grpc_channel_arguments={text}").limits()


# -- doctor --flags -----------------------------------------------------------------------------------------------


def explain(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    code = main(["doctor", "--json", "--flags", line])
    document = json.loads(capsys.readouterr().out)
    assert document["works"] is (code == 0)
    return code, {item["flag"]: (item["verdict"], item["note"]) for item in document["flags"]}


def test_the_doctor_explains_an_old_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, flags = explain(
        "docker run -p 8501:8501 -t tensorflow/serving --port=8500 --enable_batching --noenable_profiler "
        "--rest_api_num_threads 4 --tensorflow_session_parallelism=2 --model_config_file=/elsewhere/models.config",
        capsys,
    )
    assert code == 0
    assert {flag: verdict for flag, (verdict, _) in flags.items()} == {
        "--port=8500": "works", "--enable_batching": "works", "--noenable_profiler": "works",
        "--rest_api_num_threads=4": "no effect", "--tensorflow_session_parallelism=2": "mapped",
        "--model_config_file=/elsewhere/models.config": "works",
    }  # fmt: skip


def test_the_doctor_names_what_would_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "models.config"
    config.write_text("model_config_list { config { nme: 'x' } }")
    code, flags = explain(
        f"--rest-api-port=1 --port=x -port=1 --xla_cpu_compilation_enabled=maybe --zzz --model_name "
        f"--model_config_file={config} --listen=1",
        capsys,
    )
    assert code == 1
    assert flags["--rest-api-port=1"] == ("unknown", "did you mean --rest_api_port?")
    assert flags["-port=1"] == ("unknown", "did you mean --port?")
    assert flags["--zzz"] == ("unknown", "there is nothing like it")
    assert flags["--port=x"][0] == flags["--xla_cpu_compilation_enabled=maybe"][0] == "wrong value"
    assert flags["--model_name"] == ("wrong value", "it needs a value: --flag=VALUE")
    assert flags["--listen=1"][0] == "ours"
    assert "did you mean 'name'" in flags["--model_config_file"][1]


def test_the_doctor_reads_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = tmp_path / "session.config"
    session.write_text("allow_soft_placement: true")
    code, flags = explain(f"tensorflow_model_server --tensorflow_session_config_file={session}", capsys)
    assert code == 0
    assert flags[f"{session}:1:1: allow_soft_placement"][0] == "no effect"


# -- the command tensorflow_model_server --------------------------------------------------------------------------


@pytest.mark.rule("flag-5")
def test_it_prints_its_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert alias.main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("TensorFlow ModelServer: servable ")
    assert second.startswith("TensorFlow Library: ")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 255, "Failed to start server. Error: INVALID_ARGUMENT: Both server_options.model_base_path and"),
        (["--port=0", "--model_base_path=/m"], 255, "At least one of server_options.grpc_port or"),
        (["--model_config_file=/none/models.config"], 255, "Error: NOT_FOUND: cannot read /none/models.config"),
        (["--prot=1"], 2, "tensorflow_model_server: there is no flag --prot; did you mean --port?"),
    ],
)
@pytest.mark.rule("flag-3", "flag-4", "flag-6")
def test_it_says_why_it_does_not_start(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert alias.main(words) == code
    printed = capsys.readouterr()
    assert text in printed.out + printed.err


def test_it_is_a_command_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["tensorflow_model_server"] == "servable.cli.tensorflow_model_server:main"


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, "info"),
        ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "info"),
        ({"TF_CPP_MIN_LOG_LEVEL": "1"}, "warning"),
        ({"TF_CPP_MIN_LOG_LEVEL": "3"}, "error"),
        ({"TF_CPP_MIN_LOG_LEVEL": "x"}, "info"),
        ({"TF_CPP_MAX_VLOG_LEVEL": "2", "TF_CPP_MIN_LOG_LEVEL": "3"}, "debug"),
    ],
)
@pytest.mark.rule("flag-13")
def test_it_takes_tensorflows_log_levels(environment: dict[str, str], level: str) -> None:
    assert alias._log_level(environment) == level
