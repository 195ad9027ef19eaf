from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from servable.app import EVERY_WIRE, listen_addresses
from servable.core.errors import Code, ServingError
from servable.lifecycle.config import All, Latest, Specific, Transition
from servable.settings import ServeSettings, add_flags, option_fields, read_model_config_file, read_settings, spell_out


def parse(*words: str, environment: dict[str, str] | None = None) -> ServeSettings:
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_flags(parser)
    return read_settings(vars(parser.parse_args(spell_out(words))), environment or {})


def test_without_flags_everything_has_its_default() -> None:
    assert parse() == ServeSettings()


def test_a_flag_wins_over_the_environment() -> None:
    environment = {"SERVABLE_MAX_BATCH_ROWS": "8", "SERVABLE_HOST": "::1", "SERVABLE_LISTEN": "1,2"}
    found = parse("--max_batch_rows=16", environment=environment)
    assert (found.max_batch_rows, found.host, found.listen) == (16, "::1", ("1", "2"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--enable_model_warmup"], True),
        (["--enable_model_warmup=true"], True),
        (["--enable_model_warmup=0"], False),
        (["--enable_model_warmup=False"], False),
        ([], True),
    ],
)
def test_booleans(words: list[str], expected: bool) -> None:
    assert parse(*words).enable_model_warmup is expected


def test_a_bare_boolean_does_not_swallow_a_model() -> None:
    assert parse("--enable_model_warmup", "models/m").models == ("models/m",)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("--port=x", "expected a whole number, not 'x'"),
        ("--port=65536", "expected 0 to 65535, not 65536"),
        ("--max_queued_requests=0", "expected at least 1, not 0"),
        ("--drain_timeout_s=inf", "expected a finite number"),
        ("--batching=fast", "expected one of auto, off, not 'fast'"),
        ("--device=cuda", "expected cpu, not 'cuda'"),
        ("--enable_model_warmup=maybe", "expected true, false, 1 or 0"),
    ],
)
def test_wrong_flags_are_refused(word: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=reason):
        parse(word)


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("--prot=1", r"there is no flag --prot; did you mean --port\?"),
        ("--enable-batching", r"did you mean --enable_batching\?"),
        ("-port=1", r"there is no flag -port; did you mean --port\?"),
        ("--noport", r"there is no flag --noport; did you mean --port\?"),
        ("--qqq", "there is no flag --qqq; --help lists those there are"),
    ],
)
def test_flags_that_do_not_exist_are_refused_with_advice(word: str, advice: str) -> None:
    with pytest.raises(ServingError, match=advice):
        parse(word)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SERVABLE_PORT", "x", "SERVABLE_PORT is 'x'"),
        ("SERVABLE_ENABLE_MODEL_WARMUP", "maybe", "expected true, false, 1 or 0"),
        ("SERVABLE_LOG_LEVEL", "loud", "expected one of debug, info, warning, error"),
    ],
)
def test_a_wrong_environment_variable_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(ServingError, match=words) as raised:
        parse(environment={variable: value})
    assert raised.value.code is Code.INVALID_ARGUMENT


def test_every_option_has_a_help_text() -> None:
    assert all(item.metadata["help"] for item in option_fields())


def test_each_part_gets_its_options() -> None:
    found = parse(
        "--file_system_poll_wait_seconds=0.5", "--load_retry_interval_micros=2000000", "--max_num_load_retries=1",
        "--version_transition=resource_preserving", "--max_body=2", "--rest_api_timeout_in_ms=0",
        "--tensorflow_intra_op_parallelism=3", "--saved_model_tags=serve,gpu", "--batching=off",
    )  # fmt: skip
    manager = found.manager_options()
    assert (manager.poll_s, manager.load_retry_interval_s, manager.max_load_retries) == (0.5, 2.0, 1)
    assert manager.transition is Transition.RESOURCE_PRESERVING
    assert found.limits().max_body == 2 * 1024 * 1024
    assert found.rest_options().timeout_s is None
    assert found.engine_options().intra_op_threads == 3
    assert found.engine_options().saved_model_tags == ("serve", "gpu")
    assert found.batching_options().mode == "off"


CONFIG = """
model_config_list: {
  config: { name: "a", base_path: "/models/a", model_platform: "tensorflow", model_version_policy: { all: {} } },
  config: {
    name: "b", base_path: "/models/b",
    model_version_policy { specific { versions: 3 versions: 5 } }
    version_labels { key: "stable" value: 3 }
  }
  config { name: "c" base_path: "/models/c" model_version_policy { latest { num_versions: 2 } } }
  config { name: "d" base_path: "/models/d" }
}
"""


def test_a_model_config_file(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(CONFIG)
    a, b, c, d = (model.config for model in read_model_config_file(path))
    assert (a.name, a.base_path, a.policy) == ("a", Path("/models/a"), All())
    assert (b.policy, dict(b.labels)) == (Specific((3, 5)), {"stable": 3})
    assert (c.policy, d.policy) == (Latest(2), Latest(1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_config_list { config { nme: 'a' } }", r"models.config.*1.*nme"),
        ("model_config_list { config { name: 'a' base_path: 'relative' } }", "absolute path or URI"),
        ("model_config_list { config { base_path: '/a' } }", "no name"),
        ("model_config_list { config { name: 'a' base_path: '/a' model_platform: 'x' } }", "unsupported platform x"),
        ("custom_model_config { }", "custom_model_config is not supported"),
    ],
)
def test_a_wrong_model_config_file_is_explained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ServingError, match=words):
        read_model_config_file(path)


def test_a_missing_model_config_file(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot read .*none: No such file"):
        read_model_config_file(tmp_path / "none")


def test_models_from_the_command_line(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "1").mkdir(parents=True)
    by_flag = parse(f"--model_base_path={tmp_path}/one", "--engine=openvino").model_configs()
    assert [(config.name, config.engine) for config in by_flag] == [("default", "openvino")]
    named = parse("--model_name=m=n", f"--model_base_path={tmp_path}/one", f"x={tmp_path}/two").model_configs()
    assert [config.name for config in named] == ["m=n", "x"]
    with pytest.raises(ServingError, match="two models are called 'one'"):
        parse(f"one={tmp_path}/two", f"{tmp_path}/one").model_configs()


GRPC, REST = frozenset({"h2"}), frozenset({"h1"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("127.0.0.1:8500", EVERY_WIRE), ("127.0.0.1:8501", EVERY_WIRE)]),
        (["--listen=9000"], [("9000", EVERY_WIRE)]),
        (["--port=1", "--rest_api_port=2"], [("127.0.0.1:1", GRPC), ("127.0.0.1:2", REST)]),
        (["--port=1"], [("127.0.0.1:1", GRPC)]),
        (["--port=0", "--rest_api_port=2", "--host=0.0.0.0"], [("0.0.0.0:2", REST)]),
        (["--port=3", "--rest_api_port=3"], [("127.0.0.1:3", EVERY_WIRE)]),
        (["--grpc_socket_path=/s", "--listen=1"], [("1", EVERY_WIRE), ("unix:/s", GRPC)]),
    ],
)
def test_which_port_speaks_what(words: list[str], expected: list[tuple[str, frozenset[str]]]) -> None:
    assert [place[:2] for place in listen_addresses(parse(*words))] == expected


def test_all_ports_off_is_an_error() -> None:
    with pytest.raises(ServingError, match="every port is off"):
        listen_addresses(parse("--port=0"))


def test_the_operators_port_is_his_own() -> None:
    places = listen_addresses(parse("--port=1", "--admin_listen=2", "--admin_listen=unix:/s"))
    assert [(place.address, place.wires, place.is_operators) for place in places] == [
        ("127.0.0.1:1", GRPC, False),
        ("2", EVERY_WIRE, True),
        ("unix:/s", EVERY_WIRE, True),
    ]
    assert [place.is_socket for place in places] == [False, False, True]
    with pytest.raises(ServingError, match=r"--admin_listen 127.0.0.1:1 is a port for everybody too"):
        listen_addresses(parse("--port=1", "--admin_listen=127.0.0.1:1"))
