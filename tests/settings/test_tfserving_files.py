"""TensorFlow Serving's files in text format, as people wrote them; errors name file, line, column and field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.certificates import Authority, needs_openssl

from servable.cli.flags_page import CONFIG_PAGE, config_page
from servable.core.errors import Code, ServingError
from servable.lifecycle.config import All, Latest, Specific
from servable.observe.log_options import RequestLogOptions
from servable.protos import serving, tensorflow
from servable.serving.batching_parameters import BatchingParameters
from servable.settings import ServeSettings, read_model_config_file
from servable.settings import config_fields as pages
from servable.settings.tfserving_files import read_session_config

SEED_MODELS = """model_config_list:{
    config:{
        name:"test_model_1",
        base_path:"/models/test_model_1",
        model_platform:"tensorflow",
        model_version_policy:{
            all:{}
        }
    }
}
"""
SEED_MONITOR = """prometheus_config: {
  enable: true,
  path: "/monitoring/prometheus/metrics",
}
"""
SEED_BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 1000000 }
num_batch_threads { value: 8 }
"""


def written(folder: Path, text: str, name: str = "f.config") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def settings(folder: Path, flag: str, text: str, **others: object) -> ServeSettings:
    return ServeSettings(**{flag: written(folder, text), **others})  # type: ignore[arg-type]


# -- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SEED_MODELS,
        SEED_MODELS.replace(":{", " {"),
        SEED_MODELS.replace(",", ""),
        SEED_MODELS.replace(",", ";"),
        SEED_MODELS.replace("{", "<").replace("}", ">"),
        SEED_MODELS.replace('"', "'").replace("all:<>", "all:{}"),
        SEED_MODELS.replace("config:{\n", "config: [{\n").replace("        }\n    }\n", "        }\n    }]\n"),
        SEED_MODELS.replace('"/models/test_model_1"', '"/models/"\n  # where\n  "test" "_model_1"'),
        SEED_MODELS.replace('model_platform:"tensorflow"', "model_type: TENSORFLOW"),
        SEED_MODELS.replace('model_platform:"tensorflow"', "model_type: 0x1"),
        SEED_MODELS.replace('"test_model_1",', r'"test\137model_\x31",'),
        "\ufeff" + SEED_MODELS.replace("\n", "\r\n"),
    ],
)
@pytest.mark.rule("file-1")
def test_the_models_of_the_seed_in_all_punctuation(tmp_path: Path, text: str) -> None:
    (model,) = read_model_config_file(Path(written(tmp_path, text)))
    assert (model.name, model.config.base_path) == ("test_model_1", Path("/models/test_model_1"))
    assert model.config.policy == All()


@pytest.mark.rule("policy-1", "policy-2", "log-1")
def test_policies_labels_and_logs(tmp_path: Path) -> None:
    text = """model_config_list {
      config { name: "a" base_path: "file:///a" model_version_policy { latest {} } }
      config { name: "b" base_path: "/b/" model_version_policy { specific { versions: 7 versions: 5 } }
        version_labels { key: "stable" value: 5 } version_labels { key: "canary" value: 7 }
        logging_config { log_collector_config { type: "tfrecord" filename_prefix: "/l/b" }
          sampling_config { sampling_rate: .5 per_task_sampling_configs { dc: "x" sampling_rate: 1 }
            per_task_sampling_configs { sampling_rate: 1e-2f } } } } }"""
    a, b = read_model_config_file(Path(written(tmp_path, text)))
    assert (a.config.base_path, a.config.policy, a.request_log) == (Path("/a"), Latest(1), None)
    assert (b.config.base_path, b.config.policy) == (Path("/b"), Specific((7, 5)))
    assert dict(b.config.labels) == {"stable": 5, "canary": 7}
    assert b.request_log == RequestLogOptions("/l/b", 0.01)


def test_fields_of_models_without_effect_are_named(tmp_path: Path) -> None:
    text = """model_config_list { config { name: "a" base_path: "/a" logging_config {
      log_collector_config { filename_prefix: "/l" } sampling_config { attributes: 3 } } } }"""
    assert settings(tmp_path, "model_config_file", SEED_MODELS).idle_lines() == []
    (line,) = settings(tmp_path, "model_config_file", text).idle_lines()
    assert line.startswith(f"{tmp_path}/f.config:2:72: attributes: accepted, no effect because requests carry neither")


WRONG_MODELS = [
    ("config { name: 'a' }", "1:1: base_path|Expected model a to have an absolute path or URI; got base_path()="),
    (
        "config {\n name: 'a'\n base_path: 'x' }",
        "3:2: Expected model a to have an absolute path or URI; got base_path()=x",
    ),
    ("config { base_path: '/a' }", "1:21: a model has no name"),
    ("config { name: 'a' base_path: 's3://b/c' }", "1:40: model a: there is no file system for s3://"),
    (
        "config { name: 'a' base_path: '/a' }\nconfig { name: 'a' base_path: '/b' }",
        "2:10: Illegal to list model a multiple times in config list",
    ),
    (
        "config { name: 'a' base_path: '/a' model_platform: 'caffe' }",
        "1:56: Model a requests unsupported platform caffe; it can be 'tensorflow'",
    ),
    ("config { name: 'a' base_path: '/a' model_type: OTHER }", "requests unsupported platform OTHER"),
    (
        "config { name: 'a' base_path: '/a' model_type: TENSORFLOW model_platform: 'tensorflow' }",
        "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, model",
    ),
    (
        "config { name: 'a' base_path: '/a' model_version_policy { specific { versions: -1 } } }",
        "1:79: versions are not negative; -1 is",
    ),
    (
        "config { name: 'a' base_path: '/a' version_labels { key: 'x' value: -2 } }",
        "label 'x' of model a names version -2",
    ),
    (
        "config { name: 'a' base_path: '/a'\n logging_config { log_collector_config { type: 'kafka' } } }",
        "2:2: model a: Cannot find LogCollector::Factory for type: kafka; there is tfrecord",
    ),
    (
        "config { name: 'a' base_path: '/a' logging_config { sampling_config { sampling_rate: 0.1 } } }",
        "filename_prefix is missing",
    ),
]


@pytest.mark.parametrize(("text", "words"), WRONG_MODELS, ids=[words[:40] for _, words in WRONG_MODELS])
@pytest.mark.rule("file-2", "layout-3", "log-3")
def test_a_model_that_cannot_be_is_explained_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ServingError) as raised:
        read_model_config_file(Path(written(tmp_path, f"model_config_list {{ {text} }}")))
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert any(part in raised.value.message for part in words.split("|"))
    assert raised.value.message.startswith(f"{tmp_path}/f.config:")


@pytest.mark.rule("file-2")
def test_a_file_that_is_no_text_format_is_explained_in_the_words_that_scripts_look_for(tmp_path: Path) -> None:
    with pytest.raises(ServingError) as raised:
        read_model_config_file(Path(written(tmp_path, "model_config_list {\n  config { nam: 'x' }\n}")))
    assert raised.value.message == (
        f"Invalid protobuf file: '{tmp_path}/f.config': Error parsing text-format "
        f"tensorflow.serving.ModelServerConfig: "
        f"{tmp_path}/f.config:2:12: tensorflow.serving.ModelConfig has no field 'nam'; did you mean 'name'?"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot read .*: Is a directory"):
        read_model_config_file(tmp_path)
    with pytest.raises(ServingError, match=r"cannot read .*: No such file") as raised:
        read_model_config_file(tmp_path / "none")
    assert raised.value.code is Code.NOT_FOUND


# -- batching -----------------------------------------------------------------------------------------------------


def test_the_batching_of_the_seed(tmp_path: Path) -> None:
    found = settings(tmp_path, "batching_parameters_file", SEED_BATCHING, enable_batching=True)
    assert found.batching_options().parameters == BatchingParameters(
        max_batch_size=8, batch_timeout_micros=0, max_enqueued_batches=1000000, num_batch_threads=8
    )


@pytest.mark.rule("batch-2")
def test_every_field_of_batching(tmp_path: Path) -> None:
    text = """max_batch_size: {value: 16}, batch_timeout_micros {value: 5} max_enqueued_batches {value: 0x10}
    num_batch_threads {value: 3} thread_pool_name {value: "p"} allowed_batch_sizes: 4 allowed_batch_sizes: [8, 16]
    pad_variable_length_inputs: true enable_large_batch_splitting {value: true} max_execution_batch_size {value: 8}"""
    found = settings(tmp_path, "batching_parameters_file", text, enable_batching=True).batching_options().parameters
    assert found == BatchingParameters(16, 5, 16, 3, "p", (4, 8, 16), True, True, 8)


@pytest.mark.rule("batch-2")
def test_batching_without_a_file_has_the_defaults_of_tensorflow_serving() -> None:
    found = ServeSettings(enable_batching=True).batching_options().parameters
    assert found == BatchingParameters(thread_pool_name="model_server_batch_threads")
    assert found is not None
    assert (found.max_batch_size, found.batch_timeout_micros, found.max_enqueued_batches) == (1000, 0, 10)
    assert ServeSettings().batching_options().parameters is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 5", r'f.config:1:17: Expected "{" in field \'max_batch_size\''),
        ("\nnum_batch_threads { value: 0 }", "f.config:2:1: num_batch_threads must be positive; was 0"),
        (
            "allowed_batch_sizes: [2, 4]\nmax_batch_size { value: 8 }",
            "f.config:2:1: Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        ("allowed_batch_sizes: [4, 2]", "f.config:1:1: allowed_batch_sizes entries must be positive and increasing"),
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive with enable_large_batch_splitting",
        ),
        ("max_bach_size { value: 1 }", "BatchingParameters has no field 'max_bach_size'; did you mean"),
    ],
)
@pytest.mark.rule("batch-2", "batch-7")
def test_wrong_batching_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ServingError, match=words):
        settings(tmp_path, "batching_parameters_file", text, enable_batching=True).batching_options()


@pytest.mark.rule("flag-9")
def test_a_batching_file_without_enable_batching_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="is given without --enable_batching"):
        settings(tmp_path, "batching_parameters_file", SEED_BATCHING).batching_options()


@pytest.mark.rule("batch-14")
def test_per_model_batching_takes_threads_from_the_server(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    written(tmp_path / "1", "max_batch_size { value: 4 } num_batch_threads { value: 9 }", "batching_params.pbtxt")
    (tmp_path / "2").mkdir()
    found = settings(
        tmp_path, "batching_parameters_file", SEED_BATCHING, enable_batching=True,
        enable_per_model_batching_parameters=True,
    )  # fmt: skip
    choice = found.batching_choice()
    assert choice.parameters(None, tmp_path / "1") == BatchingParameters(max_batch_size=4, num_batch_threads=8)
    assert choice.parameters(None, tmp_path / "2") is None, "what has no file is not batched"
    without = replace(found, enable_per_model_batching_parameters=False).batching_choice()
    assert without.parameters(None, tmp_path / "1") == without.for_all, "the file counts only where it is asked for"
    own = BatchingParameters(max_batch_size=2)
    assert choice.parameters(own, tmp_path / "1") == BatchingParameters(max_batch_size=2, num_batch_threads=8)
    written(tmp_path / "2", "max_batch_size { value: -4 }", "batching_params.pbtxt")
    with pytest.raises(ServingError, match=r"2/batching_params.pbtxt:1:1: max_batch_size must be positive; was -4"):
        choice.parameters(None, tmp_path / "2")
    assert ServeSettings(enable_per_model_batching_parameters=True).batching_choice().parameters(None, tmp_path) is None


# -- monitoring ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (SEED_MONITOR, "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true, path: '/m' },", "/m"),
        ("prometheus_config { path: '/m' }", ""),
        ("", ""),
    ],
)
@pytest.mark.rule("metrics-1")
def test_monitoring(tmp_path: Path, text: str, path: str) -> None:
    assert settings(tmp_path, "monitoring_config_file", text).rest_options().metrics_path == path


def test_wrong_monitoring_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"f.config:1:21: path: expected one that begins with /, not 'm'"):
        settings(tmp_path, "monitoring_config_file", "prometheus_config { path: 'm' }").metrics_path()
    with pytest.raises(ServingError, match="begins with /"):
        ServeSettings(monitoring_path="m").metrics_path()


# -- TLS ----------------------------------------------------------------------------------------------------------


def pem(path: str | Path) -> str:
    """One string for each line, as people write PEM into text format."""
    return "\n".join(f'  "{line}\\n"' for line in Path(path).read_text().splitlines())


@needs_openssl
@pytest.mark.rule("tls-1")
def test_ssl_with_pem_in_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.server()
    certificate, key = server.certificate, server.key
    text = f"server_key: {pem(key)}\nserver_cert: {pem(certificate)}\n"
    found = settings(tmp_path, "ssl_config_file", text)
    options = found.tls_options()
    assert options is not None
    assert (options.client_auth, options.client_ca) == ("none", "")
    assert found.idle_lines() == []
    mutual = settings(
        tmp_path, "ssl_config_file", f"{text} custom_ca: {pem(authority.certificate)} client_verify: true"
    )
    options = mutual.tls_options()
    assert options is not None
    assert options.client_auth == "required"
    assert Path(options.client_ca).read_text() == Path(authority.certificate).read_text()
    idle = settings(tmp_path, "ssl_config_file", f"{text} custom_ca: {pem(authority.certificate)}")
    assert [line.partition(": ")[2] for line in idle.idle_lines()] == [
        "custom_ca: accepted, no effect because client_verify is false"
    ]
    with pytest.raises(ServingError, match="say the same in two ways"):
        ServeSettings(ssl_config_file=found.ssl_config_file, tls_certificate="x").tls_options()


@needs_openssl
@pytest.mark.rule("tls-1")
def test_wrong_ssl_names_the_field(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.server()
    certificate, key = server.certificate, server.key
    other = authority.server("other").key
    for text, words in (
        (f"server_key: {pem(key)}", "f.config: server_cert is missing: it holds the PEM text itself"),
        (f"server_key: '{key}' server_cert: {pem(certificate)}", "f.config:1:1: server_key: no private key in PEM"),
        (f"server_key: {pem(key)} server_cert: 'x'", "server_cert: no certificate in PEM"),
        (f"server_key: {pem(other)} server_cert: {pem(certificate)}", "f.config:1:1: server_key: this is not the key"),
        (
            f"server_key: {pem(key)} server_cert: {pem(certificate)} client_verify: true custom_ca: 'x'",
            "custom_ca: no certificate in PEM",
        ),
    ):
        with pytest.raises(ServingError) as raised:
            settings(tmp_path, "ssl_config_file", text).tls_options()
        assert words in raised.value.message
        assert "/proc/" not in raised.value.message


# -- sessions and platforms ---------------------------------------------------------------------------------------


@pytest.mark.rule("file-4")
def test_a_session(tmp_path: Path) -> None:
    text = """intra_op_parallelism_threads: 3 inter_op_parallelism_threads: 2
    graph_options { optimizer_options { global_jit_level: ON_1 } rewrite_options { constant_folding: OFF } }
    experimental { executor_type: "x" }"""
    found = settings(tmp_path, "tensorflow_session_config_file", text)
    options = found.engine_options()
    assert (options.intra_op_threads, options.inter_op_threads) == (3, 2)
    assert [line.split(": ")[:2] for line in found.idle_lines()] == [
        [f"{tmp_path}/f.config:2:5", "graph_options"], [f"{tmp_path}/f.config:3:5", "experimental"],
    ]  # fmt: skip
    wins = settings(tmp_path, "tensorflow_session_config_file", text, tensorflow_intra_op_parallelism=1)
    assert wins.engine_options().intra_op_threads == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "intra_op_threads: 3",
            "f.config:1:1: ConfigProto has no field 'intra_op_threads'; did you mean 'intra_op_par",
        ),
        ("intra_op_parallelism_threads: -3", "f.config:1:1: intra_op_parallelism_threads: expected 0 or more, not -3"),
        ("gpu_options { x: 1", r'f.config:1:18: Expected "}"'),
    ],
)
def test_a_wrong_session_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ServingError, match=words):
        read_session_config(Path(written(tmp_path, text)))


def platform(inner: str) -> str:
    return f"""platform_configs {{
  key: "tensorflow"
  value {{ source_adapter_config {{
    [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {{ legacy_config {{
{inner}
}} }} }} }} }}"""


OTHER_ADAPTER = """platform_configs { key: "tensorflow" value { source_adapter_config {
  [type.googleapis.com/tensorflow.serving.MonitoringConfig] {} } } }"""


@pytest.mark.rule("file-3")
def test_a_platform_replaces_flags(tmp_path: Path) -> None:
    text = platform(
        """session_config { intra_op_parallelism_threads: 2 allow_soft_placement: true }
        batching_parameters { max_batch_size { value: 4 } }
        saved_model_tags: "serve" saved_model_tags: "gpu"
        enable_model_warmup: true model_warmup_options { num_request_iterations { value: 3 } }
        enable_per_model_batching_params: true mixed_precision: "bfloat16" """
    )
    found = settings(tmp_path, "platform_config_file", text, tensorflow_intra_op_parallelism=9, saved_model_tags="x")
    options = found.engine_options()
    assert (options.intra_op_threads, options.inter_op_threads, options.saved_model_tags) == (2, 0, ("serve", "gpu"))
    assert found.batching_options().parameters == BatchingParameters(max_batch_size=4)
    assert found.batching_choice().per_version
    assert (found.warmup_options().enabled, found.warmup_options().iterations) == (True, 3)
    assert [line.split(": ")[:2] for line in found.idle_lines()] == [
        [f"{tmp_path}/f.config:9:48", "mixed_precision"], [f"{tmp_path}/f.config:5:50", "allow_soft_placement"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (platform("saved_model_tag: 'x'"), "f.config:5:1: SessionBundleConfig has no field 'saved_model_tag'; did you"),
        (platform("session_config { foo: 1 }"), "f.config:5:18: ConfigProto has no field 'foo'"),
        (platform("batching_parameters { foo: 1 }"), "f.config:5:23: BatchingParameters has no field 'foo'"),
        (platform("").replace('"tensorflow"', '"x"', 1), "there is no platform 'x'; it can be 'tensorflow'"),
        (OTHER_ADAPTER, r"expected a \[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterCo"),
        ("platform_config { }", "PlatformConfigMap has no field 'platform_config'"),
    ],
)  # fmt: skip
def test_a_wrong_platform_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ServingError, match=words):
        settings(tmp_path, "platform_config_file", text).engine_options()


# -- whatever is in a file ------------------------------------------------------------------------------------------

SEEDS = (
    SEED_MODELS, SEED_MONITOR, SEED_BATCHING, "server_key: 'x' server_cert: 'y' client_verify: true",
    platform("session_config { intra_op_parallelism_threads: 2 } batching_parameters { max_batch_size { value: 4 } }"),
    "intra_op_parallelism_threads: 3 graph_options { optimizer_options { global_jit_level: ON_1 } }",
)  # fmt: skip
PIECES = st.sampled_from([*"{}<>[]:;,\"'#\\\n-0e.\0é", "\ufeff", "name", " all {} ", "[type.googleapis.com/a.B]"])


def what_is_wrong(read: Callable[[], object]) -> str:
    try:
        read()
    except ServingError as error:
        return error.message
    return ""


@hypothesis.given(
    text=st.sampled_from(SEEDS),
    damage=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 12), PIECES), min_size=1, max_size=4),
    flag=st.sampled_from([
        "model_config_file", "batching_parameters_file", "monitoring_config_file", "ssl_config_file",
        "tensorflow_session_config_file", "platform_config_file",
    ]),
)  # fmt: skip
@hypothesis.settings(
    max_examples=300, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_read_or_explained(
    tmp_path: Path, text: str, damage: list[tuple[int, int, str]], flag: str
) -> None:
    for at, length, piece in damage:
        text = text[:at] + piece + text[at + length :]
    found = settings(tmp_path, flag, text, enable_batching=True)
    reading = (
        found.file_models, found.batching_choice, found.metrics_path, found.tls_options, found.engine_options,
        found.idle_lines,
    )  # fmt: skip
    for read in reading:
        message = what_is_wrong(read)
        named = (f"{tmp_path}/f.config:", f"Invalid protobuf file: '{tmp_path}/f.config'")
        assert not message or message.startswith(named)


# -- the table of fields ------------------------------------------------------------------------------------------


def test_the_page_of_fields_is_the_generated_one() -> None:
    assert CONFIG_PAGE.read_text() == config_page(), "run: make flags"


def test_every_field_is_in_the_table() -> None:
    """A field that a file may have is a field whose effect is told."""
    found: set[str] = set()

    def walk(descriptor: object) -> None:
        for one in descriptor.fields:  # type: ignore[attr-defined]
            name = f"{descriptor.name}.{one.name}"  # type: ignore[attr-defined]
            if name not in found and not descriptor.GetOptions().map_entry:  # type: ignore[attr-defined]
                found.add(name)
                if one.message_type and not one.message_type.full_name.startswith("google.protobuf"):
                    walk(one.message_type)

    walk(serving.ModelServerConfig.DESCRIPTOR)
    walk(serving.MonitoringConfig.DESCRIPTOR)
    assert found == {*pages.MODEL_SERVER, *pages.MONITORING}
    for message, table in (
        (serving.BatchingParameters, pages.BATCHING), (serving.SSLConfig, pages.SSL),
        (serving.SessionBundleConfig, pages.PLATFORM),
    ):  # fmt: skip
        assert [one.name for one in message.DESCRIPTOR.fields] == [*table]
    assert {one.name for one in tensorflow.ConfigProto.DESCRIPTOR.fields} <= pages.CONFIG_PROTO.keys()
