"""Python models on a live server: who may run, what answers, what their mistakes cost. As a user would do it."""

from __future__ import annotations

import json
import shutil
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.e2e.server_process import ServerProcess, wait_until

import servable
from servable.zoo import corpus

EXAMPLES = Path(__file__).parents[2] / "examples"

CLASSIFIER = """
    from typing import TypedDict
    import numpy as np
    from servable import Code, ServingError, Tensor

    class Answer(TypedDict):
        label: Tensor[str, "n"]
        length: Tensor["int64", "n"]

    class Lengths:
        def predict(self, text: Tensor[str, "n"]) -> Answer:
            if "raise" in text:
                raise KeyError("not for clients")
            if "refuse" in text:
                raise ServingError(Code.OUT_OF_RANGE, "no such text")
            if "exit" in text:
                exit()
            lengths = np.array([len(each) for each in text])
            return {"label": np.where(lengths > 5, "long", "short"), "length": lengths}
"""


def write(version: Path, code: str, name: str = "model.py") -> Path:
    version.mkdir(parents=True, exist_ok=True)
    (version / name).write_text(textwrap.dedent(code))
    return version.parent


def predict(server: ServerProcess, model: str, *texts: str) -> tuple[int, Any]:
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(f"{server.rest_url}/v1/models/{model}:predict", body)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_class_is_served_over_both_wires(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(write(tmp_path / "texts" / "1", CLASSIFIER)).ready()
    assert "texts/1  python f32" in server.stdout
    assert "label: string[?], length: int64[?]  (batched)" in server.stdout
    assert predict(server, "texts", "ab", "abcdef") == (
        200,
        {"outputs": {"label": ["short", "long"], "length": [2, 6]}},
    )
    assert predict(server, "texts", "raise") == (500, {"error": "predict of Lengths raised KeyError"})
    wait_until(lambda: "KeyError: 'not for clients'" in server.stderr, "the traceback is logged")
    assert predict(server, "texts", "refuse") == (400, {"error": "no such text"})
    assert predict(server, "texts", "exit") == (500, {"error": "predict of Lengths raised SystemExit"})
    with servable.Client(server.grpc_url) as client:
        answer = client.predict("texts", text=np.array([b"four"], object))
        assert answer.outputs["length"].tolist() == [4]
        with pytest.raises(servable.ServingError) as caught:
            client.predict("texts", text=np.array([[b"a"]], object))
        assert caught.value.code is servable.Code.INVALID_ARGUMENT
    assert predict(server, "texts", "still here")[0] == 200
    assert server.stop() == 0


def test_python_that_nobody_named_is_refused_until_it_is_allowed(
    serve: Callable[..., ServerProcess], models: Any, tmp_path: Path
) -> None:
    write(tmp_path / "root" / "texts" / "1", f"open({str(tmp_path / 'it ran')!r}, 'w')\n{textwrap.dedent(CLASSIFIER)}")
    (tmp_path / "root" / "plain").symlink_to(models.onnx("half_plus_two"))
    refusing = serve(tmp_path / "root").ready()
    assert "plain/1" in refusing.stdout
    assert "texts/1  FAILED  PERMISSION_DENIED" in refusing.stdout
    assert "--allow_python" in refusing.stdout
    assert not (tmp_path / "it ran").exists()
    settings = tmp_path / "servable.toml"
    settings.write_text(f'[[models]]\npath = "{tmp_path}/root/texts"\n')
    from_file = serve("--config", settings)
    from_file.wait()
    assert "PERMISSION_DENIED" in from_file.stderr
    assert not (tmp_path / "it ran").exists()
    allowing = serve(tmp_path / "root", "--allow_python").ready()
    assert predict(allowing, "texts", "ab")[0] == 200


def test_a_version_with_a_mistake_does_not_displace_one_that_works(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    base = write(tmp_path / "texts" / "1", CLASSIFIER)
    server = serve(base, "--file_system_poll_wait_seconds=0.1").ready()
    write(tmp_path / "texts" / "2", "import no_such_module\n" + textwrap.dedent(CLASSIFIER))
    wait_until(lambda: "No module named 'no_such_module'" in server.stderr, "version 2 has failed")
    assert predict(server, "texts", "ab")[0] == 200


def test_a_transform_serves_its_own_signature_over_both_wires(
    serve: Callable[..., ServerProcess], models: Any, tmp_path: Path
) -> None:
    version = tmp_path / "words" / "1"
    shutil.copytree(models.onnx("half_plus_two") / "1", version)
    write(
        version,
        """
        from servable import Tensor

        def request(text: Tensor[str, "n"]) -> Tensor["float32", "n", 1]:
            return [[float(len(each))] for each in text]

        def response(y: Tensor["float32", "n", 1]) -> Tensor[str, "n"]:
            return [f"{each:g}" for each in y[:, 0]]
        """,
        "transform.py",
    )
    server = serve(version.parent).ready()
    assert "serving_default(text: string[?]) -> output: string[?]" in server.stdout
    assert predict(server, "words", "", "four") == (200, {"outputs": ["2", "4"]})
    with servable.Client(server.grpc_url) as client:
        assert client.predict("words", text=np.array([b"123456"], object)).outputs["output"].tolist() == [b"5"]
    (version.parent.parent / "root").mkdir()
    version.parent.rename(tmp_path / "root" / "words")
    refused = serve(tmp_path / "root")
    assert refused.wait() == 1
    assert "transform.py is Python, which runs only" in refused.stderr


def test_an_endless_loop_and_a_leak_cost_their_callers_alone(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    code = """
        import time
        from servable import Tensor

        class Bad:
            kept = []

            def predict(self, text: Tensor[str, "n"]) -> Tensor["int64", "n"]:
                while "loop" in text:
                    pass
                while "leak" in text:
                    self.kept.append(b"x" * (1 << 20))
                    time.sleep(0.001)
                return [len(each) for each in text]
    """
    server = serve(write(tmp_path / "bad" / "1", code), "--child_timeout_s=2", "--child_memory_mb=300").ready()
    for text, reason in (("loop", "longer than 2 s (--child_timeout_s)"), ("leak", "than its 300 (--child_memory_mb)")):
        status, answer = predict(server, "bad", text)
        assert status == 503
        assert reason in answer["error"]
        wait_until(lambda: predict(server, "bad", "good")[0] == 200, "it is back")


def test_the_example_learns_and_answers(serve: Callable[..., ServerProcess]) -> None:
    server = serve(EXAMPLES / "python_model" / "reviews").ready()
    wait_until(lambda: "reviews/1: learnt" in server.stderr, "what it prints is in the log")
    status, answer = predict(server, "reviews", "A warm and clever film", "What a bore, the worst film", "Zanzibar")
    assert status == 200
    assert answer["outputs"]["label"] == ["good", "bad", "bad"]
    probabilities = np.array(answer["outputs"]["probabilities"])
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert probabilities[0, 1] > 0.8
    assert probabilities[1, 0] > 0.8
    assert probabilities[2].tolist() == [0.5, 0.5]
    assert "(batched)" in server.stdout


def test_the_example_of_a_transform_puts_texts_before_vectors(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    version = tmp_path / "sentiment" / "1"
    version.mkdir(parents=True)
    onnx.save(_votes(), version / "model.onnx")
    vectors = corpus.word_vectors(3)
    np.savez(version / "vectors.npz", words=np.array(corpus.words()), vectors=vectors)
    (version / "labels.txt").write_text("negative\npositive\n")
    shutil.copy(EXAMPLES / "sentiment_text" / "transform.py", version)
    server = serve(version.parent).ready()
    assert "serving_default(text: string[?]) -> label: string[?], probabilities: float32[?,2]" in server.stdout
    texts = [*corpus.reviews(8, 5).texts, "zanzibar", ""]
    status, answer = predict(server, "sentiment", *texts)
    assert status == 200
    logits = corpus.embed(texts[:8], vectors, 64).sum(axis=1)[:, :2]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(answer["outputs"]["probabilities"], [*expected, [0.5, 0.5], [0.5, 0.5]], atol=1e-4)
    names = np.array(["negative", "positive"])
    assert answer["outputs"]["label"] == [*names[expected.argmax(axis=1)], "negative", "negative"]


def _votes() -> onnx.ModelProto:
    """Return a stand-in with the signature of the example ``sentiment``: a word votes by its first two numbers."""
    tensor, numbers = helper.make_tensor_value_info, onnx.numpy_helper.from_array
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["vectors", "words"], ["sums"], keepdims=0),
            helper.make_node("Slice", ["sums", "begin", "end", "columns"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
        ],
        "votes",
        [tensor("vectors", onnx.TensorProto.FLOAT, ["n", "length", corpus.VECTOR])],
        [tensor(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in ("logits", "probs")],
        [
            numbers(np.array([value], np.int64), name)
            for name, value in {"words": 1, "begin": 0, "end": 2, "columns": 1}.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
