"""Trials through the request path: who answers, what is counted, what nobody sees."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeModel, signature_of

from servable.core.errors import ServingError, internal
from servable.core.messages import InferRequest, InferResponse, ModelRef
from servable.core.tensors import Array
from servable.engines.plan import Choice
from servable.lifecycle.config import All, ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.manager import LoadedModel, LoadedVersion, Manager
from servable.lifecycle.warmup import WarmupOptions, warm_up
from servable.serving.canary import CanaryOptions
from servable.serving.inference import Executor, Inference
from servable.serving.plans import BatchingOptions


class Watcher:
    def __init__(self) -> None:
        self.outcomes: Counter[tuple[int, str]] = Counter()
        self.ended: dict[int, bool] = {}

    def batch(
        self, ref: ModelRef, signature: str, items: int, rows: int, computed: int, began: float, seconds: float
    ) -> None:
        pass

    def queued(self, ref: ModelRef, signature: str, rows: int, tensors: int, seconds: float) -> None:
        pass

    def tried(self, model: str, version: int, outcome: str) -> None:
        assert model == "m"
        self.outcomes[version, outcome] += 1

    def trial(self, model: str, version: int, *, ended: bool) -> None:
        self.ended[version] = ended


class Trials:
    def __init__(self, inference: Inference, manager: Manager, watcher: Watcher) -> None:
        self.inference, self.manager, self.watcher = inference, manager, watcher

    async def ask(self, value: float = 1.0, ref: ModelRef = ModelRef("m")) -> InferResponse:  # noqa: B008
        return await self.inference.infer(InferRequest(ref, {"x": np.array([value], np.float32)}))

    async def versions(self, count: int) -> Counter[int | None]:
        return Counter([(await self.ask()).model.version for _ in range(count)])

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            while self.inference._router._shadows or any(loaded.in_use for loaded in self.manager.loaded()):
                await asyncio.sleep(0.001)


def lots() -> Iterator[float]:
    """Even lots: of any hundred in a row, as many are below 0.25 as there should be."""
    return itertools.cycle([index * 37 % 100 / 100 for index in range(100)])


@asynccontextmanager
async def trials(models: dict[int, FakeModel], **options: object) -> AsyncIterator[Trials]:
    watcher = Watcher()

    def load(spec: VersionSpec) -> LoadedModel:
        return LoadedModel(models[spec.version], Choice("fake", "f32", True, "a test"))

    def prepare(loaded: LoadedVersion) -> Executor:
        profiles = warm_up(loaded.model, WarmupOptions(enabled=False))
        return inference.prepare(loaded, profiles)

    loop = asyncio.get_running_loop()
    manager = Manager(ManagerOptions(poll_s=-1), prepare=prepare, retire=Inference.retire, load=load, loop=loop)
    inference = Inference(manager, BatchingOptions(), watcher, loop)
    inference._router._draw = lots().__next__
    manager.apply([ModelConfig("m", Path("/nowhere"), policy=All())])
    manager.follow({"m": {version: VersionSpec("m", version, Path("/nowhere")) for version in models}})
    async with asyncio.timeout(10):
        while len(manager.loaded()) < len(models):
            await asyncio.sleep(0.001)
    if options:
        inference.try_out({"m": CanaryOptions(**options)})  # type: ignore[arg-type]
    try:
        yield Trials(inference, manager, watcher)
    finally:
        await manager.stop()


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_share_of_the_requests_goes_to_the_new_version() -> None:
    async def test() -> None:
        async with trials({1: FakeModel(), 2: FakeModel()}, percent=20.0) as it:
            assert await it.versions(100) == {1: 80, 2: 20}
            for version in (1, 2):
                assert (await it.ask(ref=ModelRef("m", version))).model.version == version, "who names one gets it"
            it.inference.try_out({})
            assert await it.versions(10) == {2: 10}

    run(test)


def test_a_version_that_fails_is_rolled_back_while_requests_go_on() -> None:
    async def test() -> None:
        bad = FakeModel(refuse_above=0.0)
        async with trials({1: FakeModel(), 2: bad}, percent=50.0, min_requests=20) as it:
            outcomes = await asyncio.gather(*(it.ask() for _ in range(200)), return_exceptions=True)
            assert any(isinstance(outcome, ServingError) for outcome in outcomes)
            assert it.watcher.ended == {2: True}
            assert await it.versions(50) == {1: 50}
            assert it.watcher.outcomes[2, "failed"] >= 20

    run(test)


class Streamed(FakeModel):
    """Answers in two parts; one that is to fail does so after the first."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__(signatures=[replace(signature_of(), streamed=True)])
        self._fails = fails

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        yield self.run(signature, inputs, outputs)
        if self._fails:
            raise internal("broken in the middle")
        yield self.run(signature, inputs, outputs)


def test_answers_in_parts_count_too() -> None:
    async def test() -> None:
        models: dict[int, FakeModel] = {1: Streamed(fails=False), 2: Streamed(fails=True)}
        async with trials(models, percent=50.0, min_requests=10) as it:

            async def parts() -> list[InferResponse]:
                asked = InferRequest(ModelRef("m"), {"x": np.array([1.0], np.float32)})
                return [part async for part in it.inference.infer_stream(asked)]

            outcomes = [await asyncio.gather(parts(), return_exceptions=True) for _ in range(60)]
            assert any(isinstance(outcome, ServingError) for (outcome,) in outcomes)
            assert it.watcher.outcomes == {(2, "failed"): 10}, "then it was rolled back"
            assert it.watcher.ended == {2: True}
            assert {part.model.version for _ in range(10) for part in await parts()} == {1}

    run(test)


def test_shadows_are_compared_and_nobody_sees_them() -> None:
    async def test() -> None:
        new = FakeModel(lambda inputs: {"y": (inputs["x"] * 0.5 + 3).astype(np.float32)})
        async with trials(
            {1: FakeModel(), 2: new}, shadow_percent=50.0, max_difference_rate=0.5, min_requests=10
        ) as it:
            answers = [await it.ask() for _ in range(10)]
            assert all(answer.outputs["y"].tolist() == [2.5] for answer in answers)
            await it.settled()
            compared = it.watcher.outcomes[2, "different"]
            assert 3 <= compared <= 7
            await it.versions(30)
            await it.settled()
            assert it.watcher.ended == {2: True}
            asked = len(new.batches)
            assert await it.versions(30) == {1: 30}
            assert len(new.batches) == asked, "a trial that has ended asks no more"

    run(test)


@pytest.mark.parametrize("large", [False, True])
def test_equal_answers_keep_a_trial_alive(large: bool) -> None:
    def wide(inputs: object) -> dict[str, object]:
        x = inputs["x"]  # type: ignore[index]
        return {"y": np.repeat(x, 100_000 if large else 1)[: 100_000 if large else None]}

    async def test() -> None:
        models = {1: FakeModel(wide), 2: FakeModel(wide)}  # type: ignore[arg-type]
        async with trials(models, shadow_percent=100.0, max_difference_rate=0.0, min_requests=5) as it:
            for _ in range(20):
                await it.ask()
            async with asyncio.timeout(10):
                while it.watcher.outcomes[2, "same"] < 20:
                    await asyncio.sleep(0.001)
            assert it.watcher.outcomes[2, "different"] == 0
            assert it.watcher.ended == {2: False}

    run(test)


def test_a_shadow_that_fails_counts_against_the_version() -> None:
    async def test() -> None:
        bad = FakeModel(refuse_above=0.0)
        async with trials({1: FakeModel(), 2: bad}, shadow_percent=100.0, min_requests=5) as it:
            assert await it.versions(20) == {1: 20}
            await it.settled()
            assert it.watcher.ended == {2: True}

    run(test)


def test_slow_shadows_are_bounded_and_hold_nobody_up() -> None:
    async def test() -> None:
        slow = FakeModel()
        async with trials({1: FakeModel(), 2: slow}, shadow_percent=100.0) as it:
            slow.gate.clear()
            assert await it.versions(100) == {1: 100}
            assert it.watcher.outcomes[2, "not asked"] == 36
            slow.gate.set()
            await it.settled()
            assert it.watcher.outcomes[2, "same"] == 64

    run(test)


def test_a_trial_goes_on_when_its_options_stay_and_begins_anew_when_they_change() -> None:
    async def test() -> None:
        async with trials({1: FakeModel(), 2: FakeModel()}, percent=20.0) as it:
            canary = it.inference._router.canaries["m"]
            canary.ended[2] = "a test"
            it.inference.try_out({"m": CanaryOptions(percent=20.0)})
            assert await it.versions(20) == {1: 20}
            it.inference.try_out({"m": CanaryOptions(percent=100.0)})
            assert await it.versions(20) == {2: 20}

    run(test)
