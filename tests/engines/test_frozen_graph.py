"""What is particular to frozen graphs; the rest is in the engines' contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.engines.saved_model_writer import FLOAT, INT32, STRING, GraphWriter

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.core.tensors import Array
from servable.engines import frozen_graph
from servable.engines.base import EngineOptions, Model
from servable.engines.plan import artifact_of_file, choose, load
from servable.protos.text_format import to_text

Load = Callable[..., Model]
ROWS: Array = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
STATED = """
[signatures.score.inputs.pixels]
dtype = "{dtype}"
shape = [-1, 3]
node = "x"

[signatures.score.outputs.total]
dtype = "float32"
shape = [-1]
node = "sum"
"""


def graph() -> Any:
    """Return a GraphDef: a product that goes on to a sum, the two best of each row, and a summary for nobody."""
    made = GraphWriter()
    made.placeholder("x", FLOAT, -1, 3)
    made.constant("scale", np.array([1, 2, 3], np.float32), FLOAT)
    made.constant("axis", np.array([1], np.int32), INT32)
    made.constant("two", np.array(2, np.int32), INT32)
    made.constant("tag", np.array([], np.float32), FLOAT)
    made.node("Mul", "product", "x", "scale", T=FLOAT)
    made.node("Sum", "sum", "product", "axis", T=FLOAT, Tidx=INT32)
    made.node("TopKV2", "best", "product", "two", T=FLOAT, Tk=INT32)
    text = made.node("Const", "seen/tag", dtype=STRING).attr["value"].tensor
    text.dtype = STRING
    text.string_val.append(b"seen")
    made.node("HistogramSummary", "seen", "seen/tag", "product", T=FLOAT)
    found = made.meta_graph.graph_def
    found.versions.producer = 2000
    return found


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Load]:
    """Return a function that writes a graph, and settings beside it, and loads it as the server would."""
    models: list[Model] = []

    def load_graph(content: bytes, suffix: str = ".pb", settings: str = "") -> Model:
        (tmp_path / f"graph{suffix}").write_bytes(content)
        if settings:
            (tmp_path / "servable.toml").write_text(settings)
        artifact = artifact_of_file(tmp_path)
        models.append(load(choose(artifact), artifact, EngineOptions()))
        return models[-1]

    yield load_graph
    for model in models:
        model.close()


@pytest.mark.tensorflow
def test_placeholders_and_what_feeds_nothing_are_the_signature_of_a_graph_in_text(loaded: Load) -> None:
    model = loaded(to_text(graph()).encode(), ".pbtxt")
    assert str(model.signatures[DEFAULT_SIGNATURE]) == (
        "serving_default(x: float32[?,3]) -> sum: float32[?], best: float32[?,2], best_1: int32[?,2]"
    )
    found = model.run(DEFAULT_SIGNATURE, {"x": ROWS}, ("best_1", "sum"))
    assert found["sum"].tolist() == [14, 10]
    assert found["best_1"].tolist() == [[2, 1], [1, 0]]


@pytest.mark.tensorflow
def test_settings_that_the_graph_does_not_bear_out_name_their_key(loaded: Load) -> None:
    with pytest.raises(
        ServingError, match=r"score\.inputs\.pixels\.dtype: the artifact has float32, not int32"
    ) as failure:
        loaded(graph().SerializeToString(), settings=STATED.format(dtype="int32"))
    assert failure.value.code is Code.FAILED_PRECONDITION


@pytest.mark.tensorflow
def test_a_graph_with_variables_is_not_frozen(loaded: Load) -> None:
    made = graph()
    made.node.add(op="VariableV2", name="w")
    with pytest.raises(ServingError, match=r"graph\.pb is not frozen: w is a VariableV2.*; freeze it") as failure:
        loaded(made.SerializeToString())
    assert failure.value.code is Code.FAILED_PRECONDITION


def test_a_graph_that_takes_nothing_says_what_to_write(tmp_path: Path) -> None:
    imported = SimpleNamespace(get_operations=list)
    with pytest.raises(
        ServingError, match=r"has no placeholder.*: say so in .*: signatures\.serving_default\.inputs\.x = {"
    ):
        frozen_graph.signatures(imported, tmp_path / "graph.pb", None)
    with pytest.raises(ServingError, match=rf"call it graph\.pb and say so in {tmp_path}/servable\.toml"):
        frozen_graph.signatures(imported, tmp_path / "mine.pb", None)


def test_a_graph_cut_off_anywhere_is_not_complete(tmp_path: Path) -> None:
    whole = graph().SerializeToString()
    path = tmp_path / "graph.pb"
    path.write_bytes(whole)
    assert frozen_graph.missing(path) is None
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in (frozen_graph.missing(path) or ""), length
    text = tmp_path / "graph.pbtxt"
    text.write_text(to_text(graph())[:-20])
    assert str(text) in (frozen_graph.missing(text) or "")
    lost = graph()
    del lost.node[1]
    path.write_bytes(lost.SerializeToString())
    assert frozen_graph.missing(path) == f"{path} lacks the node scale, which product takes"
