"""The manager on real directories with quick polls: what people do to model directories, and what must never happen."""

from __future__ import annotations

import shutil

import pytest

from servable.core.errors import unimplemented
from servable.core.messages import ModelRef
from servable.lifecycle.config import All, Latest, ManagerOptions, ModelConfig, Specific, Transition
from servable.lifecycle.intake import publish

QUICK = ManagerOptions(poll_s=0.01)
WHOLE = b"weights, and the end"


def prove(path, _engine) -> str | None:
    file = path / "model.onnx" if path.is_dir() else path
    if not file.exists():
        return "model.onnx is missing"
    return None if file.read_bytes().endswith(b"the end") else "the end is missing"


def put(folder, data=WHOLE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)


def serving(lab, name="m") -> int | None:
    """Return the version that a request would meet."""
    versions = [loaded.version for loaded in lab.manager.loaded() if loaded.name == name]
    return max(versions, default=None)


@pytest.fixture
def run_on_disk(run_lab, tmp_path):
    """Serve ``tmp_path/m``, which has version 1, and go on when it is available."""

    def run(body, options=QUICK) -> None:
        async def started(lab) -> None:
            put(tmp_path / "m" / "1")
            lab.manager.apply([ModelConfig("m", tmp_path / "m")])
            await lab.manager.start()
            assert await lab.manager.wait_ready(10)
            await body(lab, tmp_path / "m")

        run_lab(started, options, prove=prove)

    return run


async def polls(lab, count=5) -> None:
    """Wait until the model was looked at some more times."""
    looks = [0]
    look = lab.manager._source._on_look

    def counted(changed) -> None:
        look(changed)
        looks[0] += 1

    lab.manager._source._on_look = counted
    await lab.until(lambda: looks[0] >= count)
    lab.manager._source._on_look = look


@pytest.mark.rule("poll-5")
def test_a_slow_copy_is_never_loaded_early(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        for size in range(1, len(WHOLE) + 1):
            put(base / "2", WHOLE[:size])
            await polls(lab, 1)
            if size < len(WHOLE):
                assert engine.attempts == [("m", 1)]
                assert serving(lab) == 1
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})

    run_on_disk(body)


def test_an_incomplete_version_is_shown_as_waiting(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        (base / "2").mkdir()
        await lab.until(lambda: lab.manager.waiting("m") == {2: "model.onnx is missing"})
        put(base / "2")
        await lab.until(lambda: serving(lab) == 2)
        assert lab.manager.waiting("m") == {}

    run_on_disk(body)


def test_a_published_version_takes_over(run_on_disk, engine, tmp_path) -> None:
    async def body(lab, base) -> None:
        put(tmp_path / "made")
        assert publish(tmp_path / "made", base) == base / "2"
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})

    run_on_disk(body)


def test_a_corrupt_version_ends_with_its_error_and_the_old_one_serves(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        engine.failures[2] = [unimplemented("bad graph")]
        put(base / "2")
        await lab.until(lambda: lab.states() == {2: "END", 1: "AVAILABLE"})
        assert lab.manager.statuses("m", 2)[0].error.message == "bad graph"
        await polls(lab)
        assert engine.attempts == [("m", 1), ("m", 2)]
        # Other files under the same number are another try.
        put(base / "2", b"better, to the end")
        put(base / "2", b"better, to " + b"the end")
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})

    run_on_disk(body)


def test_at_start_up_an_older_version_stands_in_for_one_that_fails(run_lab, engine, tmp_path) -> None:
    async def body(lab) -> None:
        engine.failures[2] = [unimplemented("bad graph")]
        put(tmp_path / "m" / "1")
        put(tmp_path / "m" / "2")
        lab.manager.apply([ModelConfig("m", tmp_path / "m")])
        await lab.manager.start()
        assert await lab.manager.wait_ready(10)
        assert lab.states() == {2: "END", 1: "AVAILABLE"}

    for poll_s in (0.01, 0):
        engine.attempts.clear()
        run_lab(body, ManagerOptions(poll_s=poll_s), prove=prove)
        assert engine.attempts == [("m", 2), ("m", 1)]


@pytest.mark.rule("poll-4")
def test_removing_the_newest_goes_back_without_a_gap(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        put(base / "2")
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})
        go = engine.hold(1)
        shutil.rmtree(base / "2")
        await lab.until(lambda: engine.attempts.count(("m", 1)) == 2)
        assert serving(lab) == 2
        go.set()
        await lab.until(lambda: lab.states() == {2: "END", 1: "AVAILABLE"})

    run_on_disk(body)


@pytest.mark.rule("poll-3")
def test_removing_every_version_unloads(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        shutil.rmtree(base / "1")
        await lab.until(lambda: lab.states() == {1: "END"})
        assert not lab.manager.ready()
        put(base / "1")
        await lab.until(lab.manager.ready)

    run_on_disk(body)


@pytest.mark.rule("poll-2")
def test_a_base_path_that_vanishes_never_unloads(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        base.rename(base.with_name("away"))
        await lab.until(lambda: lab.manager.problem("m") is not None)
        await polls(lab)
        assert lab.states() == {1: "AVAILABLE"}
        base.with_name("away").rename(base)
        put(base / "2")
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})
        assert lab.manager.problem("m") is None

    run_on_disk(body)


@pytest.mark.rule("poll-2", "better-2")
def test_a_model_whose_base_path_is_missing_does_not_stop_the_others(run_lab, engine, tmp_path) -> None:
    async def body(lab) -> None:
        put(tmp_path / "here" / "1")
        lab.manager.apply([ModelConfig("absent", tmp_path / "absent"), ModelConfig("here", tmp_path / "here")])
        await lab.manager.start()
        await lab.until(lambda: lab.states("here") == {1: "AVAILABLE"})
        assert not lab.manager.ready()
        assert "Could not find base path" in lab.manager.problem("absent").message
        put(tmp_path / "absent" / "1")
        assert await lab.manager.wait_ready(10)

    run_lab(body, QUICK, prove=prove)


@pytest.mark.rule("policy-1", "policy-2")
def test_policies_on_disk(run_on_disk, run_lab, engine) -> None:
    async def body(lab, base) -> None:
        for version in (2, 3):
            put(base / str(version))

        async def serves(policy, versions) -> None:
            lab.manager.apply([ModelConfig("m", base, policy)])
            await lab.until(lambda: sorted(loaded.version for loaded in lab.manager.loaded()) == versions)

        await serves(All(), [1, 2, 3])
        await serves(Specific((1, 3)), [1, 3])
        await serves(Latest(2), [2, 3])
        await serves(Latest(), [3])
        await serves(Specific((1,)), [1])
        assert 1 in [loaded.version for loaded in lab.manager.loaded()]

    run_on_disk(body)


def test_resource_preserving_on_disk(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        put(base / "2")
        await lab.until(lambda: lab.states() == {2: "AVAILABLE", 1: "END"})
        assert engine.opened_together == 1

    run_on_disk(body, options=ManagerOptions(poll_s=0.01, transition=Transition.RESOURCE_PRESERVING))


def test_a_switch_loses_no_request(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        met: set[int] = set()

        def asked() -> bool:
            handle = lab.manager.acquire(ModelRef("m"))
            assert not handle.model.closed
            met.add(handle.version)
            lab.manager.release(handle)
            return bool(handle.version == 4)

        for version in (2, 3, 4):
            put(base / str(version))
            await lab.until(lambda version=version: asked() or version in met)
        assert met == {1, 2, 3, 4}

    run_on_disk(body)


def test_a_bare_version_and_a_file(run_lab, engine, tmp_path) -> None:
    async def body(lab) -> None:
        put(tmp_path / "7")
        (tmp_path / "net.onnx").write_bytes(WHOLE)
        lab.manager.apply(
            [
                ModelConfig("a", tmp_path, fixed_versions={7: tmp_path / "7"}),
                ModelConfig("net", tmp_path, fixed_versions={1: tmp_path / "net.onnx"}),
            ]
        )
        await lab.manager.start()
        assert await lab.manager.wait_ready(10)
        assert (lab.states("a"), lab.states("net")) == ({7: "AVAILABLE"}, {1: "AVAILABLE"})

    run_lab(body, QUICK, prove=prove)


def test_a_new_base_path_is_served_when_it_is_loaded(run_on_disk, engine) -> None:
    async def body(lab, base) -> None:
        elsewhere = base.with_name("elsewhere")
        put(elsewhere / "1")
        lab.manager.apply([ModelConfig("m", elsewhere)])
        assert serving(lab) == 1
        await lab.until(lambda: [loaded.path for loaded in lab.manager.loaded()] == [elsewhere / "1"])
        assert engine.paths == [base / "1", elsewhere / "1"]

    run_on_disk(body)
