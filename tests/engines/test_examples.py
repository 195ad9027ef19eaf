"""Signatures that take tf.Examples on top of any model: what their settings and their Examples may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeModel, signature_of

from servable import protos
from servable.core import tensors
from servable.core.errors import Code, ServingError
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines.artifact import find_artifact
from servable.engines.examples import with_examples
from servable.engines.plan import choose, complete

GOOD = """
[examples.rate]
method = "regress"
outputs = { outputs = "y" }
features = { x = {} }
"""


def example(**features: list[Any]) -> bytes:
    message = protos.tensorflow.Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(values[0])]
        getattr(feature, kind).value.extend(values)
    return bytes(message.SerializeToString(deterministic=True))


def rows(*examples: bytes) -> dict[str, Array]:
    array: Array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return {"inputs": array}


def written(folder: Path, text: str) -> Path:
    path = folder / "servable.toml"
    path.write_text(text)
    return path


def every_type() -> FakeModel:
    """Return a model that answers with what it was given."""
    inputs = {
        "x": (tensors.FLOAT32, (None, 2)),
        "d": (tensors.BFLOAT16, (None,)),
        "i": (tensors.INT8, (None, 1, 2)),
        "u": (tensors.UINT64, (None,)),
        "b": (tensors.BOOL, (None,)),
        "s": (tensors.STRING, (None, None)),
    }
    return FakeModel(dict, [signature_of(inputs=inputs, outputs=inputs)])


EVERY_TYPE = """
[examples.all]
method = "classify"
signature = "serving_default"
outputs = { scores = "d", classes = "s" }
[examples.all.features]
x = {}
half = { input = "d", default = 0.5 }
i = { default = [1, -2] }
u = {}
b = { default = true }
s = { shape = [3], default = "none" }
"""


def test_features_become_rows_of_every_type(tmp_path: Path) -> None:
    model = with_examples(every_type(), written(tmp_path, EVERY_TYPE))
    signature = model.signatures["all"]
    assert str(signature) == "all(inputs: string[?]) -> classes: string[?,?], scores: float32[?]"
    assert signature.method_name == "tensorflow/serving/classify"
    assert "serving_default" in model.signatures
    given = rows(
        example(x=[1.0, 2.0], u=[2**63 - 1], s=[b"a", b"\xff\x00", b""], half=[3.0]),
        example(x=[3.0, 4.0], u=[0], i=[127, -128], b=[0]),
    )
    found = model.run("all", given, ("scores", "classes"))
    assert found["scores"].dtype == np.float32
    assert found["scores"].tolist() == [3.0, 0.5]
    assert found["classes"].tolist() == [[b"a", b"\xff\x00", b""], [b"none"] * 3]


def test_inputs_arrive_in_the_order_and_types_of_the_signature(tmp_path: Path) -> None:
    seen: list[dict[str, Array]] = []

    def compute(inputs: Any) -> dict[str, Array]:
        seen.append(dict(inputs))
        return dict(inputs)

    inner = every_type()
    inner._compute = compute  # the fake is ours
    model = with_examples(inner, written(tmp_path, EVERY_TYPE))
    model.run("all", rows(example(x=[1.0, 2.0], u=[5])), ("scores",))
    (inputs,) = seen
    assert list(inputs) == list(inner.signatures["serving_default"].inputs)
    for name, spec in inner.signatures["serving_default"].inputs.items():
        assert inputs[name].dtype == spec.dtype.numpy, name
    assert inputs["i"].tolist() == [[[1, -2]]]
    assert inputs["b"].tolist() == [True]


def test_labels_name_the_classes(tmp_path: Path) -> None:
    inner = FakeModel(
        lambda inputs: {"p": inputs["x"] / 2},
        [signature_of(inputs={"x": (tensors.FLOAT32, (None, 2))}, outputs={"p": (tensors.FLOAT32, (None, 2))})],
    )
    text = """
    [examples.serving_default]
    method = "classify"
    labels = ["no", "ja, sch\u00f6n"]
    outputs = { scores = "p" }
    features = { x = {} }
    """
    model = with_examples(inner, written(tmp_path, text))
    found = model.run("serving_default", rows(example(x=[1.0, 2.0]), example(x=[3.0, 4.0])), ("classes", "scores"))
    assert found["classes"].tolist() == [[b"no", "ja, sch\u00f6n".encode()]] * 2
    assert found["scores"].tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert model.run("serving_default", rows(example(x=[1.0, 2.0])), ("classes",))["classes"].shape == (1, 2)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (b"\xff", "Could not parse example input, value: b'\\xff'"),
        (example(u=[1]), "Name: <unknown>, Feature: x (data type: float) is required but could not be found."),
        (example(x=[1, 2], u=[1]), ("Name: <unknown>, Key: x, Index: 1.  Data types don't match. "
         "Data type: int64 but expected type: float")),
        (example(x=[1.0, 2.0], u=[1.0]), ("Name: <unknown>, Key: u, Index: 1.  Data types don't match. "
         "Data type: float but expected type: int64")),
        (example(x=[1.0], u=[1]), ("Name: <unknown>, Key: x, Index: 1.  Number of float values != expected.  "
         "Values size: 1 but output shape: [2]")),
        (example(x=[1.0, 2.0], u=[-1]), "Feature: u has the value -1, which is no uint64"),
        (example(x=[1.0, 2.0], u=[1], i=[0, 128]), "Feature: i has the value 128, which is no int8"),
        (example(x=[1.0, 2.0], u=[1], b=[2]), "Feature: b has the value 2, which is no bool"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_example(tmp_path: Path, row: bytes, text: str) -> None:
    model = with_examples(every_type(), written(tmp_path, EVERY_TYPE))
    good = example(x=[1.0, 2.0], u=[1])
    with pytest.raises(ServingError) as failure:
        model.run("all", rows(good, row), ("scores",))
    assert (failure.value.code, failure.value.message) == (Code.INVALID_ARGUMENT, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[examples", "no TOML: "),
        ("port = 3", "there is no key 'port' in the file of a version; there are artifact, examples, signatures"),
        ("examples = 3", "examples: expected a table, not 3"),
        ('[examples.a]\nmethod = "guess"', "examples.a.method: expected classify or regress, not 'guess'"),
        (GOOD.replace("outputs = {", "output = {", 1), ("examples.rate: there is no key 'output'; there are features, "
         "labels, method, outputs, signature")),
        (GOOD.replace("{ outputs =", "{ scores ="), "examples.rate.outputs: regress takes outputs, not 'scores'"),
        (GOOD.replace('outputs = { outputs = "y" }', ""), "examples.rate: outputs is missing: regress takes outputs"),
        (GOOD.replace("features = { x = {} }", ""), ("examples.rate: features is missing: it says which feature is "
         "which input")),
        (GOOD + 'labels = ["a"]', "examples.rate.labels: labels go with the scores of a classify, in place of classes"),
        (GOOD + "labels = [1]", "examples.rate.labels: expected a list of strings, not [1]"),
        (GOOD.replace('"y"', '"z"'), "examples.rate.outputs.outputs: the model has no output 'z'; it has y"),
        (GOOD.replace("x = {}", "z = {}"), "examples.rate.features.z: the model has no input 'z'; it has x"),
        (GOOD + 'signature = "s"', "examples.rate.signature: the model has no signature 's'; it has serving_default"),
        (GOOD.replace("x = {}", "x = { shape = 3 }"), ("examples.rate.features.x.shape: expected a list of whole "
         "numbers, not 3")),
        (GOOD.replace("x = {}", 'x = { default = "a" }'), ("examples.rate.features.x.default: 'a' is no value of "
         "float32")),
        (GOOD.replace("x = {}", "x = { default = [1, 2] }"), ("examples.rate.features.x.default: expected 1 values, "
         "not 2")),
        (GOOD.replace("x = {}", "x = { size = 3 }"), ("examples.rate.features.x: there is no key 'size'; there are "
         "default, input, shape")),
    ],
)  # fmt: skip
def test_settings_that_say_nonsense_fail_the_load(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    inner = FakeModel()
    with pytest.raises(ServingError) as failure:
        with_examples(inner, path)
    assert failure.value.code is Code.FAILED_PRECONDITION
    assert failure.value.message.startswith(f"{path}: {problem}")
    assert inner.closed == 1


def test_an_input_that_no_feature_feeds_fails_the_load(tmp_path: Path) -> None:
    inputs = {"x": (tensors.FLOAT32, (None,)), "z": (tensors.FLOAT32, (None,))}
    inner = FakeModel(signatures=[signature_of(inputs=inputs)])
    with pytest.raises(ServingError, match="no feature is the input 'z'"):
        with_examples(inner, written(tmp_path, GOOD))


def test_a_free_row_needs_a_shape(tmp_path: Path) -> None:
    inner = FakeModel(signatures=[signature_of(inputs={"x": (tensors.FLOAT32, (None, None))})])
    with pytest.raises(ServingError, match="say the shape of a row"):
        with_examples(inner, written(tmp_path, GOOD))


def test_a_file_that_is_half_copied_keeps_a_version_waiting(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class Model:\n    pass\n")
    path = written(tmp_path, GOOD[:30])
    artifact = find_artifact(tmp_path)
    assert artifact.settings == path
    lacking = complete(choose(artifact), artifact)
    assert lacking is not None
    assert "no TOML" in lacking


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.booleans()), min_size=1, max_size=9))
def test_no_row_is_lost_or_mixed_up(tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, bool]]) -> None:
    """Rows with the feature and rows without it keep their places."""
    text = GOOD.replace("x = {}", "x = { default = 7.0 }")
    inner = FakeModel(lambda inputs: {"y": inputs["x"]})
    model = with_examples(inner, written(tmp_path_factory.mktemp("rows"), text))
    given_rows = rows(*[example(x=[value]) if there else example() for value, there in values])
    found = model.run("rate", given_rows, ("outputs",))["outputs"]
    assert found.tolist() == [np.float32(value) if there else 7.0 for value, there in values]


def test_what_is_told_to_the_whole_reaches_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = every_type()
    told: list[str] = []
    spans = [Span("engine", "Conv", 1.0, 0.5)]
    monkeypatch.setattr(inner, "begin_serving", lambda: told.append("serving"))
    monkeypatch.setattr(inner, "begin_profile", lambda: True)
    monkeypatch.setattr(inner, "end_profile", lambda: spans)
    model = with_examples(inner, written(tmp_path, EVERY_TYPE))
    model.begin_serving()
    assert model.begin_profile()
    assert model.end_profile() is spans
    assert told == ["serving"]
