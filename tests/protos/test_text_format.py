"""Configuration files as people write them, and errors that say where to look."""

from __future__ import annotations

import pytest

from servable import protos
from servable.protos import text_format

SEED = """
model_config_list:{
  config:{
    name:"test_model_1",
    base_path:"/models/test_model_1",
    model_platform:"tensorflow",
    model_version_policy:{all:{}},
  },
  config:<
    name: "b"; base_path: '/models/' "b";   # a comment
    model_version_policy { specific { versions: [1, 2] versions: 3 } }
    version_labels { key: "stable" value: 3 }
  >
}
"""


def test_the_punctuation_that_users_write_is_read():
    config = text_format.parse(SEED, protos.serving.ModelServerConfig)
    first, second = config.model_config_list.config
    assert first.model_version_policy.WhichOneof("policy_choice") == "all"
    assert second.base_path == "/models/b"
    assert list(second.model_version_policy.specific.versions) == [1, 2, 3]
    assert second.version_labels == {"stable": 3}


def test_trailing_commas_byte_order_mark_and_bytes_are_read():
    text = '\ufeffprometheus_config: {\n  enable: true,\n  path: "/m",\n},'.encode()
    config = text_format.parse(text, protos.serving.MonitoringConfig)
    assert (config.prometheus_config.enable, config.prometheus_config.path) == (True, "/m")


def test_wrappers_and_expanded_any_are_read():
    batching = text_format.parse("max_batch_size { value: 128 }", protos.serving.BatchingParameters)
    assert batching.max_batch_size.value == 128
    assert not batching.HasField("batch_timeout_micros")
    platforms = text_format.parse(
        """platform_configs { key: "tensorflow" value { source_adapter_config {
             [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
               legacy_config { saved_model_tags: "serve" } } } } }""",
        protos.serving.PlatformConfigMap,
    )
    adapter = protos.serving.SavedModelBundleSourceAdapterConfig()
    assert platforms.platform_configs["tensorflow"].source_adapter_config.Unpack(adapter)
    assert list(adapter.legacy_config.saved_model_tags) == ["serve"]


@pytest.mark.parametrize(
    ("text", "message", "error"),
    [
        ("a: 1", "MonitoringConfig", r"f:1:1: .*MonitoringConfig has no field 'a'; it has prometheus_config"),
        ("prometheus_config {\n enabled: true }", "MonitoringConfig", r"f:2:2: .* did you mean 'enable'\?"),
        (
            "prometheus_config {\n enable: maybe }",
            "MonitoringConfig",
            r'f:2:10: Expected "true" or "false".*\'enable\'',
        ),
        ("prometheus_config {", "MonitoringConfig", r'f:1:19: Expected "}"'),
        ("}", "MonitoringConfig", r"f:1:1: "),
        ("prometheus_config {\n path: 'C:\\dir' }", "MonitoringConfig", r"f:2:11: there is no escape \\d; "),
        ("prometheus_config {\n path:\n", "MonitoringConfig", r"f:3:1: Expected string but found: '' in field 'path'"),
        ("prometheus_config {\n enable:\n", "MonitoringConfig", r"f:3:1: Expected .* in field 'enable'"),
        ("max_batch_size: 5", "BatchingParameters", r'f:1:17: Expected "{" in field \'max_batch_size\''),
        ("allowed_batch_sizes: [1,\n x]", "BatchingParameters", r"f:2:2: .*integer: x in field 'allowed_batch_sizes'"),
        ("num_batch_threads { value: 1.5 }", "BatchingParameters", r"f:1:28: .*in field 'value'"),
        ("config { name: 'a' name: 'b' }", "ModelConfigList", r'f:1:26: .*should not have multiple "name"'),
        ("config { name: 'a }", "ModelConfigList", r"f:1:16: .*missing ending quote"),
        ("config { model_type: JAX }", "ModelConfigList", r"f:1:22: .*no value named JAX in field 'model_type'"),
        ("model_config_list {} custom_model_config {}", "ModelServerConfig", r"f:1:22: .*another member of oneof"),
        (b"name: '\n\xff'", "ModelConfig", r"f:2: byte 8 is not UTF-8"),
        ("custom_model_config { [a.b/c.D] {} }", "ModelServerConfig", r"f: .*c\.D not found"),
    ],
)
def test_errors_name_file_line_column_and_field(text, message, error):
    with pytest.raises(ValueError, match=error):
        text_format.parse(text, getattr(protos.serving, message), "f")


def test_deep_nesting_is_an_error_and_not_a_crash():
    with pytest.raises(ValueError, match=r"nested too deeply|too many levels"):
        text_format.parse("list_value { values { " * 4000,
                          protos.tensorflow.StructuredValue, "f")  # fmt: skip


def test_messages_are_written_for_people():
    config = protos.serving.ModelConfig(name="größe", base_path="/x")
    assert text_format.to_text(config) == 'name: "größe"\nbase_path: "/x"\n'
    assert text_format.to_text(config, one_line=True) == 'name: "größe" base_path: "/x"'
    assert text_format.parse(text_format.to_text(config), protos.serving.ModelConfig) == config
