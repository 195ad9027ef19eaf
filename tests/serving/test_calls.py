"""Models that call models over the request path: real threads and a real loop, models that remember."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from tests.fakes import FakeModel, signature_of

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import Array
from servable.engines.base import Caller, Model
from servable.engines.plan import Choice
from servable.lifecycle.config import ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.manager import LoadedModel, LoadedVersion, Manager
from servable.lifecycle.warmup import WarmupOptions, warm_up
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.calls import Calls
from servable.serving.inference import Executor, Inference
from servable.serving.pending import Pending
from servable.serving.plans import BatchingOptions


class CallingModel(Model):
    """Calls a model once for each row of its input, all at once, and adds up what comes; as an engine's thread does."""

    engine = "fake"

    def __init__(self, used: str) -> None:
        self.signatures = {"serving_default": signature_of()}
        self.uses = (used,)
        self.caller: Caller | None = None
        self.asked = threading.Event()

    def calling(self, caller: Caller) -> Model:
        view = CallingModel(self.uses[0])
        view.caller, view.asked = caller, self.asked
        return view

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert self.caller is not None
        rows = inputs["x"]
        told: SimpleQueue[tuple[int, InferResponse | ServingError]] = SimpleQueue()
        requests = {
            number: InferRequest(ModelRef(self.uses[0]), {"x": rows[number : number + 1]})
            for number in range(len(rows))
        }
        self.caller.call(requests, lambda number, outcome: told.put((number, outcome)))
        self.asked.set()
        y = np.zeros(len(rows), np.float32)
        for _ in requests:
            number, outcome = told.get(timeout=10)
            if isinstance(outcome, ServingError):
                self.caller.give_up()
                raise outcome
            y[number] = outcome.outputs["y"][0] + 1
        return {"y": y}

    def close(self) -> None:
        pass


class Unwatched:
    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None: ...
    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None: ...
    def tried(self, model: str, version: int, outcome: str) -> None: ...
    def trial(self, model: str, version: int, *, ended: bool) -> None: ...


@asynccontextmanager
async def serving(models: Mapping[str, Model], *, one_slot: bool = False) -> AsyncIterator[Inference]:
    """``one_slot``: all models share one batch thread, by TensorFlow Serving's parameters."""
    loop = asyncio.get_running_loop()
    parameters = BatchingParameters(num_batch_threads=1, max_batch_size=64) if one_slot else None

    def load(spec: VersionSpec) -> LoadedModel:
        return LoadedModel(models[spec.name], Choice("fake", "f32", True, "a test"))

    def prepare(loaded: LoadedVersion) -> Executor:
        model = loaded.model.calling(inference.calls_for(loaded))
        return inference.prepare(loaded, warm_up(model, WarmupOptions(batch_rows=2, budget_s=0)), parameters)

    manager = Manager(ManagerOptions(poll_s=-1), prepare=prepare, retire=Inference.retire, load=load, loop=loop)
    inference = Inference(manager, BatchingOptions(parameters=parameters), Unwatched(), loop)
    manager.apply([ModelConfig(name, Path("/nowhere")) for name in models])
    manager.follow(
        {name: {1: VersionSpec(name, 1, Path("/nowhere"), uses=model.uses)} for name, model in models.items()}
    )
    try:
        assert await manager.wait_ready(10)
        for model in models.values():
            if isinstance(model, FakeModel):
                model.batches.clear()
            elif isinstance(model, CallingModel):
                model.asked.clear()
        yield inference
    finally:
        for model in models.values():
            if isinstance(model, FakeModel):
                model.gate.set()
        await manager.stop(10)


def ask(name: str, *values: float, deadline_s: float | None = None, callers: tuple[str, ...] = ()) -> InferRequest:
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    return InferRequest(ModelRef(name), {"x": np.array(values, np.float32)}, deadline=deadline, callers=callers)


async def answer(inference: Inference, request: InferRequest) -> list[float]:
    found: list[float] = (await inference.infer(request)).outputs["y"].tolist()
    return found


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@pytest.mark.parametrize("one_slot", [False, True])
def test_calls_of_one_computation_share_a_batch_and_need_no_slot_of_their_callers(one_slot: bool) -> None:
    async def test() -> None:
        half = FakeModel()
        models = {"top": CallingModel("middle"), "middle": CallingModel("half"), "half": half}
        async with serving(models, one_slot=one_slot) as inference:
            answers = await asyncio.gather(*(answer(inference, ask("top", v, v + 2)) for v in range(0, 20, 4)))
            assert answers == [[v / 2 + 4, v / 2 + 5] for v in range(0, 20, 4)]
            assert max(half.batches) > 1

    run(test)


def test_a_deadline_ends_the_calls_too() -> None:
    async def test() -> None:
        half = FakeModel()
        async with serving({"top": CallingModel("half"), "half": half}) as inference:
            half.gate.clear()
            late = asyncio.ensure_future(answer(inference, ask("top", 1, deadline_s=0.05)))
            with pytest.raises(ServingError) as caught:
                await late
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            await until(lambda: all(loaded.in_use == 0 for loaded in loaded_of(inference, "top")))
            half.gate.set()
            assert await answer(inference, ask("top", 2)) == [4]

    run(test)


@pytest.mark.parametrize(("deadlines", "latest"), [((5.0, 7.0, 6.0), 7.0), ((5.0, None), None), ((None,), None)])
def test_calls_go_out_in_the_name_of_those_who_wait(deadlines: tuple[float | None, ...], latest: float | None) -> None:
    async def test() -> None:
        async with serving({"half": FakeModel()}) as inference:
            asked: list[InferRequest] = []
            items = [Pending(loaded_of(inference, "half")[0], "", {}, (), None, deadline) for deadline in deadlines]
            items[0].callers = ("top",)
            calls = Calls.of(items, lambda request, _reply: asked.append(request), asyncio.get_running_loop())
            calls.call({1: ask("other", 1)}, lambda _number, _outcome: None)
            await until(lambda: bool(asked))
            assert (asked[0].deadline, asked[0].callers) == (latest, ("top", "half"))

    run(test)


def test_when_the_caller_is_cancelled_its_calls_are() -> None:
    async def test() -> None:
        half, top = FakeModel(), CallingModel("half")
        async with serving({"top": top, "half": half}) as inference:
            half.gate.clear()
            blocker = asyncio.ensure_future(answer(inference, ask("half", 8)))
            asked = asyncio.ensure_future(answer(inference, ask("top", 1, 2, 3)))
            await until(top.asked.is_set)
            asked.cancel()
            await until(lambda: all(loaded.in_use == 0 for loaded in loaded_of(inference, "top")))
            half.gate.set()
            assert await blocker == [6]
            assert await answer(inference, ask("half", 2)) == [3]
            assert half.batches == [1, 1], "what was cancelled is not computed"

    run(test)


def test_an_error_of_the_model_that_was_called_comes_back() -> None:
    async def test() -> None:
        async with serving({"top": CallingModel("half"), "half": FakeModel(refuse_above=100)}) as inference:
            with pytest.raises(ServingError) as caught:
                await answer(inference, ask("top", 1, 1000))
            assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, "row above 100")

    run(test)


def test_a_model_that_is_gone_is_an_error_at_once() -> None:
    async def test() -> None:
        async with serving({"top": CallingModel("half"), "half": FakeModel()}) as inference:
            inference._manager.follow({"top": {1: VersionSpec("top", 1, Path("/nowhere"), uses=("half",))}})
            await until(lambda: not loaded_of(inference, "half"))
            with pytest.raises(ServingError) as caught:
                await answer(inference, ask("top", 1))
            assert caught.value.code is Code.NOT_FOUND

    run(test)


def test_a_circle_is_refused_when_it_would_close() -> None:
    async def test() -> None:
        async with serving({"top": CallingModel("half"), "half": FakeModel()}) as inference:
            with pytest.raises(ServingError) as caught:
                await answer(inference, ask("top", 1, callers=("half",)))
            assert caught.value.code is Code.FAILED_PRECONDITION
            assert "in a circle: half -> top -> half" in caught.value.message

    run(test)


def loaded_of(inference: Inference, name: str) -> list[LoadedVersion]:
    return [loaded for loaded in inference._manager.loaded() if loaded.name == name]
