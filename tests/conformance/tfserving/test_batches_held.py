"""What waits, what is refused and what fails while batches are held up: models that compute when a file is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.conformance.tfserving.rest import Reply, call
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import protos

MODEL = """
import os
import time
from typing import TypedDict

import numpy as np

from servable import Code, ServingError, Tensor

FOLDER = {folder!r}
BAD = 13.0

class Answer(TypedDict):
    y: Tensor["float32", "n", 1]

class Held:
    def predict(self, x: Tensor["float32", "n", 1]) -> Answer:
        self.note("begin", len(x))
        while not os.path.exists(os.path.join(FOLDER, "open")):
            time.sleep(0.002)
        self.note("end", len(x))
        if (x == BAD).any():
            raise ServingError(Code.INVALID_ARGUMENT, "13 is not to be had")
        return {{"y": x + 1}}

    def note(self, what, rows):
        with open(os.path.join(FOLDER, "notes"), "a") as notes:
            notes.write(f"{{what}} {name} {{rows}}\\n")
"""
TOTAL = """
from typing import TypedDict

from servable import Tensor

class Answer(TypedDict):
    total: Tensor["float32", 1]

class Total:
    def predict(self, x: Tensor["float32", "n", 1]) -> Answer:
        return {"total": x.sum(axis=0)}
"""


class Held:
    """A server of the models ``a``, ``b`` (both held) and ``total``, one batch thread for all."""

    def __init__(self, folder: Path, parameters: str, *words: str) -> None:
        self.folder = folder
        for name in ("a", "b"):
            (folder / name / "1").mkdir(parents=True)
            (folder / name / "1" / "model.py").write_text(MODEL.format(folder=str(folder), name=name))
        (folder / "total" / "1").mkdir(parents=True)
        (folder / "total" / "1" / "model.py").write_text(TOTAL)
        (folder / "batching.config").write_text(parameters)
        self.release()
        paths = (folder / "a", folder / "b", folder / "total")
        batching = ("--enable_batching", f"--batching_parameters_file={folder}/batching.config")
        self.server = ServerProcess(*paths, *batching, *words)
        self._threads = ThreadPoolExecutor(16)

    def hold(self) -> None:
        """From now on nothing is computed to its end."""
        (self.folder / "open").unlink(missing_ok=True)
        (self.folder / "notes").write_text("")

    def release(self) -> None:
        (self.folder / "open").touch()

    @property
    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()

    def ask(self, model: str, *rows: float) -> Future[Reply]:
        body = {"instances": [[row] for row in rows]}
        return self._threads.submit(call, self.server.address, "POST", f"/v1/models/{model}:predict", body)

    def close(self) -> None:
        self.release()
        self._threads.shutdown()
        self.server.kill()


Make = Callable[..., Held]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    made: list[Held] = []

    def start(parameters: str, *words: str) -> Held:
        made.append(Held(tmp_path_factory.mktemp("held"), parameters, *words))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def narrow(make: Make) -> Held:
    """One row a batch, one batch at a time, two that wait."""
    held = make(
        "max_batch_size { value: 1 } num_batch_threads { value: 1 } max_enqueued_batches { value: 2 }",
        "--rest_api_timeout_in_ms=20000",
    )
    held.server.ready()
    return held


@pytest.fixture
def held(narrow: Held) -> Iterator[Held]:
    narrow.hold()
    yield narrow
    narrow.release()


@pytest.mark.rule("batch-5")
def test_more_than_may_wait_is_refused_at_once(held: Held) -> None:
    running = held.ask("a", 1.0)
    wait_until(lambda: held.notes == ["begin a 1"], "the first one is computed")
    others = [held.ask("a", float(value)) for value in range(2, 8)]
    wait_until(lambda: sum(each.done() for each in others) == 4, "four of six were refused while nothing moved")
    refused = [each.result() for each in others if each.done()]
    assert {reply.status for reply in refused} == {503}
    assert all("queue" in reply.error for reply in refused), refused[0].error
    held.release()
    answered = [running.result(), *(each.result() for each in others if each.result() not in refused)]
    assert [reply.status for reply in answered] == [200] * 3, "what was accepted is answered"


@pytest.mark.rule("batch-5")
def test_over_grpc_it_is_unavailable(held: Held) -> None:
    held.ask("a", 1.0)
    wait_until(lambda: held.notes == ["begin a 1"], "the first one is computed")
    request = protos.serving.PredictRequest()
    request.model_spec.name = "a"
    request.inputs["x"].dtype = 1
    for _ in range(2):
        request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(1.0)
    with grpc.insecure_channel(held.server.address) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [predict.future(request.SerializeToString(), timeout=20) for _ in range(4)]
        wait_until(lambda: sum(each.done() for each in calls) == 2, "two of four were refused")
        codes = {each.code() for each in calls if each.done()}
        held.release()
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        assert sum(each.exception() is None for each in calls) == 2


@pytest.mark.rule("batch-6")
def test_one_batch_thread_runs_one_batch_of_all_models_in_turn(held: Held) -> None:
    first = held.ask("a", 1.0)
    wait_until(lambda: held.notes == ["begin a 1"], "the first one is computed")
    others = {model: [held.ask(model, float(value)) for value in range(4)] for model in ("a", "b")}
    wait_until(lambda: all(sum(each.done() for each in asked) == 2 for asked in others.values()), "the queues are full")
    waiting = [each for asked in others.values() for each in asked if not each.done()]
    assert held.notes == ["begin a 1"], "nothing else began"
    held.release()
    assert [each.result().status for each in (first, *waiting)] == [200] * 5
    notes = [line.split()[:2] for line in held.notes]
    assert [what for what, _ in notes] == ["begin", "end"] * 5, "never two at a time"
    order = [model for what, model in notes if what == "begin"]
    assert order.index("b") < 3, f"b waited for all of a: {order}"


@pytest.fixture(scope="module")
def wide(make: Make) -> Held:
    """Four rows a batch; whoever comes waits for others."""
    held = make(
        "max_batch_size { value: 4 } num_batch_threads { value: 1 } batch_timeout_micros { value: 50000 }",
        "--rest_api_timeout_in_ms=400",
    )
    held.server.ready()
    return held


@pytest.mark.rule("batch-11")
def test_a_bad_row_fails_alone(wide: Held) -> None:
    for _ in range(50):
        wide.hold()
        wide.release()
        good, bad = wide.ask("a", 1.0), wide.ask("a", 13.0)
        assert good.result().json == {"predictions": [[2.0]]}
        assert bad.result().status == 400
        assert "13 is not to be had" in bad.result().error
        if "begin a 2" in wide.notes:
            return
    raise AssertionError("they never shared a batch")


@pytest.mark.rule("batch-15")
def test_outputs_that_are_no_rows_are_computed_for_each_request(wide: Held) -> None:
    asked = {value: wide.ask("total", value, value) for value in (1.0, 2.0, 3.0)}
    for value, reply in asked.items():
        status, _, body = reply.result()
        assert (status, reply.result().json) == (200, {"predictions": [2 * value]}), body


@pytest.mark.rule("batch-12")
def test_a_deadline_that_passes_in_the_queue_is_told_then(wide: Held) -> None:
    wide.hold()
    try:
        running = wide.ask("a", 1.0)
        wait_until(lambda: "begin a 1" in wide.notes, "the first one is computed")
        late = wide.ask("b", 2.0)
        assert late.result(timeout=10).status == 504, "told while nothing moves"
        assert running.result(timeout=10).status == 504
        assert "begin b 1" not in wide.notes, "it was never computed"
    finally:
        wide.release()


@pytest.mark.rule("batch-14")
def test_parameters_of_a_version(models: LiveModels, serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    for name in ("small", "large"):
        shutil.copytree(models.onnx("half_plus_two"), tmp_path / name)
    (tmp_path / "small" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    server = serve(
        tmp_path / "small", tmp_path / "large", "--enable_batching", "--enable_per_model_batching_parameters"
    ).ready()
    body = {"instances": [[1.0]] * 3}
    refused = call(server.address, "POST", "/v1/models/small:predict", body)
    assert refused.status == 400
    assert refused.error.startswith("Task size 3 is larger than maximum")
    assert call(server.address, "POST", "/v1/models/large:predict", body).json == {"predictions": [[2.5]] * 3}
