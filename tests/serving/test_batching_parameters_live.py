"""TensorFlow Serving's batching parameters through the request path, down to what the engine is given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes import FakeModel, signature_of

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import FLOAT32, STRING, Array
from servable.engines.plan import Choice
from servable.lifecycle.config import ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.manager import LoadedModel, LoadedVersion, Manager
from servable.lifecycle.warmup import WarmupOptions, warm_up
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.inference import Executor, Inference
from servable.serving.plans import BatchingOptions

FOR_EVER_US = 3_600_000_000


class Watcher:
    def __init__(self) -> None:
        self.batches: list[tuple[str, int, int, int]] = []

    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None:
        self.batches.append((ref.name, items, rows, computed))

    def tried(self, model: str, version: int, outcome: str) -> None:
        raise AssertionError("nothing is on trial")

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        raise AssertionError("nothing is on trial")

    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None:
        assert seconds >= 0


class RequestPath:
    """Some fake models behind the request path; the parameters are for all of them."""

    def __init__(self, inference: Inference, manager: Manager, watcher: Watcher) -> None:
        self.inference = inference
        self.manager = manager
        self.batches = watcher.batches

    async def ask(self, x: Any, model: str = "m", dtype: Any = np.float32) -> InferResponse:
        return await self.inference.infer(InferRequest(ModelRef(model), {"x": np.array(x, dtype)}))

    def runner(self, model: str = "m") -> object:
        return next(it for it in self.manager.loaded() if it.name == model).executor.runner


@asynccontextmanager
async def serving(
    models: Mapping[str, FakeModel], parameters: BatchingParameters, *, warmup: bool = False
) -> AsyncIterator[RequestPath]:
    watcher = Watcher()

    def load(spec: VersionSpec) -> LoadedModel:
        return LoadedModel(models[spec.name], Choice("fake", "f32", not warmup, "a test"))

    def prepare(loaded: LoadedVersion) -> Executor:
        profiles = warm_up(loaded.model, WarmupOptions(enabled=warmup, batch_rows=4))
        models[loaded.name].batches.clear()
        models[loaded.name].threads.clear()
        return inference.prepare(loaded, profiles, parameters)

    loop = asyncio.get_running_loop()
    manager = Manager(ManagerOptions(poll_s=-1), prepare=prepare, retire=Inference.retire, load=load, loop=loop)
    inference = Inference(manager, BatchingOptions(parameters=parameters), watcher, loop)
    manager.apply([ModelConfig(name, Path("/nowhere")) for name in models])
    manager.follow({name: {1: VersionSpec(name, 1, Path("/nowhere/1"))} for name in models})
    assert await manager.wait_ready(10)
    try:
        yield RequestPath(inference, manager, watcher)
    finally:
        for model in models.values():
            model.gate.set()
        await manager.stop()


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.rule("batch-4")
def test_a_full_batch_does_not_wait_and_needs_no_proof() -> None:
    def rank(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"] - inputs["x"].mean()}

    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=4, batch_timeout_micros=FOR_EVER_US)
        model = FakeModel(rank)
        async with serving({"m": model}, parameters) as it:
            answers = await asyncio.gather(*(it.ask([float(i)]) for i in range(8)))
            assert model.batches == [4, 4]
            assert [answer.outputs["y"].tolist() for answer in answers] == [[-1.5], [-0.5], [0.5], [1.5]] * 2

    run(test)


@pytest.mark.rule("batch-4")
def test_an_open_batch_runs_at_its_timeout() -> None:
    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=4, batch_timeout_micros=20_000)
        model = FakeModel()
        async with serving({"m": model}, parameters) as it:
            answers = await asyncio.gather(*(it.ask([float(i)]) for i in range(6)))
            assert model.batches == [4, 2]
            assert answers[5].queue_s >= 0.02
            assert [answer.outputs["y"].tolist() for answer in answers] == [[i / 2 + 2] for i in range(6)]

    run(test)


@pytest.mark.rule("batch-7")
def test_batches_are_filled_up_to_an_allowed_size_and_nobody_sees_it() -> None:
    async def test() -> None:
        seen: list[list[float]] = []

        def double(inputs: Mapping[str, Array]) -> dict[str, Array]:
            seen.append(inputs["x"].tolist())
            return {"y": inputs["x"] * 2}

        parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(2, 8))
        async with serving({"m": FakeModel(double)}, parameters) as it:
            first = await it.ask([7.0])
            assert seen == [[7.0, 7.0]]
            assert first.outputs["y"].tolist() == [14.0]
            answers = await asyncio.gather(it.ask([1.0, 2.0]), it.ask([3.0, 4.0]))
            assert seen[1] == [1.0, 2.0, 3.0, 4.0, 3.0, 3.0, 3.0, 3.0], "padding is the last request's first row"
            assert [answer.outputs["y"].tolist() for answer in answers] == [[2.0, 4.0], [6.0, 8.0]]
            assert it.batches == [("m", 1, 1, 2), ("m", 2, 4, 8)]

    run(test)


@pytest.mark.rule("batch-11")
def test_a_bad_row_fails_alone_in_a_padded_batch() -> None:
    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8))
        model = FakeModel(refuse_above=100)
        async with serving({"m": model}, parameters) as it:
            outcomes = await asyncio.gather(it.ask([1.0]), it.ask([1000.0]), it.ask([3.0]), return_exceptions=True)
            assert isinstance(outcomes[1], ServingError)
            assert outcomes[1].code is Code.INVALID_ARGUMENT
            assert [outcomes[0].outputs["y"].tolist(), outcomes[2].outputs["y"].tolist()] == [[2.5], [3.5]]  # type: ignore[union-attr]
            assert model.batches == [4] * 4

    run(test)


@pytest.mark.rule("batch-9")
def test_rows_of_different_lengths_are_filled_up_if_asked() -> None:
    signature = signature_of(inputs={"x": (FLOAT32, (None, None, 2))}, outputs={"y": (FLOAT32, (None, None, 2))})

    async def test(pad: bool) -> list[tuple[int, ...]]:
        seen: list[Array] = []

        def same(inputs: Mapping[str, Array]) -> dict[str, Array]:
            seen.append(inputs["x"])
            return {"y": inputs["x"]}

        parameters = BatchingParameters(max_batch_size=8, pad_variable_length_inputs=pad)
        async with serving({"m": FakeModel(same, [signature])}, parameters) as it:
            answers = await asyncio.gather(it.ask([[[1, 2]]]), it.ask([[[3, 4], [5, 6]]]), it.ask([[[7, 8, 9]]]))
        if pad:
            assert seen[0].tolist() == [[[1, 2], [1, 1]], [[3, 4], [5, 6]]]
            assert answers[0].outputs["y"].tolist() == [[[1, 2], [1, 1]]], "outputs are not cut back"
        assert answers[2].outputs["y"].tolist() == [[[7, 8, 9]]]
        return [array.shape for array in seen]

    assert asyncio.run(test(pad=True)) == [(2, 2, 2), (1, 1, 3)], "a size that the signature fixes is never padded"
    assert sorted(asyncio.run(test(pad=False))) == [(1, 1, 2), (1, 1, 3), (1, 2, 2)]


def test_strings_are_padded_too() -> None:
    signature = signature_of(inputs={"x": (STRING, (None, None))}, outputs={"y": (STRING, (None, None))})

    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=8, pad_variable_length_inputs=True)
        async with serving({"m": FakeModel(lambda inputs: {"y": inputs["x"]}, [signature])}, parameters) as it:
            answers = await asyncio.gather(
                it.ask([[b"a"]], dtype=object), it.ask([[b"b", b"c"]], dtype=object), it.ask([[]], dtype=object)
            )
            found = [answer.outputs["y"].tolist() for answer in answers]
            assert found == [[[b"a", b"a"]], [[b"b", b"c"]], [[]]], "an empty tensor has nothing to be padded with"

    run(test)


@pytest.mark.rule("batch-8")
def test_a_large_request_is_split_and_joined_again() -> None:
    async def test() -> None:
        parameters = BatchingParameters(
            max_batch_size=100, max_execution_batch_size=4, enable_large_batch_splitting=True, batch_timeout_micros=1000
        )
        model = FakeModel(refuse_above=100)
        async with serving({"m": model}, parameters) as it:
            small, large = await asyncio.gather(it.ask([1.0]), it.ask([float(i) for i in range(10)]))
            assert small.outputs["y"].tolist() == [2.5]
            assert large.outputs["y"].tolist() == [i / 2 + 2 for i in range(10)]
            assert model.batches == [4, 4, 3]
            assert large.compute_s > 0
            assert 0 <= large.queue_s < 10
            with pytest.raises(ServingError) as raised:
                await it.ask([*range(9), 1000.0])
            assert raised.value.code is Code.INVALID_ARGUMENT
            assert (await it.ask([2.0])).outputs["y"].tolist() == [3.0]
            assert all(loaded.in_use == 0 for loaded in it.manager.loaded())

    run(test)


@pytest.mark.rule("batch-3", "batch-5")
def test_a_full_queue_and_a_request_that_is_too_large_are_refused() -> None:
    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=2, max_enqueued_batches=2, num_batch_threads=1)
        model = FakeModel()
        async with serving({"m": model}, parameters) as it:
            with pytest.raises(ServingError, match="Task size 5 is larger than maximum batch size 2") as raised:
                await it.ask([1.0] * 5)
            assert raised.value.code is Code.INVALID_ARGUMENT
            model.gate.clear()
            asked = [asyncio.ensure_future(it.ask([1.0, 2.0]))]
            await until(lambda: it.runner().running == 1)  # type: ignore[attr-defined]
            asked += [asyncio.ensure_future(it.ask([1.0, 2.0])) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(ServingError, match="currently 2 batches enqueued") as raised:
                await it.ask([1.0])
            assert raised.value.code is Code.UNAVAILABLE
            model.gate.set()
            await asyncio.gather(*asked)

    run(test)


@pytest.mark.rule("batch-10")
def test_what_cannot_share_runs_alone() -> None:
    signature = signature_of(inputs={"x": (FLOAT32, None)}, outputs={"y": (FLOAT32, None)})

    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(8,), batch_timeout_micros=FOR_EVER_US)
        async with serving({"m": FakeModel(signatures=[signature])}, parameters) as it:
            assert (await it.ask(3.0)).outputs["y"].tolist() == 3.5, "a scalar neither waits nor is padded"

    run(test)


class Counting(FakeModel):
    """Knows how many of its kind compute at once, at most."""

    now = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, meet: int, *, concurrent: bool) -> None:
        super().__init__(self._count)
        self.concurrent = concurrent
        self._barrier = threading.Barrier(meet)

    def _count(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with Counting.lock:
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
        self._barrier.wait(10)
        with Counting.lock:
            Counting.now -= 1
        return {"y": inputs["x"]}


@pytest.mark.parametrize("concurrent", [True, False])
def test_batch_threads_compute_beside_each_other_if_the_engine_can(concurrent: bool) -> None:
    async def test() -> None:
        Counting.most = 0
        parameters = BatchingParameters(max_batch_size=1, num_batch_threads=3, max_enqueued_batches=100)
        async with serving({"m": Counting(3 if concurrent else 1, concurrent=concurrent)}, parameters) as it:
            await asyncio.gather(*(it.ask([1.0]) for _ in range(9)))
            assert Counting.most == (3 if concurrent else 1)

    run(test)


@pytest.mark.rule("batch-6")
def test_batch_threads_are_for_all_models_together_and_none_starves() -> None:
    async def test() -> None:
        Counting.most = 0
        models = {name: Counting(1, concurrent=True) for name in ("a", "b", "c")}
        parameters = BatchingParameters(max_batch_size=1, num_batch_threads=1, max_enqueued_batches=100)
        async with serving(models, parameters) as it:
            ended: list[str] = []

            async def ask(model: str) -> None:
                await it.ask([1.0], model)
                ended.append(model)

            await asyncio.gather(*(ask(model) for model in "aaaaaaaaaabbbccc"))
            assert Counting.most == 1
            assert {"b", "c"} < set(ended[:6]), "models take turns"

    run(test)


def test_unloading_while_a_batch_fills_loses_nothing() -> None:
    async def test() -> None:
        parameters = BatchingParameters(max_batch_size=8, batch_timeout_micros=30_000)
        model = FakeModel()
        async with serving({"m": model}, parameters) as it:
            asked = [asyncio.ensure_future(it.ask([1.0])) for _ in range(3)]
            await asyncio.sleep(0)
            it.manager.follow({"m": {}})
            assert [answer.outputs["y"].tolist() for answer in await asyncio.gather(*asked)] == [[2.5]] * 3
            await until(lambda: model.closed == 1)

    run(test)


def test_short_batches_run_on_the_loop_as_without_parameters() -> None:
    async def test() -> None:
        model = FakeModel()
        async with serving({"m": model}, BatchingParameters(max_batch_size=4), warmup=True) as it:
            await asyncio.gather(*(it.ask([float(i)]) for i in range(4)))
            assert model.threads == {"MainThread"}

    run(test)


@pytest.mark.rule("batch-13")
def test_a_rehearsal_is_padded_split_and_refused_as_a_request_would_be() -> None:
    async def test() -> None:
        parameters = BatchingParameters(
            max_batch_size=8, max_execution_batch_size=4, allowed_batch_sizes=(4, 8), enable_large_batch_splitting=True
        )
        model = FakeModel()
        async with serving({"m": model}, parameters) as it:
            (loaded,) = it.manager.loaded()
            for rows in (1, 6):
                request = InferRequest(ModelRef("m"), {"x": np.zeros(rows, np.float32)})
                it.inference.rehearse(loaded, loaded.executor, request)
            assert model.batches == [4, 4, 4]
            with pytest.raises(ServingError, match="Task size 9 is larger than maximum batch size 8"):
                it.inference.rehearse(
                    loaded, loaded.executor, InferRequest(ModelRef("m"), {"x": np.zeros(9, np.float32)})
                )

    run(test)
