"""Answers in parts over the request path: order, back-pressure, turns, ends. A model whose generators remember."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes import signature_of

from servable.core.errors import Code, ServingError, invalid_argument
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import Array
from servable.engines.base import Model
from servable.engines.plan import Choice
from servable.lifecycle.config import ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.manager import LoadedModel, LoadedVersion, Manager
from servable.lifecycle.warmup import WarmupOptions, warm_up
from servable.serving import streaming
from servable.serving.inference import Executor, Inference
from servable.serving.plans import BatchingOptions
from servable.serving.streaming import Stream


class CountingModel(Model):
    """Counts up to its input, a part for each number; below zero without end. On the way to a number 13 is an error."""

    engine = "fake"

    def __init__(self) -> None:
        self.signatures = {
            "serving_default": replace(signature_of(), streamed=True),
            "whole": replace(signature_of(), name="whole"),
        }
        self.made: list[float] = []
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.made.append(-1)
        return {"y": inputs["x"]}

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        try:
            end, number = float(inputs["x"][0]), 0
            while end < 0 or number < end:
                assert self.gate.wait(10)
                number += 1
                if number == 13 and end > 0:
                    raise invalid_argument("thirteen")
                self.made.append(number)
                yield {"y": np.array([number], np.float32)}
        finally:
            self.closed += 1

    def close(self) -> None:
        pass


class Watcher:
    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None: ...
    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None: ...
    def tried(self, model: str, version: int, outcome: str) -> None: ...
    def trial(self, model: str, version: int, *, ended: bool) -> None: ...


class Taker:
    """Takes parts, and says when it wants no more for now."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.found: list[float] = []
        self.ended: list[ServingError | None] = []

    def part(self, response: InferResponse) -> bool:
        assert not self.ended
        self.found.append(response.outputs["y"].tolist()[0])
        self.room -= 1
        return self.room > 0

    def end(self, error: ServingError | None) -> None:
        self.ended.append(error)


@asynccontextmanager
async def serving(model: CountingModel) -> AsyncIterator[Inference]:
    loop = asyncio.get_running_loop()

    def prepare(loaded: LoadedVersion) -> Executor:
        profiles = warm_up(loaded.model, WarmupOptions(batch_rows=1, budget_s=0))
        assert profiles["serving_default"].reason == "it answers in parts"
        assert (model.made.count(1), model.closed) == (1, 1), "warm-up runs the first part and closes the generator"
        model.made.clear()
        model.closed = 0
        return inference.prepare(loaded, profiles)

    manager = Manager(
        ManagerOptions(poll_s=-1),
        prepare=prepare,
        retire=Inference.retire,
        load=lambda spec: LoadedModel(model, Choice("fake", "f32", True, "a test")),
        loop=loop,
    )
    inference = Inference(manager, BatchingOptions(max_queued=4), Watcher(), loop)
    manager.apply([ModelConfig("count", Path("/nowhere"))])
    manager.follow({"count": {1: VersionSpec("count", 1, Path("/nowhere"))}})
    assert await manager.wait_ready(10)
    try:
        yield inference
        await until(lambda: all(loaded.in_use == 0 for loaded in manager.loaded()))
    finally:
        model.gate.set()
        await manager.stop(10)


def ask(end: float, signature: str = "", deadline_s: float | None = None) -> InferRequest:
    deadline = None if deadline_s is None else time.monotonic() + deadline_s
    return InferRequest(ModelRef("count"), {"x": np.array([end], np.float32)}, signature, deadline=deadline)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def run(test: Callable[[CountingModel, Inference], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        model = CountingModel()
        async with serving(model) as inference:
            await test(model, inference)

    asyncio.run(main())


def test_parts_come_in_order_and_whoever_wants_one_answer_gets_them_joined() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        async with aclosing(inference.infer_stream(ask(3))) as parts:
            assert [part.outputs["y"].tolist() async for part in parts] == [[1], [2], [3]]
        response = await inference.infer(ask(4))
        assert (response.outputs["y"].tolist(), response.model.version) == ([1, 2, 3, 4], 1)
        assert model.closed == 2
        with pytest.raises(ServingError, match="no parts"):
            await inference.infer(ask(0))

    run(test)


def test_an_answer_that_is_not_made_in_parts_comes_as_one() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        async with aclosing(inference.infer_stream(ask(3, "whole"))) as parts:
            assert [part.outputs["y"].tolist() async for part in parts] == [[3]]

    run(test)


def test_nothing_is_made_that_the_client_does_not_take() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        taker = Taker(room=2)
        stream = inference.submit_stream(ask(-1), taker)
        assert isinstance(stream, Stream)
        await until(lambda: taker.found == [1, 2])
        assert (await inference.infer(ask(9, "whole"))).outputs["y"].tolist() == [9]
        assert model.made == [1, 2, -1]
        taker.room = 2
        stream.resume()
        await until(lambda: taker.found == [1, 2, 3, 4])
        stream.cancel()
        await until(lambda: bool(taker.ended))
        assert (model.closed, [error.code for error in taker.ended if error]) == (1, [Code.CANCELLED])

    run(test)


def test_streams_and_other_requests_take_turns_even_when_the_queue_is_full() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        takers = [Taker(room=10**9), Taker(room=10**9)]
        streams = [inference.submit_stream(ask(-1), taker) for taker in takers]
        await until(lambda: all(len(taker.found) > 3 for taker in takers))
        model.gate.clear()
        waiting = [asyncio.ensure_future(inference.infer(ask(1, "whole"))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(ServingError) as caught:
            await inference.infer(ask(1, "whole"))
        assert caught.value.code is Code.UNAVAILABLE
        model.made.clear()
        model.gate.set()
        await asyncio.gather(*waiting)
        assert model.made.index(-1) <= len(streams), "at most a part of each stream comes before those who wait"
        before = [len(taker.found) for taker in takers]
        await until(lambda: all(len(taker.found) > count + 3 for taker, count in zip(takers, before, strict=True)))
        for stream in streams:
            assert stream is not None
            stream.cancel()
        await until(lambda: all(taker.ended for taker in takers))

    run(test)


def test_an_error_ends_a_stream_after_its_parts() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        taker = Taker()
        inference.submit_stream(ask(20), taker)
        await until(lambda: bool(taker.ended))
        assert taker.found == list(range(1, 13))
        assert [error.message for error in taker.ended if error] == ["thirteen"]
        with pytest.raises(ServingError, match="thirteen"):
            await inference.infer(ask(20))

    run(test)


def test_a_stream_ends_at_its_deadline_while_its_client_waits_or_a_part_is_made() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        idle = Taker(room=1)
        inference.submit_stream(ask(-1, deadline_s=0.1), idle)
        await until(lambda: bool(idle.ended))
        await until(lambda: model.closed == 1)
        model.gate.clear()
        busy = Taker()
        inference.submit_stream(ask(-1, deadline_s=0.1), busy)
        await until(lambda: bool(busy.ended))
        model.gate.set()
        await until(lambda: model.closed == 2)
        for taker in (idle, busy):
            assert [error.code for error in taker.ended if error] == [Code.DEADLINE_EXCEEDED]

    run(test)


def test_a_stream_that_is_cancelled_while_it_is_queued_never_begins() -> None:
    async def test(model: CountingModel, inference: Inference) -> None:
        taker = Taker()
        stream = inference.submit_stream(ask(5), taker)
        assert stream is not None
        stream.cancel()
        stream.cancel()
        await until(lambda: bool(taker.ended))
        assert (model.made, taker.found) == ([], [])
        async with aclosing(inference.infer_stream(ask(-1))) as parts:
            await anext(parts)
        await until(lambda: model.closed == 1)

    run(test)


def test_a_consumer_that_fails_costs_its_own_stream(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Taker):
        def part(self, response: InferResponse) -> bool:
            raise ZeroDivisionError

    async def test(model: CountingModel, inference: Inference) -> None:
        taker = Failing()
        inference.submit_stream(ask(-1), taker)
        await until(lambda: bool(taker.ended))
        assert model.closed == 1
        assert (await inference.infer(ask(2))).outputs["y"].tolist() == [1, 2]

    run(test)
    assert "a part of an answer could not be given" in caplog.text


def test_an_answer_that_is_asked_for_whole_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "JOINED_BYTES", 40)

    async def test(model: CountingModel, inference: Inference) -> None:
        with pytest.raises(ServingError) as caught:
            await inference.infer(ask(-1))
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert (len(model.made), model.closed) == (11, 1)

    run(test)
