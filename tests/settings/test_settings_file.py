from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from servable.cli import main
from servable.cli.flags_page import SCHEMA
from servable.core.errors import Code, ServingError
from servable.engines.example_settings import read_example_settings
from servable.engines.signature_settings import read_signature_settings
from servable.engines.version_settings import read_version_settings
from servable.lifecycle.config import All, Latest, Specific
from servable.observe.log_options import RequestLogOptions
from servable.serving.batching_parameters import BatchingParameters
from servable.settings import ServeSettings, add_flags, option_fields, read_settings, spell_out
from servable.settings.api_keys import read_api_keys
from servable.settings.schema import schema, schema_text

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name / "1").mkdir(parents=True)
    return tmp_path / "servable.toml"


def read(file: Path, text: str | bytes, *words: str, environment: Mapping[str, str] | None = None) -> ServeSettings:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_flags(parser)
    given = parser.parse_args(spell_out([f"--config={file}", *words]))
    return read_settings(vars(given), environment or {})


def test_an_empty_file_changes_nothing(file: Path) -> None:
    assert read(file, "") == ServeSettings(config=str(file))


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(file: Path) -> None:
    text = 'max_batch_rows = 1\nmax_queued_requests = 2\nmax_body = 3\nlisten = ["1", "2"]'
    environment = {"SERVABLE_MAX_BATCH_ROWS": "10", "SERVABLE_MAX_QUEUED_REQUESTS": "20"}
    found = read(file, text, "--max_batch_rows=100", "--listen=9", environment=environment)
    assert (found.max_batch_rows, found.max_queued_requests, found.max_body) == (100, 20, 3)
    assert found.listen == ("9",)
    assert found.drain_timeout_s == ServeSettings().drain_timeout_s


def test_a_commands_own_defaults_win_over_nothing_but_those_of_the_options(file: Path) -> None:
    file.write_text("max_body = 7")
    defaults = {"max_body": 1, "host": "0.0.0.0", "port": 1, "log_level": "error"}
    found = read_settings({"config": str(file), "port": 2}, {"SERVABLE_HOST": "::1"}, defaults)
    assert (found.max_body, found.host, found.port, found.log_level) == (7, "::1", 2, "error")


def test_the_environment_may_name_the_file(file: Path) -> None:
    file.write_text("max_body = 7")
    assert read_settings({}, {"SERVABLE_CONFIG": str(file)}).max_body == 7


def test_every_option_can_be_in_the_file(file: Path) -> None:
    samples = {bool: "false", int: "7", float: "1", str: '"x"'}
    for item in option_fields():
        if item.name == "config":
            continue
        kind = next(kind for kind in (bool, int, float, str) if kind.__name__ in str(item.type))
        text = f'"{item.metadata["choices"][-1]}"' if item.metadata["choices"] else samples[kind]
        found = getattr(read(file, f"{item.name} = {f'[{text}]' if 'tuple' in str(item.type) else text}"), item.name)
        value = found[0] if isinstance(found, tuple) else found
        assert type(value) is kind, item.name


def test_paths_are_relative_to_the_file(file: Path) -> None:
    found = read(file, 'model_base_path = "one"\nmodel_config_file = "/etc/models.config"')
    assert found.model_base_path == str(file.parent / "one")
    assert found.model_config_file == "/etc/models.config"
    assert read(file, 'access_log = "log"').access_log == str(file.parent / "log")
    assert read(file, 'access_log = "-"').access_log == "-"
    assert read(file, 'access_log = "off"').access_log == "off"


def test_models(file: Path) -> None:
    text = """
    [[models]]
    path = "one"

    [[models]]
    name = "other"
    path = "two"
    engine = "openvino"
    versions = [1, 3]
    labels = { stable = 1 }

    [[models]]
    name = "later"
    path = "comes/later"
    versions = { latest = 2 }

    [[models]]
    name = "every"
    path = "two"
    versions = "all"
    """
    one, other, later, every = read(file, text, "--tensorflow_intra_op_parallelism=3").model_configs()
    assert (one.name, one.base_path, one.policy, one.engine) == ("one", file.parent / "one", Latest(), None)
    assert (other.name, other.engine, other.policy, other.labels) == (
        "other", "openvino", Specific((1, 3)), {"stable": 1},
    )  # fmt: skip
    assert (later.base_path, later.policy) == (file.parent / "comes/later", Latest(2))
    assert every.policy == All()
    assert other.options.intra_op_threads == 3


def test_batching_and_request_logs(file: Path) -> None:
    text = """
    [batching]
    max_batch_size = 8
    allowed_batch_sizes = [2, 8]

    [[models]]
    path = "one"
    batching = { max_batch_size = 4, enable_large_batch_splitting = true }
    request_log = { filename_prefix = "logs/one", sampling_rate = 1 }

    [[models]]
    path = "two"
    """
    found = read(file, text)
    assert found.batching_options().parameters == BatchingParameters(max_batch_size=8, allowed_batch_sizes=(2, 8))
    assert found.batching_options().mode == "auto"
    one, two = found.served_models()
    assert one.batching == BatchingParameters(max_batch_size=4, enable_large_batch_splitting=True)
    assert one.request_log == RequestLogOptions(str(file.parent / "logs/one"), 1.0)
    assert (two.batching, two.request_log) == (None, None)


def test_a_root_of_many_takes_the_policy(file: Path) -> None:
    found = read(file, '[[models]]\npath = "."\nversions = "all"').model_configs()
    assert [(config.name, config.policy) for config in found] == [("one", All()), ("two", All())]


def test_one_version_has_no_policy(file: Path) -> None:
    (file.parent / "one/1/saved_model.pb").touch()
    assert read(file, "[[models]]\npath = 'one/1'").model_configs()[0].fixed_versions == {1: file.parent / "one/1"}
    with pytest.raises(ServingError, match="versions is for a directory of versions; this path is one version"):
        read(file, "[[models]]\npath = 'one/1'\nversions = 'all'")


def test_models_of_the_command_line_come_beside_those_of_the_file(file: Path) -> None:
    found = read(file, '[[models]]\npath = "one"', f"{file.parent}/two", "--engine=onnxruntime").model_configs()
    assert [(config.name, config.engine) for config in found] == [("one", "onnxruntime"), ("two", "onnxruntime")]
    with pytest.raises(ServingError, match="two models are called 'one'"):
        read(file, '[[models]]\npath = "one"', f"{file.parent}/one").model_configs()


WRONG = [
    ("max_body = ", r"servable\.toml: no TOML: .*end of document"),
    ("\n\nlisten = nine", r"servable\.toml: no TOML: .*line 3, column 10"),
    (b"host = '\xff'", r"TOML is UTF-8, which byte 8 is not"),
    ('max_body = "1 GB"', r"servable\.toml: max_body: expected a whole number, not '1 GB'"),
    ("max_body = true", "max_body: expected a whole number, not True"),
    ("max_body = 0", "max_body: expected at least 1, not 0"),
    ("port = 70000", "port: expected 0 to 65535, not 70000"),
    ("drain_timeout_s = nan", "drain_timeout_s: expected a finite number"),
    ("enable_model_warmup = 1", "enable_model_warmup: expected true or false, not 1"),
    ('batching = "fast"', "batching: expected one of auto, off, not 'fast'"),
    ('device = "cuda"', "device: expected cpu, not 'cuda'"),
    ('listen = "8500"', r'listen: expected a list such as \["8500"\]'),
    ("listen = [8500]", "listen: expected a text, not 8500"),
    ("max_bacth_rows = 3", "there is no option 'max_bacth_rows'; did you mean max_batch_rows?"),
    ("max-batch-rows = 3", "did you mean max_batch_rows?"),
    ("qqq = 3", "there is no option 'qqq'; there are [a-z]"),
    ('config = "x"', "there is no option 'config'"),
    ('models = "one"', r"models: expected tables, each under a line \[\[models\]\]"),
    ("[models]\npath = 'one'", r"models: expected tables"),
    ("[[models]]\nname = 'x'", r"models\[1\] \(x\): path is missing"),
    ("[[models]]\npath = 'one'\n[[models]]\npth = 'two'", r"models\[2\]: there is no key 'pth'; did you mean path?"),
    ("[[models]]\npath = 3", r"models\[1\]: path: expected a text, not 3"),
    ("[[models]]\npath = 'none'", r"models\[1\]: .*/none does not exist"),
    ("[[models]]\npath = 'one'\nname = ''", "name: expected a text, not ''"),
    ("[[models]]\npath = 'one'\nengine = 'caffe'", "engine: expected one of litert, onnxruntime, .* not 'caffe'"),
    ("[[models]]\npath = 'one'\nversions = 'newest'", 'versions: expected "latest", "all", .* not \'newest\''),
    ("[[models]]\npath = 'one'\nversions = []", "versions: expected"),
    ("[[models]]\npath = 'one'\nversions = [-1]", "versions: expected"),
    ("[[models]]\npath = 'one'\nversions = { latest = 0 }", "versions: expected"),
    ("[[models]]\npath = 'one/1'\nversions = 'all'", "holds no model"),
    ("[[models]]\npath = 'one'\nlabels = { stable = 'x' }", "labels: expected names for versions"),
    ("[batching]\nmax_bach_size = 3", "batching: there is no key .max_bach_size.; did you mean"),
    ("[batching]\nmax_batch_size = '3'", "batching: max_batch_size: expected a whole number, not '3'"),
    ("[batching]\nallowed_batch_sizes = 3", "batching: allowed_batch_sizes: expected a list, not 3"),
    ("[batching]\nmax_batch_size = 0", "batching: max_batch_size must be positive; was 0"),
    ("[batching]\nallowed_batch_sizes = [8]", "batching: Last entry in allowed_batch_sizes must match max_batch_size"),
    ("[[models]]\npath = 'one'\nbatching = 'off'", r"models\[1\]: batching: expected a table with keys such as"),
    ("[[models]]\npath = 'one'\nrequest_log = {sampling_rate = 'x'}", "request_log: sampling_rate: expected a number"),
    ("[[models]]\npath = 'one'\nrequest_log = {}", "request_log: filename_prefix is missing"),
    ("[[models]]\npath = '.'\nrequest_log = {filename_prefix = 'x'}", "request_log belongs to one model"),
    (
        "[[models]]\npath = '.'\nlabels = { stable = 1 }",
        "labels belongs to one model; this path holds several: one, two",
    ),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[str(text)[:40] for text, _ in WRONG])
def test_a_wrong_file_is_explained(file: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ServingError, match=words) as raised:
        read(file, text)
    assert raised.value.message.startswith(str(file)) or "TOML" in raised.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot read the file of settings .*none\.toml: No such file") as raised:
        read_settings({"config": str(tmp_path / "none.toml")}, {})
    assert raised.value.code is Code.NOT_FOUND


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot read the file of settings"):
        read_settings({"config": str(tmp_path)}, {})


# -- the schema ---------------------------------------------------------------------------------------------------


def problems(rule: Mapping[str, Any], value: Any) -> list[str]:
    """A checker for the part of JSON Schema that is used."""
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    known = {"type", "enum", "minimum", "maximum", "minLength", "minItems", "items", "properties", "required",
             "additionalProperties", "anyOf", "description", "default", "title", "$schema"}  # fmt: skip
    assert rule.keys() <= known, rule.keys() - known
    if "type" in rule:
        is_wrong_bool = isinstance(value, bool) and rule["type"] != "boolean"
        if is_wrong_bool or not isinstance(value, types[rule["type"]]):
            return [f"{value!r} is no {rule['type']}"]
    found = []
    if "enum" in rule and value not in rule["enum"]:
        found.append(f"{value!r} is none of {rule['enum']}")
    if "anyOf" in rule and all(problems(one, value) for one in rule["anyOf"]):
        found.append(f"{value!r} fits nothing")
    if isinstance(value, int | float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        found.append(f"{value!r} is out of bounds")
    if isinstance(value, str | list) and len(value) < rule.get("minLength", rule.get("minItems", 0)):
        found.append(f"{value!r} is too short")
    if isinstance(value, list):
        found += [problem for element in value for problem in problems(rule.get("items", {}), element)]
    if isinstance(value, dict):
        found += [f"{key} is missing" for key in rule.get("required", ()) if key not in value]
        for key, element in value.items():
            other = rule.get("additionalProperties", {})
            inner = rule.get("properties", {}).get(key, other)
            found += [f"{key} is unknown"] if inner is False else problems(inner, element)
    return found


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA.read_text() == schema_text(), "run: make flags"


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "examples": read_example_settings,
    "signatures": read_signature_settings,
    "artifact": read_version_settings,
    "keys": read_api_keys,
}
"""The first key of TOML that is no file of settings (of one version, of API keys) -> what reads it."""


def examples() -> list[str]:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    return [block for page in pages for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]


def test_examples_of_the_documents_fit_the_schema_and_are_read(tmp_path: Path) -> None:
    assert examples()
    for text in examples():
        document = tomllib.loads(text)
        other = next((read for key, read in OTHER_FILES.items() if key in document), None)
        if other is not None:
            (tmp_path / "other.toml").write_text(text)
            assert other(tmp_path / "other.toml")
            continue
        assert not problems(schema(), document), text
        for model in document.get("models", []):
            below = model["path"].lstrip("/")
            (tmp_path / below / "1").mkdir(parents=True)
            text = text.replace(f'"{model["path"]}"', f'"{below}"')
        read(tmp_path / "servable.toml", text)


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[str(text)[:40] for text, _ in WRONG])
def test_the_schema_refuses_what_the_reader_refuses(text: str | bytes, words: str) -> None:
    """All but what a schema cannot know: syntax, what lies on the disk, and numbers that JSON does not have."""
    unknowable = (
        "no TOML|UTF-8|finite|does not exist|holds no model|labels belongs|request_log belongs|must match|must be"
    )
    if not re.search(unknowable, words.replace("\\", "")):
        assert isinstance(text, str)
        assert problems(schema(), tomllib.loads(text))
