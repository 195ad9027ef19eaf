"""Python as an engine: what a class may say, and what each mistake in it is answered with. In this process."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.tensors import FLOAT32, INT64, STRING
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.python import PythonEngine

IMPORTS = "from servable import Code, ServingError, Tensor\nimport numpy as np\n"
DOUBLER = """
    class Doubler:
        def predict(self, x: Tensor["float32", "n"]) -> Tensor["float32", "n"]:
            return 2 * x
"""
ONES = {"x": np.ones(3, np.float32)}


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own() -> Iterator[None]:
    path, modules, writes = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    yield
    sys.path[:] = path
    sys.dont_write_bytecode = writes
    for name in sys.modules.keys() - modules:
        if name in {"model", "_model", "beside"}:
            del sys.modules[name]


def write(folder: Path, code: str, *, imports: str = IMPORTS) -> Artifact:
    path = folder / "model.py"
    path.write_text(imports + textwrap.dedent(code))
    return Artifact("python", path)


def load(folder: Path, code: str, *, imports: str = IMPORTS) -> Model:
    return PythonEngine().load(write(folder, code, imports=imports), EngineOptions())


def refusal(folder: Path, code: str, *, imports: str = IMPORTS) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load(folder, code, imports=imports)
    return caught.value


def call(model: Model, inputs: dict[str, Any]) -> dict[str, Any]:
    return model.run("serving_default", inputs, tuple(model.signatures["serving_default"].outputs))


def failure(model: Model, inputs: dict[str, Any]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        call(model, inputs)
    return caught.value


RETURNS = {
    "typed dict": ("class Answer(TypedDict):", "Answer(label=label, score=score)"),
    "plain dict": ("class Answer(TypedDict):", "{'score': score, 'label': label}"),
    "named tuple": ("class Answer(NamedTuple):", "Answer(label, score)"),
    "dataclass": ("@dataclass\nclass Answer:", "Answer(label=label, score=score)"),
}


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"], ids=["evaluated", "postponed"])
@pytest.mark.parametrize(("head", "returned"), RETURNS.values(), ids=RETURNS)
def test_outputs_are_the_fields_of_what_it_returns(tmp_path: Path, head: str, returned: str, future: str) -> None:
    code = f"""
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict
{head}
    label: Tensor[str, "n"]
    score: Annotated[np.ndarray, Tensor[np.int64, "n", 2]]

class Classifier:
    def predict(self, text: Tensor[str, "n"], x: Tensor["float32", "n", 2]) -> Answer:
        label = [word.upper() + "é" for word in text]
        score = (10 * x).astype(int)
        return {returned}
"""
    model = load(tmp_path, code, imports=future + IMPORTS)
    signature = model.signatures["serving_default"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs.values()] == [
        ("text", STRING, (None,)),
        ("x", FLOAT32, (None, 2)),
    ]
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.outputs.values()] == [
        ("label", STRING, (None,)),
        ("score", INT64, (None, 2)),
    ]
    inputs = {"text": np.array([b"a", "ü".encode()], object), "x": np.array([[1, 2], [3, 4]], np.float32)}
    answer = call(model, inputs)
    assert answer["label"].tolist() == ["Aé".encode(), "Üé".encode()]
    assert (answer["score"].dtype, answer["score"].tolist()) == (np.int64, [[10, 20], [30, 40]])
    assert list(model.run("serving_default", inputs, ["score"])) == ["score"]


def test_one_tensor_without_a_name_is_called_output(tmp_path: Path) -> None:
    answer = call(load(tmp_path, DOUBLER), ONES)
    assert answer["output"].tolist() == [2, 2, 2]


def test_load_gets_the_folder_and_neighbours_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    (tmp_path / "bias.txt").write_text("0.5")
    model = load(
        tmp_path,
        """
        import beside
        class Linear:
            def load(self, directory):
                self.bias = float((directory / "bias.txt").read_text())
            def predict(self, x: Tensor["float32", "n"]) -> Tensor["float32", "n"]:
                return beside.FACTOR * x + self.bias
        """,
    )
    assert call(model, ONES)["output"].tolist() == [3.5, 3.5, 3.5]
    assert not (tmp_path / "__pycache__").exists()


def test_load_may_take_nothing_and_predict_may_be_a_coroutine(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        import asyncio
        class Waiter:
            def load(self):
                self.loaded = 7
            async def predict(self, x: Tensor["int64", "n"]) -> Tensor["int64", "n"]:
                await asyncio.sleep(0)
                return x + self.loaded
        """,
    )
    assert call(model, {"x": np.array([1])})["output"].tolist() == [8]
    model.close()


def test_defaults_become_the_signatures(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        class Scaled:
            def predict(self, x: Tensor["float32"], by: Tensor["float32", ()] = 2) -> Tensor["float32"]:
                return x * by
        """,
    )
    signature = model.signatures["serving_default"]
    assert {name: value.tolist() for name, value in signature.defaults.items()} == {"by": 2.0}
    assert signature.inputs["x"].shape is None
    assert call(model, {**ONES, **signature.defaults})["output"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class A:\n    def predict(self:\n", r"model\.py line 4 is no Python: "),
        ("x = 1\n", "defines no class with a method predict"),
        (f"{DOUBLER}\n    class Other(Doubler): pass\n", "several classes .* Doubler and Other.*underscore"),
        ("raise KeyError('x')\n", r"cannot be imported: KeyError: 'x' \(line 3 of model\.py\)"),
        ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("exit()\n", "cannot be imported: SystemExit"),
        ("raise ServingError(Code.UNAVAILABLE, 'later')\n", "cannot be imported: later"),
    ],
    ids=["syntax", "no class", "two classes", "raises", "import", "exit", "own error"],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, code: str, message: str) -> None:
    error = refusal(tmp_path, textwrap.dedent(code))
    assert error.code is (Code.UNAVAILABLE if "later" in message else Code.FAILED_PRECONDITION)
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("self, x) -> T", "parameter x of predict of M is not annotated as a tensor"),
        ("self, x: int) -> T", "parameter x of predict of M is not annotated as a tensor"),
        ("self, x: np.ndarray) -> T", r"annotate it as in Tensor\[\"float32\", \"n\", 3\]"),
        ("self, x: T)", "the return value of predict of M is not annotated"),
        ("self, x: T) -> dict", "predict of M returns <class 'dict'>; expected a Tensor, or a TypedDict"),
        ("self, *x: T) -> T", r"takes \*x"),
        ("self, **x: T) -> T", r"takes \*\*x"),
        ("self, x: 'Missing') -> T", "annotations of predict of M cannot be read: NameError: .*Missing"),
        ("self, x: \"Tensor['float31', 'n']\") -> T", "'float31' is no element type; expected one of float16"),
        ("self, x: \"Tensor['int8', 2.5]\") -> T", "2.5 is no size of a tensor"),
        ("self, x: T = 'a') -> T", "the default of parameter x of predict of M is no float32 tensor"),
        ("self, x: T = 1) -> T", r"the default of parameter x of predict of M has shape \[\]; expected float32\[n\]"),
    ],
)
def test_wrong_annotations_are_named(tmp_path: Path, signature: str, message: str) -> None:
    code = f'T = Tensor["float32", "n"]\nclass M:\n    def predict({signature}: return x\n'
    error = refusal(tmp_path, code)
    assert error.code is Code.FAILED_PRECONDITION
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("def __init__(self, x): pass", r"M\(\) in .* failed: TypeError"),
        ("def load(self): raise OSError('no weights')", r"load of M in .* failed: OSError: no weights \(line 5"),
        ("def load(self): exit()", "load of M in .* failed: SystemExit"),
        ("async def load(self): pass", "is a coroutine"),
    ],
)
def test_a_class_that_cannot_be_made_ready_says_why(tmp_path: Path, method: str, message: str) -> None:
    error = refusal(
        tmp_path, f'T = Tensor["int8", "n"]\nclass M:\n    {method}\n    def predict(self, x: T) -> T: ...\n'
    )
    assert error.code is Code.FAILED_PRECONDITION
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.ones((2, 4), np.float32), "t": [b"a", b"b"]}, r"input x has shape \[2, 4\]; expected float32\[n,3\]"),
        ({"x": np.ones(3, np.float32), "t": [b"a"]}, r"input x has shape \[3\]"),
        ({"x": np.ones((2, 3), np.float32), "t": [b"a"]}, r"input t has shape \[1\]; .* n = 2 as elsewhere"),
        ({"x": np.ones((1, 3), np.float32), "t": [b"\xff"]}, "input t holds bytes that are not UTF-8 text"),
    ],
)
def test_inputs_that_do_not_fit_are_the_clients_fault(tmp_path: Path, inputs: dict[str, Any], message: str) -> None:
    model = load(
        tmp_path,
        """
        class M:
            def predict(self, x: Tensor["float32", "n", 3], t: Tensor[str, "n"]) -> Tensor["float32", "n", 3]:
                return x
        """,
    )
    error = failure(model, {"x": inputs["x"], "t": np.array(inputs["t"], object)})
    assert error.code is Code.INVALID_ARGUMENT
    assert re.search(message, error.message), error.message


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'y': x}", "predict of M returned y; its annotation promises y, label"),
        ("{'y': x, 'label': [1, 2, 3], 'z': 1}", "returned y, label, z; its annotation promises y, label"),
        ("x", "returned ndarray; its annotation promises y, label"),
        ("None", "returned NoneType; its annotation promises y, label"),
        ("{'y': x[:2], 'label': [1, 2, 3]}", r"returned y, which has shape \[2\]; expected float32\[n\] with n = 3"),
        ("{'y': x, 'label': [[1], [2], [3]]}", r"returned label, which has shape \[3, 1\]; expected int8\[n\]"),
        ("{'y': x, 'label': x}", "returned as label what is no int8 tensor: it is float32"),
        ("{'y': x, 'label': [1, 2, 300]}", "it is int64, with numbers that int8 cannot hold"),
        ("{'y': x, 'label': ['a', 'b', 'c']}", "returned as label what is no int8 tensor"),
        ("{'y': x, 'label': [[1], [2, 3]]}", "returned as label what is no int8 tensor"),
        ("{'y': x, 'label': None}", "returned as label what is no int8 tensor"),
    ],
)
def test_a_result_that_was_not_promised_is_the_models_fault(tmp_path: Path, returned: str, message: str) -> None:
    code = f"""
        from typing import TypedDict
        class Answer(TypedDict):
            y: Tensor["float32", "n"]
            label: Tensor["int8", "n"]
        class M:
            def predict(self, x: Tensor["float32", "n"]) -> Answer:
                return {returned}
        """
    error = failure(load(tmp_path, code), ONES)
    assert error.code is Code.INTERNAL
    assert re.search(message, error.message), error.message


def test_numbers_are_rounded_to_the_promised_type_and_no_more(tmp_path: Path) -> None:
    code = """
        class M:
            def predict(self, x: Tensor["float64", "n"]) -> Tensor["float16", "n"]:
                return x / 3
        """
    answer = call(load(tmp_path, code), {"x": np.ones(2)})["output"]
    assert answer.dtype == np.float16
    assert answer.tolist() == [float(np.float16(1 / 3))] * 2


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("ServingError(Code.OUT_OF_RANGE, 'too cold')", Code.OUT_OF_RANGE, "too cold"),
        ("ValueError('password is 123')", Code.INTERNAL, "predict of M raised ValueError"),
        ("SystemExit(3)", Code.INTERNAL, "predict of M raised SystemExit"),
        ("KeyboardInterrupt", Code.INTERNAL, "predict of M raised KeyboardInterrupt"),
    ],
)
def test_what_predict_raises(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], raised: str, code: Code, message: str
) -> None:
    model = load(
        tmp_path, f'T = Tensor["float32", "n"]\nclass M:\n    def predict(self, x: T) -> T:\n        raise {raised}\n'
    )
    error = failure(model, ONES)
    assert (error.code, error.message) == (code, message)
    assert ("Traceback" in capfd.readouterr().err) is (code is Code.INTERNAL)


def test_a_closed_model_runs_nothing(tmp_path: Path) -> None:
    model = load(tmp_path, DOUBLER)
    model.close()
    model.close()
    assert failure(model, ONES).code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "lacking"),
    [("class M:\n  pass\n", None), ("class M:", "line 1"), (" \n", "is empty"), ("a\0b", "no Python: .*null byte")],
)
def test_only_a_file_that_parses_may_be_whole(tmp_path: Path, text: str, lacking: str | None) -> None:
    artifact = write(tmp_path, "", imports=text)
    found = PythonEngine.complete(artifact)
    assert (found is None) if lacking is None else re.search(lacking, found or "")


def test_a_file_that_is_gone_is_neither_complete_nor_loaded(tmp_path: Path) -> None:
    artifact = Artifact("python", tmp_path / "model.py")
    assert str(artifact.path) in (PythonEngine.complete(artifact) or "")
    with pytest.raises(ServingError) as caught:
        PythonEngine().load(artifact, EngineOptions())
    assert caught.value.code is Code.NOT_FOUND


def test_no_precision_but_its_own(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="bf16"):
        PythonEngine().load(write(tmp_path, DOUBLER), EngineOptions(precision="bf16"))


def test_a_file_called_like_a_library_does_not_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text(IMPORTS + textwrap.dedent(DOUBLER) + "import json\nassert json.dumps(1) == '1'\n")
    model = PythonEngine().load(Artifact("python", path), EngineOptions())
    assert call(model, ONES)["output"].tolist() == [2, 2, 2]
