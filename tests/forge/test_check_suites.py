"""What the checks find in models that are well, and in models that are ill in one way each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import Code, ServingError, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT32, STRING, Array, DType
from servable.forge.arrays import Tensors
from servable.forge.check.corruption import ways
from servable.forge.check.examination import Examination, Options, Outputs, Subject
from servable.forge.check.findings import SUITES, Finding, State
from servable.forge.check.suites import examine, suites_named
from servable.serving.validation import complete_inputs


def signature_of(dtype: DType = FLOAT32, output: DType = FLOAT32, rows: int | None = None) -> Signature:
    return Signature(
        "serving_default",
        {"x": TensorSpec("x", dtype, (rows, 4))},
        {"y": TensorSpec("y", output, (rows, 2))},
    )


class Model:
    """A subject around a function of one array. Refuses names, types and shapes as a server and its engine do."""

    target = "a model"
    engine = "numpy"
    place = (2, "in two other places")

    def __init__(self, compute: Callable[[Array], Array], signature: Signature | None = None) -> None:
        self.compute = compute
        self.signature = signature or signature_of()
        self.signatures = {self.signature.name: self.signature}
        self.asked: list[Tensors] = []

    def ask(self, signature: str, inputs: Tensors) -> Outputs:
        self.asked.append(inputs)
        x = complete_inputs(self.signatures[signature], inputs)["x"]
        if x.ndim != 2 or x.shape[1] != 4:
            raise invalid_argument(f"x has shape {x.shape}")
        with np.errstate(all="ignore"):
            return {"y": self.compute(x)}

    def reopened(self) -> AbstractContextManager[Subject] | None:
        return self._opened()

    def copied(self) -> AbstractContextManager[Subject] | None:
        return self._opened()

    def elsewhere(self) -> AbstractContextManager[Subject] | None:
        return self._opened()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Subject]:
        yield self


def halves(x: Array) -> Array:
    return np.stack([x.sum(axis=1), x.max(axis=1, initial=-np.inf)], axis=1).astype(np.float32)


def findings(model: Model, suite: str = "all", **options: Any) -> list[Finding]:
    return list(examine(Examination(model, Options(**options)), suites_named(suite)).findings)


def failed(found: list[Finding]) -> dict[str, str]:
    return {one.name: one.detail for one in found if one.state is State.FAIL}


def state(found: list[Finding], name: str) -> tuple[State, str]:
    (one,) = (one for one in found if one.name == name)
    return one.state, one.detail


def test_a_model_that_is_well_passes_everything() -> None:
    found = findings(Model(halves))
    assert not failed(found)
    assert {one.suite for one in found} == set(SUITES)
    assert state(found, "the same batch, 20 times") == (State.PASS, "bit for bit the same")
    assert state(found, "x: NaN in one row") == (State.PASS, "passed on: that row's answer is not finite")
    assert state(found, "x: of type int32")[0] is State.PASS
    assert state(found, "no rows") == (State.PASS, "answered with 0 rows")


def test_chance_in_an_answer_is_found() -> None:
    chance = np.random.default_rng(1)
    found = failed(
        findings(Model(lambda x: halves(x) + chance.normal(0, 1e-7, (len(x), 2)).astype(np.float32)), "determinism")
    )
    assert "differs from the first by up to" in found["the same batch, 20 times"]
    assert found["elsewhere"].endswith("in two other places")


def test_every_run_is_compared() -> None:
    calls = 0

    def late(x: Array) -> Array:
        nonlocal calls
        calls += 1
        return halves(x) + np.float32(calls == 20 + 1)  # the first call of all finds inputs that are taken

    found = failed(findings(Model(late), "determinism", runs=20))
    assert found["the same batch, 20 times"] == "run 20 differs from the first by up to 1"


def test_rows_that_depend_on_each_other_are_found_with_how_much() -> None:
    found = failed(findings(Model(lambda x: halves(x - x.mean(axis=0))), "determinism"))
    assert found.keys() == {"in batches of other sizes"}, "the mean does not depend on the order"
    found = failed(findings(Model(lambda x: halves(x + np.float32(0.5) * x[:1])), "determinism"))
    assert (
        "depends on the others of its batch: serving_default/y at batch 8: differs by up to"
        in found["at other places of the batch"]
    )


def test_what_rounds_otherwise_in_other_batches_is_within_the_tolerance() -> None:
    found = findings(Model(lambda x: halves(x) * np.float32(1 + 1e-6 * len(x))), "determinism")
    assert not failed(found)
    assert state(found, "in batches of other sizes")[1].startswith("differs by at most")
    assert failed(findings(Model(lambda x: halves(x) * np.float32(1 + 1e-2 * len(x))), "determinism"))


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda x: halves(x).astype(np.float64), "is float64, declared as float32[?,2]"),
        (lambda x: halves(x)[:, :1], "has shape [8, 1]"),
        (lambda x: halves(x)[:-1], "rows for"),
        (lambda x: halves(x) * np.float32(np.nan), "not finite for valid inputs"),
    ],
)
def test_answers_that_are_not_what_is_declared(answer: Callable[[Array], Array], part: str) -> None:
    found = failed(findings(Model(answer), "inference"))
    assert len(found) == 3
    assert part.replace("8,", "7,") in found["7 rows"]


def refuse_nan(x: Array) -> Array:
    if not np.isfinite(x).all():
        raise invalid_argument("x holds what is no number")
    return halves(x)


POLICIES = {
    "propagate": lambda x: halves(x),
    "reject": refuse_nan,
    "zero": lambda x: halves(np.where(np.isfinite(x), x, 0)),
    "absorb": lambda x: halves(np.where(np.isfinite(x), x, 7)),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_for_what_is_no_number_is_told_and_can_be_asked_for(policy: str) -> None:
    model = Model(POLICIES[policy])
    name = "x: NaN in one row"
    words = {"propagate": "passed on", "reject": "refused", "zero": "as if it were zero", "absorb": "absorbed"}[policy]
    found, detail = state(findings(model, "corrupted"), name)
    assert words in detail
    assert found is (State.NOTE if policy == "absorb" else State.PASS)
    for wanted in ("propagate", "reject", "zero"):
        found, detail = state(findings(model, "corrupted", nan=wanted), name)
        assert (found is State.FAIL) == (wanted != policy)


def test_a_row_that_spoils_others_is_found() -> None:
    found = failed(findings(Model(lambda x: halves(x) + x.sum() * np.float32(0)), "corrupted"))
    assert "other rows are answered otherwise" in found["x: NaN in one row"]


def test_a_model_that_keeps_what_was_broken_is_found() -> None:
    kept: list[Array] = []

    def remembers(x: Array) -> Array:
        if np.isnan(x).any():
            kept.append(x)
        return halves(x) + np.float32(len(kept))

    assert (
        "valid inputs are answered otherwise since"
        in failed(findings(Model(remembers), "corrupted"))["x: NaN in one row"]
    )


def test_errors_that_blame_the_server_are_failures() -> None:
    def breaks(x: Array) -> Array:
        if not x.any():
            raise ServingError(Code.INTERNAL, "segmentation fault")
        return halves(x)

    found = failed(findings(Model(breaks), "corrupted"))
    assert "as if it were the server's fault: INTERNAL" in found["x: zeros"]


def test_integers_are_made_smaller_until_the_model_takes_them() -> None:
    table = np.arange(4.0, dtype=np.float32)

    def looks_up(x: Array) -> Array:
        if x.size and (x.max() >= len(table) or x.min() < 0):
            raise invalid_argument(f"there is no row {x.max()}")
        return np.repeat(table[x].sum(axis=1, keepdims=True), 2, axis=1)

    model = Model(looks_up, signature_of(INT32))
    examined = examine(Examination(model, Options()), ("inference", "corrupted"))
    assert examined.ok
    assert examined.origins == ("serving_default: made up from the signature (x below 2: the model refuses more)",)
    found = list(examined.findings)
    assert "refused: INVALID_ARGUMENT: there is no row 2147483647" in state(found, "x: the largest number")[1]


def test_made_up_inputs_that_nothing_helps_say_what_would() -> None:
    def refuses(_x: Array) -> Array:
        raise invalid_argument("no JPEG")

    found = findings(Model(refuses, signature_of(STRING)))
    assert failed(found) == {
        "1 row": "INVALID_ARGUMENT: made-up inputs are refused (no JPEG): give --data, --shape or --range"
    }, "once is enough"
    assert state(found, "the same batch, 20 times") == (State.NONE, "there are no inputs that the model takes")


def test_a_fixed_number_of_rows_is_left_alone() -> None:
    model = Model(halves, signature_of(rows=3))
    found = findings(model, "inference,determinism,corrupted")
    assert not failed(found)
    assert state(found, "7 rows")[0] is State.NONE
    assert state(found, "in batches of other sizes")[0] is State.NONE


def test_a_copy_that_answers_otherwise_is_found() -> None:
    class Moved(Model):
        @contextlib.contextmanager
        def _opened(self) -> Iterator[Subject]:
            yield Model(lambda x: halves(x) * np.float32(1.1))

    found = failed(findings(Moved(halves), "save-load"))
    assert found.keys() == {"loaded again", "loaded from a copy"}
    assert "it answers otherwise" in found["loaded from a copy"]


def test_every_input_is_broken_in_every_way() -> None:
    names = [way.name for way in ways(signature_of())]
    assert names == [
        "x: NaN in one row", "x: Inf in one row", "x: -Inf in one row", "x: zeros", "x: the largest number",
        "x: the lowest number", "x: of type int32", "x: a dimension too many", "x: a dimension too few",
        "x: rows too long", "no rows", "x: left out", "an input too many",
    ]  # fmt: skip


def test_known_questions(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text(
        '[{"name": "largest", "reason": "sums win",'
        '  "inputs": {"x": [[1, 2, 3, 4]]}, "expected": {"y": {"argmax": [1]}}},'
        ' {"inputs": {"x": [[1, 2, 3, 4]]}, "expected": {"y": [[10, 4]]}},'
        ' {"inputs": {"z": [1]}, "expected": {"y": [1]}}]'
    )
    found = findings(Model(halves), "known-fail", known=known)
    assert [(one.name, one.state) for one in found] == [
        ("largest", State.KNOWN), ("question 2", State.NOTE), ("question 3", State.FAIL),
    ]  # fmt: skip
    assert found[0].detail == "still wrong: sums win"
    assert "right by now" in found[1].detail


@pytest.mark.parametrize(
    ("text", "part"),
    [("{}", "must hold a list"), ('[{"inputs": {}}]', "question 1: .*expected"), ("[", "is no JSON")],
)
def test_a_file_of_known_questions_that_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    known = tmp_path / "known.json"
    known.write_text(text)
    with pytest.raises(ServingError, match=part):
        findings(Model(halves), "known-fail", known=known)


def test_suites_by_name() -> None:
    assert suites_named("ranges, inference") == ("ranges", "inference")
    with pytest.raises(ServingError, match="no suite is called 'speed'; there are all, inference"):
        suites_named("speed")
