"""A transform around a model: what it turns the signature into, what it computes, what is wrong with it."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes import signature_of

from servable.core.errors import Code, ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT64, Array
from servable.engines.base import Artifact, Model
from servable.engines.plan import choose, complete
from servable.engines.transform import transformed

IMPORTS = "from typing import TypedDict\nimport numpy as np\nfrom servable import Code, ServingError, Tensor\n"
SIGNATURE = Signature(
    "serving_default",
    {"ids": TensorSpec("ids", INT64, (None, 3)), "scale": TensorSpec("scale", FLOAT32, ())},
    {"sum": TensorSpec("sum", FLOAT32, (None,)), "big": TensorSpec("big", FLOAT32, (None, 1000))},
    defaults={"scale": np.array(10, np.float32)},
)


class Summing(Model):
    """Sums its ids; remembers which outputs it was asked for, and whether it was closed."""

    engine = "fake"

    def __init__(self, *signatures: Signature) -> None:
        self.signatures = {signature.name: signature for signature in signatures or [SIGNATURE]}
        self.asked: list[tuple[str, ...]] = []
        self.closed = False

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.asked.append(tuple(outputs))
        if signature == "other":
            return {"y": inputs["x"]}
        total = (inputs["ids"].sum(axis=1) * inputs["scale"]).astype(np.float32)
        return {name: {"sum": total, "big": np.zeros((len(total), 1000), np.float32)}[name] for name in outputs}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own() -> Iterator[None]:
    path, writes = list(sys.path), sys.dont_write_bytecode
    yield
    sys.path[:] = path
    sys.dont_write_bytecode = writes
    sys.modules.pop("transform", None)


def wrap(folder: Path, code: str, model: Model | None = None) -> Model:
    path = folder / "transform.py"
    path.write_text(IMPORTS + textwrap.dedent(code))
    return transformed(model or Summing(), path)


def run(model: Model, outputs: Sequence[str], **inputs: Any) -> dict[str, Any]:
    found = model.run("serving_default", {name: np.array(value) for name, value in inputs.items()}, outputs)
    return {name: array.tolist() for name, array in found.items()}


BOTH = """
    class Ids(TypedDict):
        ids: Tensor["int64", "n", 3]

    class Answer(TypedDict):
        word: Tensor[str, "n"]
        twice: Tensor["float32", "n"]

    async def request(text: Tensor[str, "n"]) -> Ids:
        if "bad" in text:
            raise ServingError(Code.OUT_OF_RANGE, "bad text")
        return {"ids": [[len(each), 1, 2] for each in text]}

    def response(sum: Tensor["float32", "n"]) -> Answer:
        return {"word": [str(int(each)) for each in sum], "twice": 2 * sum}
"""


def test_the_signature_is_the_transforms_and_the_model_computes_between(tmp_path: Path) -> None:
    inner = Summing(SIGNATURE, signature_of("other"))
    model = wrap(tmp_path, BOTH, inner)
    assert str(model.signatures["serving_default"]) == (
        "serving_default(text: string[?]) -> word: string[?], twice: float32[?]"
    )
    text = np.array([b"a", b"abc"], object)
    assert run(model, ["twice", "word"], text=text) == {"twice": [80.0, 120.0], "word": [b"40", b"60"]}
    assert run(model, ["word"], text=text) == {"word": [b"40", b"60"]}
    assert inner.asked == [("sum",), ("sum",)]
    assert model.signatures["other"] is inner.signatures["other"]
    assert model.run("other", {"x": np.ones(2, np.float32)}, ["y"])["y"].tolist() == [1, 1]
    assert (model.engine, model.precision) == ("fake", "f32")
    with pytest.raises(ServingError, match="bad text") as caught:
        run(model, ["word"], text=np.array([b"bad"], object))
    assert caught.value.code is Code.OUT_OF_RANGE
    model.close()
    assert inner.closed


def test_a_request_alone_keeps_the_models_outputs(tmp_path: Path) -> None:
    one_input = Signature("only", {"ids": SIGNATURE.inputs["ids"]}, {"y": SIGNATURE.outputs["sum"]})

    class Echo(Summing):
        def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            return {"y": inputs["ids"].sum(axis=1).astype(np.float32)}

    code = """
        def request(x: Tensor["int64", "n", 3], plus: Tensor["int64", ()] = 1) -> Tensor["int64", "n", 3]:
            return x + plus
    """
    model = wrap(tmp_path, code, Echo(one_input))
    signature = model.signatures["only"]
    assert str(signature) == "only(x: int64[?,3], plus: int64[]) -> y: float32[?]"
    assert signature.defaults["plus"].tolist() == 1
    found = model.run("only", {"x": np.ones((2, 3), np.int64), **signature.defaults}, ["y"])
    assert found["y"].tolist() == [6, 6]


def test_a_response_alone_keeps_the_models_inputs_and_their_defaults(tmp_path: Path) -> None:
    code = "def response(sum: Tensor['float32', 'n']) -> Tensor['bool', 'n']: return sum > 50\n"
    model = wrap(tmp_path, code)
    signature = model.signatures["serving_default"]
    assert list(signature.inputs) == ["ids", "scale"]
    assert list(signature.defaults) == ["scale"]
    assert run(model, ["output"], ids=[[1, 2, 3]], scale=np.float32(9)) == {"output": [True]}


T = 'Tensor["int64", "n", 3]'


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n", "defines neither request nor response"),
        ("request = 1\n", "request in .* is no function"),
        ("def request(x): pass\n", r"parameter x of request of transform\.py is not annotated"),
        ("def request(x: T) -> T: return x\n", "one tensor without a name, but the model has the inputs ids, scale"),
        ("def request(x: T) -> Wrong: ...\n", "returns idz, which is no input of the model; it has ids, scale"),
        ("def request(x: T) -> Scale: ...\n", "does not return ids, which the model needs"),
        ("def request(x: T) -> Floats: ...\n", r"returns ids as float32\[n,3\]; the model's input is int64\[\?,3\]"),
        ("def request(x: T) -> Wide: ...\n", r"returns ids as int64\[n,4\]; the model's input is int64\[\?,3\]"),
        ("def request(x: T) -> Flat: ...\n", r"returns ids as int64\[n\]; the model's input is int64\[\?,3\]"),
        ("def response(y: T) -> T: ...\n", "takes y, which is no output of the model; it has sum, big"),
        ("def response(sum: T) -> T: ...\n", r"takes sum as int64\[n,3\]; the model's output is float32\[\?\]"),
        ("def request(:\n", "line 17 is no Python"),
    ],
)
def test_a_transform_that_does_not_fit_says_where(tmp_path: Path, code: str, message: str) -> None:
    kinds = {"Wrong": "idz: T", "Scale": 'scale: Tensor["float32", ()]', "Floats": 'ids: Tensor["float32", "n", 3]',
             "Wide": 'ids: Tensor["int64", "n", 4]', "Flat": 'ids: Tensor["int64", "n"]'}  # fmt: skip
    classes = "".join(f"class {name}(TypedDict):\n    {field}\n" for name, field in kinds.items())
    with pytest.raises(ServingError) as caught:
        wrap(tmp_path, f"T = {T}\n{classes}\n\n{code}")
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert re.search(message, caught.value.message), caught.value.message


def test_a_model_of_several_signatures_needs_the_default_one(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="serving_default, which the model lacks; it has a, b"):
        wrap(tmp_path, BOTH, Summing(signature_of("a"), signature_of("b")))


def test_outputs_that_the_response_does_not_expect_are_no_fault_of_the_client(tmp_path: Path) -> None:
    code = "def response(big: Tensor['float32', 'n', 'n']) -> Tensor['float32', 'n']: return big[0]\n"
    with pytest.raises(ServingError, match=r"response of transform\.py: input big has shape \[2, 1000\]") as caught:
        run(wrap(tmp_path, code), ["output"], ids=[[1, 2, 3], [1, 2, 3]], scale=np.float32(9))
    assert caught.value.code is Code.INTERNAL


def test_a_transform_moves_its_model_into_a_child(tmp_path: Path) -> None:
    plain = Artifact("onnx", tmp_path / "model.onnx")
    choice = choose(Artifact("onnx", plain.path, tmp_path / "transform.py"))
    assert (choice.engine, choice.isolated, choose(plain).isolated) == ("onnxruntime", True, False)
    assert "transform.py" in choice.reason


def test_half_a_transform_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class A: pass")
    (tmp_path / "transform.py").write_text("def request(")
    artifact = Artifact("python", tmp_path / "model.py", tmp_path / "transform.py")
    assert "transform.py line 1" in (complete(choose(artifact), artifact) or "")
    (tmp_path / "transform.py").write_text("def request(): pass")
    assert complete(choose(artifact), artifact) is None
