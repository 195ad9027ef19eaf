"""``[signatures]`` in a version's ``servable.toml``: read, written, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import ALL_DTYPES, FLOAT32, INT32, STRING
from servable.engines.example_settings import read_example_settings
from servable.engines.signature_settings import read_signature_settings, write_signature_settings
from servable.engines.version_settings import copy_version_settings

GOOD = """
[signatures.serving_default.inputs.tokens]
dtype = "int32"
shape = [-1, 50]
node = "tokens:0"

[signatures.serving_default.outputs.probs]
dtype = "float32"
"""
EXAMPLES = """# rates reviews
[examples.rate]
method = "classify"
outputs = { scores = "probs" }

[examples.rate.features]
words = { input = "tokens" }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "servable.toml"


def test_what_stands_there_is_read(path: Path) -> None:
    path.write_text(GOOD + EXAMPLES)
    found = read_signature_settings(path)
    tokens = TensorSpec("tokens", INT32, (None, 50), "tokens:0")
    probs = TensorSpec("probs", FLOAT32, None, "probs")
    assert found == {"serving_default": Signature("serving_default", {"tokens": tokens}, {"probs": probs})}
    assert [each.name for each in read_example_settings(path)] == ["rate"]


def test_a_file_without_the_table_states_nothing(path: Path) -> None:
    path.write_text(EXAMPLES)
    assert read_signature_settings(path) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[signatures", "no TOML: "),
        ("port = 3", "there is no key 'port' in the file of a version; there are artifact, examples, signatures"),
        ("signatures = 3", "signatures: expected a table, not 3"),
        (GOOD.replace("tokens]", "tokens.x]"), "signatures.serving_default.inputs.tokens: there is no key 'x'"),
        (GOOD.replace("inputs", "input"), "signatures.serving_default: there is no key 'input'; there are inputs,"),
        (GOOD.replace('dtype = "int32"\n', ""), "inputs.tokens: dtype is missing: one of float16, "),
        (GOOD.replace("int32", "int33"), "inputs.tokens.dtype: expected one of float16, "),
        (GOOD.replace("[-1, 50]", "[-2, 50]"), "inputs.tokens.shape: expected a list of sizes, -1 for a free one, not"),
        (GOOD.replace("[-1, 50]", "50"), "inputs.tokens.shape: expected a list of sizes"),
        (GOOD.replace('"tokens:0"', '""'), "inputs.tokens.node: a tensor's own name is not empty"),
        (GOOD[: GOOD.index("[signatures.serving_default.outputs")], "serving_default: outputs is missing"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(path: Path, text: str, problem: str) -> None:
    path.write_text(text)
    with pytest.raises(ServingError) as failure:
        read_signature_settings(path)
    assert failure.value.code is Code.FAILED_PRECONDITION
    assert failure.value.message.startswith(f"{path}: ")
    assert problem in failure.value.message


def test_a_file_that_is_not_there_is_not_found(path: Path) -> None:
    with pytest.raises(ServingError) as failure:
        read_signature_settings(path)
    assert failure.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("rest", ["", GOOD + EXAMPLES])
def test_a_copy_for_another_model_says_all_but_which_file_is_the_model(path: Path, tmp_path: Path, rest: str) -> None:
    path.write_text(f'artifact = "small.tflite"\n{rest}')
    copy_version_settings(path, tmp_path / "copy.toml")
    assert (tmp_path / "copy.toml").exists() == bool(rest)
    if rest:
        assert (tmp_path / "copy.toml").read_text() == rest


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SPECS = st.dictionaries(
    NAMES,
    st.tuples(
        st.sampled_from(ALL_DTYPES), st.none() | st.lists(st.none() | st.integers(0, 9), max_size=4).map(tuple), NAMES
    ),
    min_size=1,
    max_size=3,
).map(lambda found: {name: TensorSpec(name, *rest) for name, rest in found.items()})
SIGNATURES = st.dictionaries(
    NAMES, st.tuples(SPECS, SPECS, st.sampled_from(["tensorflow/serving/predict", "tensorflow/serving/classify"])),
    min_size=1, max_size=3,
).map(lambda found: {name: Signature(name, *rest) for name, rest in found.items()})  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(signatures=SIGNATURES)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, signatures: dict[str, Signature]
) -> None:
    path = tmp_path_factory.mktemp("settings") / "servable.toml"
    write_signature_settings(path, signatures)
    assert read_signature_settings(path) == signatures
    assert list(path.parent.iterdir()) == [path]


def test_writing_replaces_signatures_and_keeps_all_else_to_the_letter(path: Path) -> None:
    path.write_text(GOOD + "\n" + EXAMPLES)
    strings = TensorSpec("a b", STRING, (), "a b")
    new = {"other": Signature("other", {"a b": strings}, {"y": TensorSpec("y", INT32, (2, None), "y:0")})}
    write_signature_settings(path, new)
    assert read_signature_settings(path) == new
    assert path.read_text().startswith(EXAMPLES)
    write_signature_settings(path, new)
    assert path.read_text().count("[signatures.other.outputs.y]") == 1


def test_a_file_that_would_hold_nothing_is_not_there(path: Path) -> None:
    write_signature_settings(path, {})
    assert not path.exists()
    path.write_text(GOOD)
    write_signature_settings(path, {})
    assert not path.exists()


@pytest.mark.parametrize(
    "old",
    [
        'signatures = { s = { outputs = { y = { dtype = "int32" } } } }\n' + EXAMPLES,
        EXAMPLES.replace('"classify"', '"""\n[signatures]\n"""'),
    ],
)
def test_what_cannot_be_replaced_in_the_text_is_left_alone(path: Path, old: str) -> None:
    path.write_text(old)
    new = {"s": Signature("s", {}, {"y": TensorSpec("y", INT32, (), "y")})}
    with pytest.raises(ServingError, match="its signatures cannot be replaced: write each as"):
        write_signature_settings(path, new)
    assert path.read_text() == old
