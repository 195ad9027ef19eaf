"""The same network in several frameworks: copied weights give the same answers, and who is not there is skipped."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.errors import ServingError
from servable.forge import arrays
from servable.forge.comparison import framework_forms
from servable.forge.comparison.framework_forms import MODEL
from servable.forge.comparison.frameworks import FORMS, PARITY, Form, FormResult, Frameworks, compare_frameworks
from servable.forge.comparison.page import frameworks_report, frameworks_table
from servable.forge.comparison.runs import Runs
from servable.forge.worker import run_apart
from servable.report.html import write_html
from servable.zoo import catalog
from servable.zoo.weights import weights_of

KNOWN = {form.name: form for form in FORMS}


def test_onnx_agrees_and_who_is_not_installed_is_skipped() -> None:
    absent = Form("absent", "Absent", "no_such_package")
    found = compare_frameworks((1, 2), runs=2, cold=1, forms=[KNOWN["onnx"], absent])
    onnx, gone = found.results
    assert onnx.agrees
    assert onnx.max_abs is not None
    assert onnx.max_abs <= PARITY
    assert [(runs.batch, len(runs.seconds)) for runs in onnx.runs] == [(1, 2), (2, 2)]
    assert "no_such_package is not installed" in gone.reason
    report = frameworks_report(found)
    assert report.verdict == "1 forms agree within 0.0001"
    assert "Absent" in write_html(report)
    json.dumps(found.as_json(), allow_nan=False)


def in_one_process(
    forms: list[str], report: Callable[[str], None], answered: str, **arguments: Any
) -> dict[str, dict[str, Any]]:
    """Run several forms in one worker: TensorFlow takes seconds to import."""
    return {
        form: framework_forms.run_form(form, artifact=[], answered=f"{answered}-{form}", report=report, **arguments)
        for form in forms
    }


@pytest.mark.tensorflow
def test_keras_and_plain_tensorflow_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    inputs = catalog.sample_inputs(MODEL, 2, 3)
    arrays.save(tmp_path / "asked", [inputs])
    arrays.save(tmp_path / "weights", [weights_of(MODEL, 1)])
    told = run_apart(
        "tests.forge.test_compare_frameworks:in_one_process",
        {
            "forms": ["keras", "tensorflow"],
            "weights": str(tmp_path / "weights"),
            "asked": str(tmp_path / "asked"),
            "answered": str(tmp_path / "answered"),
            "batches": [1, 2],
            "runs": 1,
            "cold": 0,
        },
    )
    expected = catalog.reference(MODEL, inputs)["output"]
    for form in ("keras", "tensorflow"):
        (found,) = arrays.load(tmp_path / f"answered-{form}")
        assert np.abs(found["output"] - expected).max() <= PARITY
        assert [len(told[form]["seconds"][batch]) for batch in ("1", "2")] == [1, 1]
        assert told[form]["version"].startswith(form)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_agrees() -> None:
    (one,) = compare_frameworks((1,), runs=1, cold=0, forms=[KNOWN["torch"]]).results
    assert one.agrees, f"{one.max_abs} {one.reason}"
    assert one.version


def test_a_form_that_is_off_is_bad_news() -> None:
    runs = (Runs("ONNX", 1, (0.1, 0.2)),)
    found = Frameworks((FormResult(KNOWN["onnx"], runs, 0.1, 0.1, 2e-4, "onnxruntime 1"),), (1,))
    assert frameworks_report(found).verdict.startswith("More than 0.0001 off")
    assert getattr(frameworks_table(found).rows[0][-1], "value", "") == "differs"


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ServingError, match="1 or more"):
        compare_frameworks((0,))
