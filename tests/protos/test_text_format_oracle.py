"""Our reading of text format against protobuf's C++ parser, which is the one in TensorFlow Serving."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

from servable import protos
from servable.protos import text_format

TEXTS = [
    "model_config_list:{config:{name:'a',base_path:'/x',model_platform:'tensorflow',model_version_policy:{all:{}},},}",
    "model_config_list { config: [ {name:'a'}, <name:'b'> ] };",
    "model_config_list { config { name: 'a' \"b\"\n 'c'; base_path: '\\x41\\101\\n\\u00e9\\\"' } },",
    "model_config_list { config { model_type: 1 model_version_policy { latest { num_versions: 0x10 } } } }",
    "model_config_list { config { model_version_policy { specific { versions: [1,2] versions: 010 versions: [] } } } }",
    "model_config_list { config { version_labels < key: 'a', value: 1, > version_labels: [{key:'b' value: 2}] } }",
    "model_config_list { config { logging_config { sampling_config { sampling_rate: 1e-2f attributes: -1 } } } }",
    "# c\nmodel_config_list { # x\n config { name: 'a#b' } # y\n }# z",
    "custom_model_config { type_url: 'x' value: '\\001' }",
    "model_config_list { config { name: 'a',; } }",
    "model_config_list { config { name: 'a' name: 'b' } }",
    'model_config_list { config { name: "a\nb" } }',
    "model_config_list { config { base_path: a } }",
    "model_config_list { config { model_version_policy { latest { num_versions: -1 } } } }",
    "model_config_list { config { model_version_policy { latest { num_versions: 5. } } } }",
    "model_config_list { config { model_version_policy { all } } }",
    "model_config_list { config: [ {name:'a'}, ] }",
    "// c",
    r"model_config_list { config { name: '\?\a\x41\X42\7\101\u00e9\U0001F600\\' } } # \s",
    r"model_config_list { config { name: 'a\sb' } }",
    r"model_config_list { config { name: '\xg' } }",
    r"model_config_list { config { name: '\u12' } }",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_it_accepts_we_accept_with_the_same_meaning(text: str) -> None:
    paths = [f"-Iservable={protos.DESCRIPTORS.parent}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *paths, "--encode=tensorflow.serving.ModelServerConfig"]
    done = subprocess.run(
        [*command, "servable/serving_config.proto"], input=text.encode(), capture_output=True, check=False
    )
    if done.returncode:
        with pytest.raises(ValueError, match="f"):
            text_format.parse(text, protos.serving.ModelServerConfig, "f")
    else:
        expected = protos.serving.ModelServerConfig.FromString(done.stdout)
        assert text_format.parse(text, protos.serving.ModelServerConfig) == expected
