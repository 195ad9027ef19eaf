"""TensorFlow Serving's files become servable.toml and come back with the same meaning; what is lost is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.cli import main
from servable.settings import ServeSettings, read_model_config_file
from servable.settings.file import read_settings_file

MODELS = """
model_config_list {
  config { name: "a" base_path: "/nowhere/a" model_version_policy { all {} } }
  config {
    name: "b" base_path: "/nowhere/b" model_platform: "tensorflow"
    model_version_policy { specific { versions: [1, 3] } }
    version_labels { key: "stable" value: 1 } version_labels { key: "größe 2" value: 3 }
    logging_config { log_collector_config { filename_prefix: "/logs/b" } sampling_config { sampling_rate: 0.25 } }
  }
  config { name: "c" base_path: "/nowhere/c" model_version_policy { latest { num_versions: 3 } } }
}
"""
BATCHING = """
max_batch_size { value: 32 } batch_timeout_micros { value: 1000 } max_enqueued_batches { value: 7 }
num_batch_threads { value: 2 } allowed_batch_sizes: [8, 32] pad_variable_length_inputs: true
enable_large_batch_splitting { value: true } max_execution_batch_size { value: 16 } thread_pool_name { value: "p" }
"""
MONITORING = 'prometheus_config { enable: true path: "/m" }'


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("models.config", "batching.config", "monitoring.config")]
    for path, text in zip(paths, (MODELS, BATCHING, MONITORING), strict=True):
        path.write_text(text)
    return paths


def convert(*words: Path) -> int:
    return main(["config", "convert", *map(str, words)])


def test_there_and_back_nothing_is_lost(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(*files, tmp_path / "servable.toml") == 0
    by_flags = ServeSettings(
        model_config_file=str(files[0]), batching_parameters_file=str(files[1]), enable_batching=True,
        monitoring_config_file=str(files[2]),
    )  # fmt: skip
    by_file = ServeSettings(**read_settings_file(tmp_path / "servable.toml"))
    assert by_file.served_models() == by_flags.served_models()
    assert len(by_file.served_models()) == 3
    assert by_file.batching_options() == by_flags.batching_options()
    assert by_file.batching_options().parameters is not None
    assert by_file.metrics_path() == by_flags.metrics_path() == "/m"
    assert "not expressed" not in capsys.readouterr().err

    assert convert(tmp_path / "servable.toml", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "not expressed" not in printed.err
    assert f"--model_config_file={tmp_path}/out/models.config" in printed.out
    assert "--enable_batching=true" in printed.out
    assert read_model_config_file(tmp_path / "out/models.config") == read_model_config_file(files[0])
    again = [tmp_path / "out" / name for name in ("models.config", "batching.config", "monitoring.config")]
    assert convert(*again, tmp_path / "again.toml") == 0
    assert (tmp_path / "again.toml").read_text() == (tmp_path / "servable.toml").read_text()


def test_what_only_servable_toml_can_say_is_said_to_be_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "servable.toml").write_text(
        """
        listen = ["1"]
        port = 8500
        rest_api_enable_cors_support = true
        [[models]]
        name = "m"
        path = "m"
        engine = "openvino"
        batching = { max_batch_size = 4 }
        canary = { percent = 10 }
        request_log = { filename_prefix = "l", max_files = 3 }
        """
    )
    assert convert(tmp_path / "servable.toml", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "--port=8500 --rest_api_enable_cors_support=true" in printed.out
    lost = [line for line in printed.err.splitlines() if line.startswith("not expressed")]
    assert [line.split(": ")[1] for line in lost] == [
        "model m", "model m", "model m", "model m", 'listen = ["1"]',
    ]  # fmt: skip
    assert "engine" in lost[0]
    assert "copy m.batching_params.pbtxt" in lost[1]
    assert "canary" in lost[2]
    assert "max_files" in lost[3]
    assert "--enable_batching=true --enable_per_model_batching_parameters=true" in printed.out
    assert "value: 4" in (tmp_path / "out/m.batching_params.pbtxt").read_text()


def test_a_model_with_batching_of_its_own_gives_each_model_a_file(tmp_path: Path) -> None:
    (tmp_path / "servable.toml").write_text(
        """
        [batching]
        max_batch_size = 8
        [[models]]
        name = "own"
        path = "own"
        batching = { max_batch_size = 4 }
        [[models]]
        name = "shared"
        path = "shared"
        """
    )
    assert convert(tmp_path / "servable.toml", tmp_path / "out") == 0
    for name, size in (("own", 4), ("shared", 8)):
        assert f"value: {size}" in (tmp_path / f"out/{name}.batching_params.pbtxt").read_text()


def test_what_has_no_word_in_servable_toml_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "session.config").write_text("intra_op_parallelism_threads: 3 allow_soft_placement: true")
    (tmp_path / "models.config").write_text(
        """model_config_list { config { name: "none" base_path: "/n" model_version_policy { specific {} } }
        config { name: "m" base_path: "/m" logging_config { log_collector_config { filename_prefix: "/l" }
        sampling_config { attributes: 1 } } } }"""
    )
    assert convert(tmp_path / "session.config", tmp_path / "models.config", tmp_path / "s.toml") == 0
    assert (tmp_path / "s.toml").read_text().startswith("tensorflow_intra_op_parallelism = 3\n")
    printed = capsys.readouterr().err
    assert "session.config:1:33: allow_soft_placement: accepted, no effect because" in printed
    assert "model none: it serves no version" in printed
    assert "attributes of its sampling_config" in printed


def test_a_platform_file_becomes_options(tmp_path: Path) -> None:
    (tmp_path / "platform.config").write_text(
        """platform_configs { key: "tensorflow" value { source_adapter_config {
        [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { legacy_config {
          saved_model_tags: "serve" saved_model_tags: "cpu" enable_model_warmup: true
          session_config { inter_op_parallelism_threads: 2 } batching_parameters {
          max_batch_size { value: 5 } } } } } } }"""
    )
    assert convert(tmp_path / "platform.config", tmp_path / "s.toml") == 0
    by_file = ServeSettings(**read_settings_file(tmp_path / "s.toml"))
    by_flag = ServeSettings(platform_config_file=str(tmp_path / "platform.config"))
    assert by_file.engine_options() == by_flag.engine_options()
    assert by_flag.engine_options().saved_model_tags == ("serve", "cpu")
    assert by_flag.engine_options().inter_op_threads == 2
    assert by_file.batching_options() == by_flag.batching_options()
    assert by_file.warmup_options() == by_flag.warmup_options()


@pytest.mark.parametrize(
    ("text", "out", "words"),
    [
        ("prometheus: 1", "s.toml", "none of ModelServerConfig, BatchingParameters, .* has a field 'prometheus'"),
        ("max_batch_size { value: 0 }", "s.toml", "in.config:1:1: max_batch_size must be positive; was 0"),
        ("", "out", "an OUT that ends in .toml"),
        ("", "in.toml", "in.toml is there already"),
    ],
)
def test_what_cannot_be_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, out: str, words: str
) -> None:
    (tmp_path / "in.config").write_text(text)
    (tmp_path / "in.toml").touch()
    assert convert(tmp_path / "in.config", tmp_path / out) == 1
    import re

    assert re.search(words, capsys.readouterr().err)
