"""What is particular to LiteRT and TFLite files; the rest is in the engines' contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'servable[litert]'")

from tests.engines.tflite_writer import Pair, doubler

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.engines import tflite_file
from servable.engines.base import EngineOptions, Model
from servable.engines.litert import LiteRtEngine
from servable.engines.plan import artifact_of_file, choose, complete, load
from servable.engines.signature_settings import write_signature_settings

X = Pair("x", (2, 3))


@pytest.fixture
def loaded(tmp_path: Path):
    """Return a function that writes a file, and settings beside it, and loads it as the server would."""
    models: list[Model] = []

    def load_bytes(data: bytes, settings: str = "") -> Model:
        (tmp_path / "model.tflite").write_bytes(data)
        if settings:
            (tmp_path / "servable.toml").write_text(settings)
        artifact = artifact_of_file(tmp_path)
        models.append(load(choose(artifact), artifact, EngineOptions()))
        return models[-1]

    yield load_bytes
    for model in models:
        model.close()


Load = Callable[..., Model]


def rows(count: int) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def free_rows(dtype: str = "float32", *, output: bool = True) -> str:
    shape = {True: "[-1, 3]", False: "[2, 3]"}
    return (
        f'[signatures.serving_default.inputs.x]\ndtype = "{dtype}"\nshape = [-1, 3]\n'
        f'[signatures.serving_default.outputs.y]\ndtype = "{dtype}"\nshape = {shape[output]}\nnode = "x_twice"\n'
    )


def test_a_file_without_signatures_has_one_by_the_names_of_its_tensors(loaded: Load) -> None:
    model = loaded(doubler([X, Pair("n", (1,), "INT32")]))
    assert str(model.signatures[DEFAULT_SIGNATURE]) == (
        "serving_default(x: float32[2,3], n: int32[1]) -> x_twice: float32[2,3], n_twice: int32[1]"
    )
    given = {"x": rows(2), "n": np.array([7], np.int32)}
    found = model.run(DEFAULT_SIGNATURE, given, ("n_twice", "x_twice"))
    assert list(found) == ["n_twice", "x_twice"]
    assert found["n_twice"].tolist() == [14]
    assert np.array_equal(found["x_twice"], 2 * rows(2))


def test_signatures_keep_their_names_and_each_computes_its_own(loaded: Load) -> None:
    both = [Pair("a", (2, 3)), Pair("b", (2, 3))]
    names = {"one": {"in": "a", "in2": "b", "out": "a_twice"}, "other": {"in": "a", "in2": "b", "out": "b_twice"}}
    model = loaded(doubler(both, names))
    assert set(model.signatures) == {"one", "other"}
    given = {"in": rows(2), "in2": rows(2) + 100}
    assert np.array_equal(model.run("one", given, ("out",))["out"], 2 * given["in"])
    assert np.array_equal(model.run("other", given, ("out",))["out"], 2 * given["in2"])
    assert model.signatures["one"].inputs["in"].node == "a"
    with pytest.raises(ServingError, match="there is no signature 'third'; there are one, other"):
        model.run("third", given, ("out",))


def test_free_dimensions_take_any_size_in_any_order_of_calls(loaded: Load) -> None:
    model = loaded(doubler([Pair("x", (1, 3), free=(-1, 3))]))
    for count in (4, 1, 4, 0, 64, 2, 2):
        found = model.run(DEFAULT_SIGNATURE, {"x": rows(count)}, ("x_twice",))["x_twice"]
        assert np.array_equal(found, 2 * rows(count))
    with pytest.raises(
        ServingError, match=r"inputs of shapes x: \[2, 4\] do not fit; expected x: \['\?', 3\]"
    ) as failure:
        model.run(DEFAULT_SIGNATURE, {"x": np.zeros((2, 4), np.float32)}, ("x_twice",))
    assert failure.value.code is Code.INVALID_ARGUMENT


def test_a_fixed_number_of_rows_is_what_it_takes_unless_settings_say_otherwise(loaded: Load) -> None:
    model = loaded(doubler([X]))
    for count in (0, 1, 3):
        with pytest.raises(ServingError, match="do not fit; expected") as failure:
            model.run(DEFAULT_SIGNATURE, {"x": rows(count)}, ("x_twice",))
        assert failure.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_rows_that_settings_free_are_computed_in_blocks_filled_up_with_zeros(loaded: Load, count: int) -> None:
    model = loaded(doubler([X]), free_rows())
    assert str(model.signatures[DEFAULT_SIGNATURE]) == "serving_default(x: float32[?,3]) -> y: float32[?,3]"
    found = model.run(DEFAULT_SIGNATURE, {"x": rows(count)}, ("y",))["y"]
    assert found.dtype == np.float32
    assert np.array_equal(found, 2 * rows(count))


def test_what_has_no_rows_goes_with_every_block(loaded: Load) -> None:
    settings = free_rows() + ('[signatures.serving_default.inputs.n]\ndtype = "int32"\nshape = [1]\n')
    model = loaded(doubler([X, Pair("n", (1,), "INT32")]), settings)
    given = {"x": rows(5), "n": np.array([7], np.int32)}
    assert np.array_equal(model.run(DEFAULT_SIGNATURE, given, ("y",))["y"], 2 * rows(5))


def test_rows_freed_of_an_input_alone_are_refused(loaded: Load) -> None:
    with pytest.raises(ServingError, match="must free that of every output and of every input with rows") as failure:
        loaded(doubler([X]), free_rows(output=False))
    assert failure.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (free_rows("int32"), r"inputs\.x\.dtype: the artifact has float32, not int32"),
        (free_rows().replace("[-1, 3]", "[-1, 4]"), r"inputs\.x\.shape: the artifact has float32\[2,3\], which"),
        (free_rows().replace("x_twice", "z"), r"outputs\.y\.node: the artifact has no output 'z'; it has x_twice"),
        (free_rows().replace("inputs.x", "inputs.w"), r"input 'x' is missing|has no input 'w'"),
    ],
)
def test_settings_that_do_not_fit_the_file_name_themselves(loaded: Load, settings: str, problem: str) -> None:
    pair = [X, Pair("n", (1,), "INT32")] if "inputs.w" in settings else [X]
    with pytest.raises(ServingError, match=rf"servable\.toml: signatures\.serving_default.*({problem})") as failure:
        loaded(doubler(pair), settings)
    assert failure.value.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(("kind", "dtype"), [("INT8", np.int8), ("UINT8", np.uint8)])
def test_quantized_inputs_are_fed_as_they_are(loaded: Load, kind: str, dtype: type) -> None:
    model = loaded(doubler([Pair("x", (1, 3), kind, free=(-1, 3), scale=0.5)]))
    given: Array = np.array([[1, 2, 60]], dtype)
    found = model.run(DEFAULT_SIGNATURE, {"x": given}, ("x_twice",))["x_twice"]
    assert found.dtype == dtype
    assert found.tolist() == [[2, 4, 120]]


def test_operations_of_tensorflow_and_unknown_ones_are_refused_by_name(loaded: Load) -> None:
    with pytest.raises(ServingError, match=r"litert cannot run FlexErf of .*without SELECT_TF_OPS") as failure:
        loaded(doubler([X], custom="FlexErf"))
    assert failure.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(ServingError, match=r"litert cannot run .*model\.tflite.*Mystery"):
        loaded(doubler([X], custom="Mystery"))


def test_another_precision_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(doubler([X]))
    with pytest.raises(ServingError, match="not at bf16"):
        LiteRtEngine().load(artifact_of_file(tmp_path), EngineOptions(precision="bf16"))


def test_a_file_cut_off_anywhere_is_not_complete(tmp_path: Path) -> None:
    whole = doubler([X, Pair("n", (1,), "INT32")], {"s": {"in": "x", "out": "x_twice"}})
    path = tmp_path / "model.tflite"
    path.write_bytes(whole)
    assert tflite_file.missing(path) is None
    for length in range(0, len(whole) - 16, 7):  # what comes last may be padding
        path.write_bytes(whole[:length])
        assert str(path) in (tflite_file.missing(path) or ""), length
        artifact = artifact_of_file(path)
        assert complete(choose(artifact), artifact) is not None


def test_bytes_that_are_no_file_of_this_kind_never_crash_the_reader(tmp_path: Path) -> None:
    whole = bytearray(doubler([X], {"s": {"in": "x", "out": "x_twice"}}))
    path = tmp_path / "model.tflite"
    random = np.random.default_rng(3)
    found: list[str | None] = []
    for _ in range(300):
        broken = bytearray(whole)
        for place in random.integers(8, len(whole), 4):
            broken[place] = int(random.integers(256))
        path.write_bytes(broken)
        found.append(tflite_file.missing(path))  # whatever it is, nothing is raised
    told = [one for one in found if one is not None]
    assert 0 < len(told) < 300, "some bytes break the file, others are a name or a number"
    assert all(str(path) in one for one in told)


def test_a_damaged_file_that_reads_like_a_whole_one_does_not_end_the_process(loaded: Load) -> None:
    with pytest.raises(ServingError, match="does not begin as a TFLite file does"):
        loaded(b"\x20\x00\x00\x00TFL9" + bytes(64))


def test_one_file_is_served_with_the_settings_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(doubler([X]))
    spec = TensorSpec("x", DTYPES_BY_NAME["float32"], (None, 3), "x")
    signature = Signature("s", {"x": spec}, {"y": TensorSpec("y", spec.dtype, (None, 3), "x_twice")})
    write_signature_settings(tmp_path / "servable.toml", {"s": signature})
    artifact = artifact_of_file(path)
    model = load(choose(artifact), artifact, EngineOptions())
    assert model.run("s", {"x": rows(5)}, ("y",))["y"].shape == (5, 3)
    model.close()
