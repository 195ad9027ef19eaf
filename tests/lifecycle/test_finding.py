"""How a request finds its version: by number, by label, or the newest; and what it is told if there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.core.messages import ModelRef
from servable.lifecycle.config import ManagerOptions, ModelConfig, Specific


def model(name="m", **more) -> ModelConfig:
    return ModelConfig(name, Path("/models", name), **more)


def refused(manager, ref: ModelRef) -> str:
    with pytest.raises(ServingError) as caught:
        manager.acquire(ref)
    return str(caught.value)


@pytest.mark.rule("lookup-3", "lookup-4", "lookup-5", "lookup-6")
def test_lookup_errors_are_those_of_tensorflow_serving(run_lab, engine) -> None:
    async def body(lab) -> None:
        manager = lab.manager
        assert refused(manager, ModelRef("m", label="x")) == "UNAVAILABLE: Model labels does not init yet.x"
        manager.apply([model()])
        assert refused(manager, ModelRef("")) == "INVALID_ARGUMENT: ModelSpec has no name specified."
        assert refused(manager, ModelRef("", 3)) == "INVALID_ARGUMENT: ModelSpec has no name specified."
        assert refused(manager, ModelRef("", label="x")) == "INVALID_ARGUMENT: ModelSpec has no name specified."
        assert refused(manager, ModelRef("m")) == "NOT_FOUND: Servable not found for request: Latest(m)"
        assert refused(manager, ModelRef("m", 3)) == "NOT_FOUND: Servable not found for request: Specific(m, 3)"
        unknown = "INVALID_ARGUMENT: Unrecognized servable version label: x"
        assert refused(manager, ModelRef("m", label="x")) == unknown
        assert refused(manager, ModelRef("nobody", label="x")) == unknown
        for arguments, text in (
            (("m",), "Could not find any versions of model m"),
            (("nobody", 4), "Could not find version 4 of model nobody"),
        ):
            with pytest.raises(ServingError, match=text) as caught:
                manager.statuses(*arguments)
            assert caught.value.code is Code.NOT_FOUND
        with pytest.raises(ServingError, match=unknown.partition(" ")[2]):
            manager.statuses("m", label="x")

    run_lab(body)


def test_version_0_is_a_version(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model()])
        lab.wish(0, 1)
        await lab.until(lambda: lab.states() == {1: "AVAILABLE", 0: "AVAILABLE"})
        handle = lab.manager.acquire(ModelRef("m", 0))
        assert handle.version == 0
        lab.manager.release(handle)

    run_lab(body)


def version_of(manager, label: str) -> int:
    handle = manager.acquire(ModelRef("m", label=label))
    manager.release(handle)
    return int(handle.version)


@pytest.mark.rule("label-3")
def test_a_label_follows_when_its_version_is_available(run_lab, engine) -> None:
    async def body(lab) -> None:
        manager = lab.manager
        manager.apply([model(labels={"stable": 1, "canary": 2})])
        lab.wish(1)
        await lab.until(manager.ready)
        assert version_of(manager, "stable") == 1
        assert refused(manager, ModelRef("m", label="canary")).endswith("version label: canary")
        assert manager.labels("m") == {"stable": 1}
        lab.wish(1, 2)
        await lab.until(lambda: lab.states()[2] == "AVAILABLE")
        assert version_of(manager, "canary") == 2
        assert [status.version for status in manager.statuses("m", label="canary")] == [2]
        # To move a label is to change the configuration.
        manager.apply([model(labels={"stable": 2})])
        assert manager.labels("m") == {"stable": 2}
        lab.wish(1)
        assert refused(manager, ModelRef("m", label="stable")).endswith("request: Specific(m, 2)")

    run_lab(body)


def test_a_label_stays_where_it_is_until_its_new_version_is_there(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model(labels={"stable": 1})])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        go = engine.hold(2)
        lab.wish(1, 2)
        lab.manager.apply([model(labels={"stable": 2})])
        assert version_of(lab.manager, "stable") == 1
        go.set()
        await lab.until(lambda: lab.states()[2] == "AVAILABLE")
        assert version_of(lab.manager, "stable") == 2

    run_lab(body)


def test_a_label_for_a_version_that_cannot_come_is_refused_and_changes_nothing(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model(labels={"stable": 1})])
        lab.wish(1)
        await lab.until(lab.manager.ready)
        with pytest.raises(ServingError) as caught:
            lab.manager.apply([model("other"), model(labels={"stable": 9})])
        assert str(caught.value) == (
            "FAILED_PRECONDITION: Request to assign label to version 9 of model m, "
            "which is not currently available for inference"
        )
        assert lab.manager.models() == ["m"]
        assert version_of(lab.manager, "stable") == 1
        # With another policy the version may come.
        lab.manager.apply([model(labels={"stable": 9}, policy=Specific((1, 9)))])
        assert version_of(lab.manager, "stable") == 1

    run_lab(body)


@pytest.mark.rule("label-3")
def test_labels_before_versions_if_asked_for(run_lab, engine) -> None:
    async def body(lab) -> None:
        lab.manager.apply([model(labels={"canary": 2})])
        assert refused(lab.manager, ModelRef("m", label="canary")).endswith("request: Specific(m, 2)")
        lab.manager.apply([model(labels={"canary": 2, "next": 3})])
        assert lab.manager.labels("m") == {"canary": 2, "next": 3}
        with pytest.raises(ServingError, match="assign label to version 4"):
            lab.manager.apply([model(labels={"next": 4})])

    run_lab(body, ManagerOptions(poll_s=-1, labels_before_versions=True))
