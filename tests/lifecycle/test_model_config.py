from __future__ import annotations

import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import EngineOptions
from servable.lifecycle.config import All, Latest, ModelConfig, Specific, resolve_path, select
from servable.lifecycle.layout import list_versions, misnamed_version, parse_version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1), ("0", 0), ("00000123", 123), ("+7", 7), (" 8 ", 8), ("\t9\n", 9), ("-0", 0),
        (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("-1", None), ("1.0", None), ("v1", None), ("1_tmp", None),
        ("1_000", None), ("", None), (" ", None), ("+", None), ("1 2", None), ("\u0663", None), ("0x10", None),
        ("1e3", None),
    ],
)  # fmt: skip
@pytest.mark.rule("layout-1")
def test_a_version_is_a_whole_decimal_name(name, version) -> None:
    assert parse_version(name) == version


@pytest.mark.rule("layout-2")
def test_listing_takes_directories_and_follows_links(tmp_path) -> None:
    for name in ("1", "007", "-3", "notes", ".incoming-9-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file is no version")
    (tmp_path / "9").symlink_to(tmp_path / "notes")
    (tmp_path / "10").symlink_to(tmp_path / "nowhere")
    assert list_versions(tmp_path).versions == {1: tmp_path / "1", 7: tmp_path / "007", 9: tmp_path / "9"}


@pytest.mark.rule("layout-2")
def test_the_last_of_two_names_for_a_number_wins_with_a_warning(tmp_path) -> None:
    for name in ("001", "1", "01"):
        (tmp_path / name).mkdir()
    listing = list_versions(tmp_path)
    assert listing.versions == {1: tmp_path / "1"}
    assert len(listing.warnings) == 2
    assert "'1' is taken" in listing.warnings[-1]


def test_a_path_that_cannot_be_listed_is_an_error_not_empty(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path / "absent", "does not exist"), (tmp_path / "file", "is not a directory")):
        with pytest.raises(ServingError, match=words) as caught:
            list_versions(path)
        assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(("name", "right"), [("v1", "1"), ("version_002", "2"), ("1.0", "1"), ("V-3", "3")])
def test_a_misnamed_version_gets_a_hint(tmp_path, name, right) -> None:
    (tmp_path / name).mkdir()
    assert f"{name!r} is not a version number: rename it to {right!r}" in misnamed_version(tmp_path)


def test_policies_choose_the_highest_that_work(tmp_path) -> None:
    found = dict.fromkeys([1, 2, 3, 4], tmp_path)
    assert select(Latest(), found, lambda _: True) == [4]
    assert select(Latest(2), found, lambda _: True) == [4, 3]
    assert select(Latest(0), found, lambda _: True) == [4]
    assert select(Latest(9), found, lambda _: True) == [4, 3, 2, 1]
    assert select(Latest(1), found, lambda version: version < 3) == [4, 3, 2]
    assert select(All(), found, lambda _: False) == [4, 3, 2, 1]
    assert select(Specific((2, 2, 4, 8)), found, lambda _: False) == [4, 2]
    assert select(Specific(()), found, lambda _: True) == []


def onnx(folder) -> None:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"onnx")


def only(configs: list[ModelConfig]) -> ModelConfig:
    (config,) = configs
    return config


def test_a_model_directory(tmp_path) -> None:
    onnx(tmp_path / "cats" / "3")
    named = EngineOptions(allow_python=True)
    assert resolve_path(tmp_path / "cats") == [ModelConfig("cats", tmp_path / "cats", options=named)]
    assert resolve_path(tmp_path / "cats", "dogs") == [ModelConfig("dogs", tmp_path / "cats", options=named)]


def test_a_model_directory_given_from_inside(tmp_path, monkeypatch) -> None:
    onnx(tmp_path / "cats" / "3")
    monkeypatch.chdir(tmp_path / "cats")
    from pathlib import Path

    assert only(resolve_path(Path())).name == "cats"


def test_a_bare_version_keeps_its_number_and_its_models_name(tmp_path) -> None:
    onnx(tmp_path / "cats" / "0012")
    config = only(resolve_path(tmp_path / "cats" / "0012"))
    assert (config.name, config.fixed_versions) == ("cats", {12: tmp_path / "cats" / "0012"})


def test_a_saved_model_without_a_number_is_version_1(tmp_path) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"")
    config = only(resolve_path(tmp_path / "exported"))
    assert (config.name, config.fixed_versions) == ("exported", {1: tmp_path / "exported"})
    assert resolve_path(tmp_path / "exported" / "saved_model.pb") == [config]


def test_one_file_is_version_1_named_by_its_stem(tmp_path) -> None:
    (tmp_path / "resnet.onnx").write_bytes(b"onnx")
    config = only(resolve_path(tmp_path / "resnet.onnx"))
    assert (config.name, config.fixed_versions) == ("resnet", {1: tmp_path / "resnet.onnx"})
    assert only(resolve_path(tmp_path / "resnet.onnx", "net")).name == "net"


def test_a_root_of_many(tmp_path) -> None:
    onnx(tmp_path / "cats" / "1")
    onnx(tmp_path / "dogs")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README").write_text("")
    assert [config.name for config in resolve_path(tmp_path)] == ["cats", "dogs"]
    with pytest.raises(ServingError, match=r"root of many models \(cats, dogs\)") as caught:
        resolve_path(tmp_path, "pets")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_python_is_allowed_in_the_path_that_was_named_and_not_in_what_a_root_holds(tmp_path) -> None:
    onnx(tmp_path / "root" / "cats" / "1")
    (tmp_path / "root" / "dogs").mkdir()
    (tmp_path / "root" / "dogs" / "model.py").write_text("")
    assert [config.options.allow_python for config in resolve_path(tmp_path / "root")] == [False, False]
    for path in ("cats", "cats/1", "cats/1/model.onnx", "dogs", "dogs/model.py"):
        assert only(resolve_path(tmp_path / "root" / path)).options.allow_python, path


def test_one_model_that_cannot_be_served_does_not_hide_the_root(tmp_path, caplog) -> None:
    onnx(tmp_path / "cats" / "1")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "saved_model.pbtxt").write_bytes(b"")
    assert [config.name for config in resolve_path(tmp_path)] == ["cats"]
    assert "old is passed over" in caplog.text


def test_wrong_paths_say_what_is_wrong(tmp_path) -> None:
    with pytest.raises(ServingError, match="absent does not exist"):
        resolve_path(tmp_path / "absent")
    (tmp_path / "cats" / "v2").mkdir(parents=True)
    with pytest.raises(ServingError, match=r"holds no model.*'v2' is not a version number: rename it to '2'"):
        resolve_path(tmp_path / "cats")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ServingError, match=r"notes\.txt is not a model"):
        resolve_path(tmp_path / "notes.txt")


def test_an_engine_can_be_set_afterwards(tmp_path) -> None:
    assert ModelConfig("m", tmp_path).with_engine("openvino").engine == "openvino"
