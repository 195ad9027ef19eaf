"""TFLite files and frozen graphs behind a real server: padded, merged, and refused with words that help."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'servable[litert]'")

from tests.e2e.server_process import ServerProcess
from tests.engines.saved_model_writer import half_plus_two
from tests.engines.tflite_writer import Pair, doubler

from servable import Client, ServingError
from servable.core.errors import Code

Start = Callable[..., ServerProcess]
FREE = """
[signatures.serving_default.inputs.rows]
dtype = "float32"
shape = [-1, 3]
node = "x"

[signatures.serving_default.outputs.doubled]
dtype = "float32"
shape = [-1, 3]
node = "x_twice"
"""


def write(path: Path, content: bytes, settings: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if settings:
        path.with_name("servable.toml").write_text(settings)
    return path


def test_a_tflite_file_of_four_rows_answers_any_number_over_every_wire(serve: Start, tmp_path: Path) -> None:
    four = doubler([Pair("x", (4, 3))])
    padded = write(tmp_path / "padded" / "7" / "model.tflite", four, FREE)
    fixed = write(tmp_path / "fixed.tflite", four)
    server = serve(f"padded={padded.parents[1]}", str(fixed)).ready()
    assert "padded/7  litert f32" in server.stdout
    x = np.arange(27, dtype=np.float32).reshape(9, 3)
    for url in (server.grpc_url, server.rest_url):
        with Client(url) as client:
            for count in (1, 4, 9):
                found = client.predict("padded", rows=x[:count])["doubled"]
                assert found.dtype == np.float32
                assert np.array_equal(found, 2 * x[:count])
            with ThreadPoolExecutor(8) as pool:
                parts = list(pool.map(lambda row: client.predict("padded", rows=row[None])["doubled"], x))
            assert np.array_equal(np.concatenate(parts), 2 * x)
            assert np.array_equal(client.predict("fixed", x=x[:4])["x_twice"], 2 * x[:4])
            with pytest.raises(
                ServingError, match=r"inputs of shapes x: \[3, 3\] do not fit; expected x: \[4, 3\]"
            ) as refused:
                client.predict("fixed", x=x[:3])
            assert refused.value.code is Code.INVALID_ARGUMENT


@pytest.mark.tensorflow
def test_a_frozen_graph_is_served_by_its_placeholders(serve: Start, tmp_path: Path) -> None:
    graph = half_plus_two().meta_graph.graph_def
    graph.versions.producer = 2000
    server = serve(str(write(tmp_path / "half" / "1" / "graph.pb", graph.SerializeToString()).parents[1])).ready()
    assert "half/1  tensorflow f32" in server.stdout
    with Client(server.grpc_url) as client:
        assert client.predict("half", x=np.array([[1.0], [5.0]], np.float32))["add"].tolist() == [[2.5], [4.5]]
