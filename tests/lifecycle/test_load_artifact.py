"""Real artifacts through the default way to prove and to load them."""

from __future__ import annotations

import asyncio

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from servable.core.errors import Code, ServingError
from servable.core.messages import ModelRef
from servable.lifecycle.config import ManagerOptions, ModelConfig, VersionSpec
from servable.lifecycle.loading import load_artifact, prove_artifact
from servable.lifecycle.manager import Manager


def adder(path, amount: float) -> None:
    """Write a model that adds a number, with its weights in a file beside it."""
    path.parent.mkdir(parents=True)
    weights = numpy_helper.from_array(np.full([1, 1024], amount, np.float32), "amount")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "amount"], ["y"])],
        "adder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1024])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)


def answer(model) -> float:
    (signature,) = model.signatures
    return float(model.run(signature, {"x": np.zeros([1, 1024], np.float32)}, ["y"])["y"][0, 0])


def test_a_model_is_found_chosen_and_loaded(tmp_path) -> None:
    adder(tmp_path / "m" / "1" / "model.onnx", 3.0)
    loaded = load_artifact(VersionSpec("m", 1, tmp_path / "m" / "1"))
    assert (loaded.choice.engine, loaded.choice.precision) == ("onnxruntime", "f32")
    assert answer(loaded.model) == 3.0
    loaded.model.close()


def test_half_an_artifact_lacks_something_and_a_whole_one_nothing(tmp_path) -> None:
    path = tmp_path / "1" / "model.onnx"
    assert "there is no file" in str(prove_artifact(path.parent, None))
    adder(path, 1.0)
    assert prove_artifact(path.parent, None) is None
    weights = path.with_name("weights.bin").read_bytes()
    path.with_name("weights.bin").write_bytes(weights[:-1])
    assert "weights.bin" in str(prove_artifact(path.parent, None))
    path.write_bytes(path.read_bytes()[:40])
    assert prove_artifact(path.parent, None)
    path.unlink()
    assert "Could not find SavedModel" in str(prove_artifact(path.parent, None))


def test_what_another_engine_would_be_asked_for_is_left_to_the_load(tmp_path) -> None:
    adder(tmp_path / "1" / "model.onnx", 1.0)
    assert prove_artifact(tmp_path / "1", "tensorflow") is None
    with pytest.raises(ServingError, match="tensorflow does not read onnx artifacts") as caught:
        load_artifact(VersionSpec("m", 1, tmp_path / "1", "tensorflow"))
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_new_version_that_is_copied_piece_by_piece(tmp_path) -> None:
    base, made = tmp_path / "m", tmp_path / "made"
    adder(base / "1" / "model.onnx", 1.0)
    adder(made / "model.onnx", 2.0)

    async def main() -> None:
        manager = Manager(ManagerOptions(poll_s=0.02))
        changed = asyncio.Event()
        manager.on_change(lambda _name, _status: changed.set())
        manager.apply([ModelConfig("m", base)])
        await manager.start()
        assert await manager.wait_ready(30)
        (base / "2").mkdir()
        data = (made / "weights.bin").read_bytes()
        (base / "2" / "model.onnx").write_bytes((made / "model.onnx").read_bytes())
        for end in range(512, len(data) + 1, 512):
            assert [loaded.version for loaded in manager.loaded()] == [1]
            (base / "2" / "weights.bin").write_bytes(data[:end])
            await asyncio.sleep(0)
        while manager.statuses("m")[0].version != 2 or manager.statuses("m")[0].state.name != "AVAILABLE":
            changed.clear()
            await asyncio.wait_for(changed.wait(), 30)
        handle = manager.acquire(ModelRef("m"))
        assert answer(handle.model) == 2.0
        manager.release(handle)
        await manager.stop()

    asyncio.run(main())
