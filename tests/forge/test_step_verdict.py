"""The verdict on what a step made: which signatures are compared, under which names, at which batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, Array
from servable.engines.base import Artifact, Model
from servable.forge.samples import Samples
from servable.forge.step_verdict import Job, verdict_on
from servable.forge.steps import step_named
from servable.forge.verify import EXACT

JOB = Job(step_named("onnx-to-openvino"), Artifact("onnx", Path("model.onnx")), EXACT)


class Doubling(Model):
    """Doubles ``x``, under each of these names but the ``wrong`` one; with ``rows`` it takes so many only."""

    engine = "ours"

    def __init__(self, *names: str, rows: int | None = None, wrong: str = "") -> None:
        self.signatures = {
            name: Signature(
                name,
                {"x": TensorSpec("x", FLOAT32, (rows, 3))},
                {"y": TensorSpec("y", FLOAT32, (rows, 3))},
            )
            for name in names
        }
        self._rows = rows
        self._wrong = wrong
        self.asked: set[tuple[str, int]] = set()

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert self._rows in (None, len(inputs["x"])), "it takes one size of batch"
        self.asked.add((signature, len(inputs["x"])))
        return {"y": inputs["x"] * np.float32(3 if signature == self._wrong else 2)}

    def close(self) -> None:
        """Nothing is held."""


def test_a_batch_that_the_result_fixes_is_the_one_that_both_are_asked(tmp_path: Path) -> None:
    reference, candidate = Doubling("serving_default"), Doubling("serving_default", rows=4)
    assert verdict_on(JOB, reference, candidate, {}, tmp_path).ok
    assert reference.asked == candidate.asked == {("serving_default", 4)}


def test_signatures_are_compared_under_the_names_that_the_step_gave_them(tmp_path: Path) -> None:
    reference, candidate = Doubling("a", "b", "c"), Doubling("x", "y")
    assert verdict_on(JOB, reference, candidate, {"signatures": {"a": "x", "c": "y"}}, tmp_path).ok
    assert {name for name, _ in reference.asked} == {"a", "c"}
    assert {name for name, _ in candidate.asked} == {"x", "y"}


def test_what_is_wrong_under_one_name_only_is_found(tmp_path: Path) -> None:
    found = verdict_on(JOB, Doubling("a", "b"), Doubling("a", "b", wrong="b"), {}, tmp_path)
    assert {fault.partition("/")[0] for fault in found.faults} == {"b"}


def test_the_data_is_asked_where_it_has_the_inputs(tmp_path: Path) -> None:
    seen: list[Array] = []

    class Listening(Doubling):
        def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            seen.append(inputs["x"])
            return super().run(signature, inputs, outputs)

    rows = np.full((5, 3), 7, np.float32)
    job = Job(JOB.step, JOB.source, EXACT, Samples({"x": rows}, "here"))
    verdict_on(job, Listening("serving_default"), Doubling("serving_default"), {}, tmp_path)
    assert seen
    assert all(np.nanmin(one) == 7 for one in seen)


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="there is no signature to compare"):
        verdict_on(JOB, Doubling("a"), Doubling("b"), {"signatures": {"z": "b"}}, tmp_path)
