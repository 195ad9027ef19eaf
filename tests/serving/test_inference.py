from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeModel, signature_of

from servable.core.errors import Code, ServingError
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import FLOAT32, Array
from servable.engines.plan import Choice
from servable.lifecycle.config import ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.manager import LoadedModel, LoadedVersion, Manager
from servable.lifecycle.warmup import WarmupOptions, warm_up
from servable.serving.inference import Executor, Inference
from servable.serving.plans import BatchingOptions

HALF = ModelRef("half")


class Watcher:
    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.waits = 0

    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None:
        assert ref == ModelRef("half", 1)
        assert seconds >= 0
        assert computed >= rows
        self.batches.append((items, rows))

    def tried(self, model: str, version: int, outcome: str) -> None:
        raise AssertionError("nothing is on trial")

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        raise AssertionError("nothing is on trial")

    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None:
        assert seconds >= 0
        self.waits += 1


class Bench:
    """One fake model behind the real request path."""

    def __init__(self, model: FakeModel, inference: Inference, manager: Manager, watcher: Watcher) -> None:
        self.model = model
        self.inference = inference
        self.manager = manager
        self.watcher = watcher

    async def ask(self, *values: float, deadline_s: float | None = None, ref: ModelRef = HALF) -> list[float]:
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        request = InferRequest(ref, {"x": np.array(values, np.float32)}, deadline=deadline)
        found: list[float] = (await self.inference.infer(request)).outputs["y"].tolist()
        return found

    @property
    def in_use(self) -> int:
        return sum(loaded.in_use for loaded in self.manager.loaded())


@asynccontextmanager
async def bench(
    model: FakeModel, options: BatchingOptions | None = None, *, isolated: bool = True, warmup: bool = True
) -> AsyncIterator[Bench]:
    """``isolated`` keeps every batch on the engine's thread."""
    watcher = Watcher()
    choice = Choice("fake", "f32", isolated, "a test")

    def load(spec: VersionSpec) -> LoadedModel:
        return LoadedModel(model, choice)

    def prepare(loaded: LoadedVersion) -> Executor:
        profiles = warm_up(loaded.model, WarmupOptions(enabled=warmup, batch_rows=4))
        model.batches.clear()
        model.threads.clear()
        return inference.prepare(loaded, profiles)

    loop = asyncio.get_running_loop()
    manager = Manager(ManagerOptions(poll_s=-1), prepare=prepare, retire=Inference.retire, load=load, loop=loop)
    inference = Inference(manager, options or BatchingOptions(), watcher, loop)
    manager.apply([ModelConfig("half", Path("/nowhere"))])
    manager.follow({"half": {1: VersionSpec("half", 1, Path("/nowhere/1"))}})
    assert await manager.wait_ready(10)
    try:
        yield Bench(model, inference, manager, watcher)
    finally:
        model.gate.set()
        await manager.stop()


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


@pytest.mark.parametrize("isolated", [True, False])
def test_answers_come_back_to_those_who_asked(isolated: bool) -> None:
    async def test() -> None:
        async with bench(FakeModel(), BatchingOptions(inline_s=10, max_rows=4), isolated=isolated) as it:
            answers = await asyncio.gather(*(it.ask(float(i), float(-i)) for i in range(100)))
            assert answers == [[i / 2 + 2, -i / 2 + 2] for i in range(100)]
            assert it.in_use == 0
            assert sum(items for items, _ in it.watcher.batches) == 100
            assert max(rows for _, rows in it.watcher.batches) <= 4
            assert it.watcher.waits == 100
            assert ("MainThread" in it.model.threads) is not isolated

    run(test)


def test_requests_merge_while_the_engine_is_busy() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:
            it.model.gate.clear()
            first = asyncio.ensure_future(it.ask(1.0))
            while not it.inference._manager.loaded()[0].executor.runner.running:
                await asyncio.sleep(0)
            rest = [asyncio.ensure_future(it.ask(float(i))) for i in range(10)]
            await asyncio.sleep(0)
            it.model.gate.set()
            await asyncio.gather(first, *rest)
            assert it.model.batches == [1, 10]

    run(test)


def test_without_proof_nothing_is_merged() -> None:
    def mean(inputs: object) -> dict[str, Array]:
        x = inputs["x"]  # type: ignore[index]
        return {"y": x - x.mean()}

    async def test() -> None:
        async with bench(FakeModel(mean)) as it:
            assert await asyncio.gather(*(it.ask(float(i), float(i + 2)) for i in range(10))) == [[-1.0, 1.0]] * 10
            assert it.model.batches == [2] * 10

    run(test)


def test_batching_can_be_off() -> None:
    async def test() -> None:
        async with bench(FakeModel(), BatchingOptions(mode="off")) as it:
            await asyncio.gather(*(it.ask(float(i)) for i in range(10)))
            assert it.model.batches == [1] * 10

    run(test)


def test_one_bad_request_fails_alone() -> None:
    async def test() -> None:
        async with bench(FakeModel(refuse_above=100)) as it:
            outcomes = await asyncio.gather(*(it.ask(v) for v in (1.0, 1000.0, 3.0)), return_exceptions=True)
            assert outcomes[0] == [2.5]
            assert outcomes[2] == [3.5]
            assert isinstance(outcomes[1], ServingError)
            assert outcomes[1].code is Code.INVALID_ARGUMENT
            assert it.in_use == 0

    run(test)


def test_a_reply_that_fails_costs_no_other_its_own() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:

            def fail(_: InferResponse | ServingError) -> None:
                raise RuntimeError("this client cannot be answered")

            it.model.gate.clear()
            for deadline in (None, time.monotonic() + 0.02):
                request = InferRequest(HALF, {"x": np.array([1.0], np.float32)}, deadline=deadline)
                it.inference.submit(request, fail)
            late = asyncio.ensure_future(it.ask(3.0, deadline_s=0.05))
            asked = asyncio.ensure_future(it.ask(2.0))
            with pytest.raises(ServingError):
                await late
            it.model.gate.set()
            assert await asked == [3.0]
            assert it.in_use == 0

    run(test)


@pytest.mark.rule("deadline-1", "batch-12")
def test_a_deadline_ends_a_request_wherever_it_is() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:
            it.model.gate.clear()
            outcomes = await asyncio.gather(
                *(it.ask(float(i), deadline_s=0.05) for i in range(5)), return_exceptions=True
            )
            assert [getattr(outcome, "code", None) for outcome in outcomes] == [Code.DEADLINE_EXCEEDED] * 5
            late = asyncio.ensure_future(it.ask(7.0))
            await asyncio.sleep(0)
            it.model.gate.set()
            assert await late == [5.5]
            assert it.in_use == 0, "work that nobody waits for must not hold the version"

    run(test)


def test_a_deadline_that_has_passed_is_not_computed() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:
            with pytest.raises(ServingError) as raised:
                await it.ask(1.0, deadline_s=-1)
            assert raised.value.code is Code.DEADLINE_EXCEEDED
            assert it.model.batches == []

    run(test)


def test_a_cancelled_request_that_waits_is_never_computed() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:
            it.model.gate.clear()
            first = asyncio.ensure_future(it.ask(1.0))
            while not it.inference._manager.loaded()[0].executor.runner.running:
                await asyncio.sleep(0)
            second = asyncio.ensure_future(it.ask(2.0))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            it.model.gate.set()
            assert await first == [2.5]
            assert await it.ask(3.0) == [3.5]
            assert it.model.batches == [1, 1]
            assert it.in_use == 0

    run(test)


def test_a_full_queue_refuses_and_recovers() -> None:
    async def test() -> None:
        async with bench(FakeModel(), BatchingOptions(max_queued=3)) as it:
            outcomes = await asyncio.gather(*(it.ask(float(i)) for i in range(5)), return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, ServingError)]
            assert [error.code for error in refused] == [Code.UNAVAILABLE] * 2
            assert "queue of model half version 1 is full" in refused[0].message
            assert await it.ask(1.0) == [2.5]
            assert it.in_use == 0

    run(test)


def test_what_is_wrong_with_a_request_is_said() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:

            async def fails(code: Code, words: str, **changes: object) -> None:
                given: dict[str, object] = {"model": HALF, "inputs": {"x": np.zeros(1, np.float32)}, **changes}
                with pytest.raises(ServingError, match=words) as raised:
                    await it.inference.infer(InferRequest(**given))  # type: ignore[arg-type]
                assert raised.value.code is code

            await fails(Code.NOT_FOUND, r"Latest\(other\)", model=ModelRef("other"))
            await fails(Code.NOT_FOUND, r"Specific\(half, 9\)", model=ModelRef("half", 9))
            await fails(Code.FAILED_PRECONDITION, 'key "sig" not found', signature="sig")
            await fails(Code.INVALID_ARGUMENT, r"len\({}\) != len\({x}\).*Missing but required: {x}", inputs={})
            await fails(Code.INVALID_ARGUMENT, r"alias: x\(feed name: x:0\)", inputs={"z": np.zeros(1, np.float32)})
            await fails(Code.INVALID_ARGUMENT, "to be float but double is provided", inputs={"x": np.zeros(1)})
            await fails(Code.INVALID_ARGUMENT, "alias not found in signature: q", output_filter=("q",))
            await fails(Code.INVALID_ARGUMENT, "duplicate output tensor alias: y", output_filter=("y", "y"))
            assert it.model.batches == []
            assert it.in_use == 0

    run(test)


@pytest.mark.rule("batch-1")
def test_rows_of_different_shapes_and_filters_do_not_mix() -> None:
    signature = signature_of(
        inputs={"x": (FLOAT32, (None, None))}, outputs={"y": (FLOAT32, (None, None)), "n": (FLOAT32, (None,))}
    )

    def compute(inputs: object) -> dict[str, Array]:
        x = inputs["x"]  # type: ignore[index]
        return {"y": x * 2, "n": x.sum(axis=1)}

    async def test() -> None:
        async with bench(FakeModel(compute, [signature])) as it:

            async def ask(columns: int, *names: str) -> InferResponse:
                x = np.full((1, columns), 3, np.float32)
                return await it.inference.infer(InferRequest(HALF, {"x": x}, output_filter=names))

            narrow, wide, filtered = await asyncio.gather(ask(2), ask(3), ask(2, "n"))
            assert narrow.outputs["y"].tolist() == [[6.0, 6.0]]
            assert wide.outputs["n"].tolist() == [9.0]
            assert list(filtered.outputs) == ["n"]
            assert len(it.model.batches) == 3

    run(test)


def test_unloading_waits_for_the_work_in_hand() -> None:
    async def test() -> None:
        async with bench(FakeModel()) as it:
            it.model.gate.clear()
            asked = asyncio.ensure_future(it.ask(1.0))
            await asyncio.sleep(0.01)
            it.manager.follow({"half": {}})
            await asyncio.sleep(0.01)
            assert it.model.closed == 0
            with pytest.raises(ServingError) as raised:
                await it.ask(2.0)
            assert raised.value.code is Code.NOT_FOUND
            it.model.gate.set()
            assert await asked == [2.5]
            async with asyncio.timeout(10):
                while not it.model.closed:
                    await asyncio.sleep(0.001)

    run(test)


class Notebook:
    """Writes down every second request."""

    def __init__(self) -> None:
        self.count = 0
        self.taken: list[tuple[float, float]] = []

    def picks(self) -> bool:
        self.count += 1
        return self.count % 2 == 0

    def take(self, request: InferRequest, response: InferResponse) -> None:
        self.taken.append((float(request.inputs["x"][0]), float(response.outputs["y"][0])))


def test_picked_requests_are_written_down_when_they_were_answered() -> None:
    async def test() -> None:
        async with bench(FakeModel(refuse_above=100)) as it:
            notes, other = Notebook(), Notebook()
            it.inference.log_to({"half": notes, "other": other})
            for value in (1.0, 2.0, 3.0, 4.0):
                await it.ask(value)
            assert notes.taken == [(2.0, 3.0), (4.0, 4.0)]
            await it.ask(5.0)
            with pytest.raises(ServingError):
                await it.ask(1000.0)
            assert len(notes.taken) == 2, "failures have no answer to write down"
            it.inference.log_to({})
            await it.ask(6.0)
            await it.ask(7.0)
            assert len(notes.taken) == 2
            assert other.count == 0

    run(test)


def test_a_rehearsal_is_what_a_request_would_meet() -> None:
    async def test() -> None:
        async with bench(FakeModel(refuse_above=100)) as it:
            loaded = it.manager.loaded()[0]

            def rehearse(**given: object) -> None:
                it.inference.rehearse(loaded, loaded.executor, InferRequest(ModelRef("any"), **given))  # type: ignore[arg-type]

            rehearse(inputs={"x": np.array([1.0, 2.0], np.float32)})
            assert it.model.batches == [2]
            for wrong, words in (
                ({"inputs": {"x": np.array([1.0])}}, "float but double"),
                ({"inputs": {"x": np.array([1000.0], np.float32)}}, "row above"),
                ({"inputs": {}, "signature": "none"}, "not found"),
            ):
                with pytest.raises(ServingError, match=words):
                    rehearse(**wrong)
            assert it.in_use == 0

    run(test)
