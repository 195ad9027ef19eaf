"""Versions come and go under load, arrive slowly, or are broken: what clients see is always whole."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import AsyncClient, Client
from servable.core.errors import Code
from servable.core.status import VersionState
from servable.core.tensors import Array
from servable.zoo import catalog

Start = Callable[..., ServerProcess]
NAME = "text_cnn_small"
SEEDS = {1: catalog.DEFAULT_SEED, 2: 77}
"""Version -> seed of its weights: every version answers in its own way."""
POLL = "--file_system_poll_wait_seconds=0.2"


def states(client: Client, model: str = NAME) -> dict[int, str]:
    return {status.version: status.state.name for status in client.status(model)}


@pytest.fixture
def base(models: LiveModels, tmp_path: Path) -> Path:
    """A model directory with version 1."""
    shutil.copytree(models.onnx(NAME), tmp_path / NAME)
    return tmp_path / NAME


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Version 2, not where the server looks."""
    return catalog.build(NAME, tmp_path / "elsewhere", version=2, seed=SEEDS[2], kind="onnx")


# -- under load --------------------------------------------------------------------------------------------------------


class Caller:
    """A client that calls without a pause, checks every answer, and notes which version gave it."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.inputs = catalog.sample_inputs(NAME, 1 + seed % 3, seed=seed)
        self.right = {v: catalog.reference(NAME, self.inputs, seed=s)["probs"] for v, s in SEEDS.items()}
        self.versions: list[int] = []

    async def call_until(self, stop: asyncio.Event) -> None:
        async with AsyncClient(self.url) as client:
            while not stop.is_set():
                answer = await client.predict(NAME, inputs=self.inputs)
                given = self._version_of(answer["probs"])
                told = answer.model.version
                assert told in {None, given}, f"an answer of version {given} came as version {told}"
                if not self.versions or self.versions[-1] != given:
                    self.versions.append(given)

    def _version_of(self, probs: Array) -> int:
        fitting = [v for v, right in self.right.items() if np.allclose(probs, right, rtol=1e-4, atol=1e-5)]
        assert len(fitting) == 1, f"{probs} is no version's answer"
        return fitting[0]


async def until_states(client: AsyncClient, wanted: dict[int, str]) -> None:
    async def found() -> dict[int, str]:
        return {status.version: status.state.name for status in await client.status(NAME)}

    async with asyncio.timeout(15):
        while await found() != wanted:
            await asyncio.sleep(0.02)


@pytest.mark.rule("manager-1", "select-3", "poll-4")
def test_no_client_notices_a_switch_and_the_way_back(serve: Start, base: Path, second: Path) -> None:
    server = serve(base, POLL).ready()
    callers = [Caller(server.grpc_url if i % 2 else server.rest_url, i) for i in range(32)]

    async def main() -> None:
        stop = asyncio.Event()
        calling = [asyncio.ensure_future(caller.call_until(stop)) for caller in callers]

        async def reached(history: list[int], change: Callable[[], object], wanted: dict[int, str]) -> None:
            await asyncio.to_thread(change)
            async with asyncio.timeout(15):
                while not all(caller.versions == history for caller in callers):
                    failed = [task for task in calling if task.done()]
                    assert not failed, failed[0].exception()
                    await asyncio.sleep(0.01)
            async with AsyncClient(server.grpc_url) as client:
                await until_states(client, wanted)

        await reached([1], lambda: None, {1: "AVAILABLE"})
        await reached([1, 2], lambda: shutil.copytree(second, base / "2"), {2: "AVAILABLE", 1: "END"})
        # A version that vanishes is not let go before what takes its place is there.
        await reached([1, 2, 1], lambda: shutil.rmtree(base / "2"), {2: "END", 1: "AVAILABLE"})
        stop.set()
        await asyncio.gather(*calling)

    asyncio.run(main())
    # The next version is there before the last one goes.
    changes = re.findall(r"version (\d): (AVAILABLE|UNLOADING)", server.stderr)
    went = [("1", "AVAILABLE"), ("2", "AVAILABLE"), ("1", "UNLOADING"), ("1", "AVAILABLE"), ("2", "UNLOADING")]
    assert changes == went


@pytest.mark.rule("manager-4")
def test_resources_first_if_that_is_asked_for(serve: Start, base: Path, second: Path) -> None:
    server = serve(base, POLL, "--version_transition", "resource_preserving").ready()
    with Client(server.grpc_url) as client:
        shutil.copytree(second, base / "2")
        wait_until(lambda: states(client) == {2: "AVAILABLE", 1: "END"}, "version 2 is served")
    log = server.stderr
    assert log.index("version 1: END") < log.index("version 2: LOADING")


def both_are_served(client: Client) -> bool:
    return states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}


@pytest.mark.rule("select-1", "select-2")
def test_a_version_that_is_asked_for_by_number(serve: Start, base: Path, second: Path, tmp_path: Path) -> None:
    shutil.copytree(second, base / "2")
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "{NAME}" base_path: "{base}" model_platform: "tensorflow"\n'
        '  model_version_policy { all {} } version_labels { key: "stable" value: 1 } } }'
    )
    server = serve("--model_config_file", config).ready()
    inputs = catalog.sample_inputs(NAME, 2, seed=9)
    for url in (server.grpc_url, server.rest_url):
        with Client(url) as client:
            # Ready means that the model can be called: its other versions may still be loading.
            wait_until(partial(both_are_served, client), "both versions are served")
            asked: list[tuple[dict[str, Any], int]] = [({}, 2), ({"version": 1}, 1), ({"version": 2}, 2)]
            for choice, version in [*asked, ({"label": "stable"}, 1)]:
                right = catalog.reference(NAME, inputs, seed=SEEDS[version])["probs"]
                answer = client.predict(NAME, inputs=inputs, **choice)
                np.testing.assert_allclose(answer["probs"], right, rtol=1e-4, atol=1e-5)


# -- arriving slowly, or broken ----------------------------------------------------------------------------------------


class Lookout:
    """Asks for the status without a pause, and remembers what was seen of a version before it was complete."""

    def __init__(self, url: str, model: str, version: int) -> None:
        self.complete = False
        self.early: list[str] = []
        self.looks = 0
        self._url = url
        self._model = model
        self._version = version
        self._stop = False
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

    def _watch(self) -> None:
        with Client(self._url) as client:
            while not self._stop and not self.complete:
                found = states(client, self._model).get(self._version)
                self.looks += 1
                # If it was completed while the answer was on its way, the answer may be of after that.
                if found is not None and not self.complete:
                    self.early.append(found)


def grow(target: Path, content: bytes, pieces: int, lookout: Lookout) -> None:
    """Write a file piece by piece, each long enough before the next for several looks at it."""
    size = -(-len(content) // pieces)
    pause = threading.Event()
    with target.open("wb") as file:
        for begin in range(0, len(content), size):
            if begin + size >= len(content):
                lookout.complete = True
            file.write(content[begin : begin + size])
            file.flush()
            if not lookout.complete:
                pause.wait(0.5)


@pytest.mark.rule("poll-5")
def test_a_slow_copy_is_never_loaded_early_and_a_broken_file_never_served(
    serve: Start, base: Path, second: Path
) -> None:
    server = serve(base, POLL).ready()
    inputs = catalog.sample_inputs(NAME, 2, seed=1)
    (base / "3").mkdir()
    (base / "3" / "model.onnx").write_bytes((second / "model.onnx").read_bytes()[:1_000_000])
    (base / "2").mkdir()
    with Client(server.grpc_url) as client, Lookout(server.grpc_url, NAME, 2) as lookout:
        grow(base / "2" / "model.onnx", (second / "model.onnx").read_bytes(), 10, lookout)
        wait_until(lambda: states(client).get(2) == "AVAILABLE", "version 2 is served")
        assert lookout.early == []
        assert lookout.looks > 20
        right = catalog.reference(NAME, inputs, seed=SEEDS[2])["probs"]
        np.testing.assert_allclose(client.predict(NAME, inputs=inputs)["probs"], right, rtol=1e-4, atol=1e-5)
        # Version 3 never proves itself: after ten seconds without a change it is tried, and fails for a reason.
        wait_until(lambda: states(client).get(3) == "END", "version 3 was given up")
        (status,) = client.status(NAME, version=3)
        assert status.error is not None
        assert status.error.code is Code.DATA_LOSS
        assert "model.onnx is damaged or not complete" in status.error.message
        np.testing.assert_allclose(client.predict(NAME, inputs=inputs)["probs"], right, rtol=1e-4, atol=1e-5)
    log = server.stderr
    assert "version 2 waits: " in log
    assert "version 3 waits: " in log


@pytest.mark.tensorflow
def test_a_slow_copy_of_a_saved_model(serve: Start, models: LiveModels, tmp_path: Path) -> None:
    source = models.saved_model("text_cnn") / "1"
    base = tmp_path / "text_cnn"
    shutil.copytree(source, base / "1")
    server = serve(base, POLL, "--engine", "openvino").ready()
    shard = Path("variables", "variables.data-00000-of-00001")
    with Client(server.grpc_url) as client, Lookout(server.grpc_url, "text_cnn", 2) as lookout:
        shutil.copytree(source, base / "2", ignore=lambda _, names: [name for name in names if name == shard.name])
        grow(base / "2" / shard, (source / shard).read_bytes(), 6, lookout)
        wait_until(lambda: states(client, "text_cnn").get(2) == "AVAILABLE", "version 2 is served")
        assert lookout.early == []
        inputs = catalog.sample_inputs("text_cnn", 1, seed=1)
        right = catalog.reference("text_cnn", inputs)["probs"]
        answer = client.predict("text_cnn", inputs=inputs)
        assert answer.model.version == 2
        np.testing.assert_allclose(answer["probs"], right, rtol=1e-4, atol=1e-5)


@pytest.mark.rule("manager-2")
def test_a_version_that_cannot_be_loaded_leaves_the_old_one(serve: Start, base: Path) -> None:
    server = serve(base, POLL).ready()
    graph = helper.make_graph(
        [helper.make_node("Nonesuch", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    (base / "2").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, base / "2" / "model.onnx")
    inputs = catalog.sample_inputs(NAME, 2, seed=1)
    right = catalog.reference(NAME, inputs)["probs"]
    with Client(server.grpc_url) as grpc, Client(server.rest_url) as rest:
        wait_until(lambda: states(grpc) == {2: "END", 1: "AVAILABLE"}, "version 2 has failed")
        for client in (grpc, rest):
            new, old = client.status(NAME)
            assert new.state is VersionState.END
            assert new.error is not None
            assert new.error.code is Code.FAILED_PRECONDITION
            assert "Nonesuch" in new.error.message
            assert (old.version, old.state, old.error) == (1, VersionState.AVAILABLE, None)
            np.testing.assert_allclose(client.predict(NAME, inputs=inputs)["probs"], right, rtol=1e-4, atol=1e-5)
        # What was wrong can be put right in its place.
        shutil.copyfile(base / "1" / "model.onnx", base / "2" / "model.onnx")
        wait_until(lambda: states(grpc) == {2: "AVAILABLE", 1: "END"}, "the mended version 2 is served")


@pytest.mark.rule("poll-2")
def test_a_base_path_that_vanishes_unloads_nothing(serve: Start, base: Path) -> None:
    server = serve(base, "--file_system_poll_wait_seconds=0.05").ready()
    base.rename(base.with_name("away"))
    wait_until(lambda: "Could not find base path" in server.stderr, "the server misses the path")
    with Client(server.grpc_url) as client:
        assert states(client) == {1: "AVAILABLE"}
        base.with_name("away").rename(base)
        wait_until(lambda: "can be read again" in server.stderr, "the server sees the path again")
        assert states(client) == {1: "AVAILABLE"}
