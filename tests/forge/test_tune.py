"""Tuning from start to end on a small network, with candidates that are wrong, broken or too late."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.forge.pipeline_steps import write_network

from servable.cli import main
from servable.core.errors import ServingError
from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.engines.fingerprint import fingerprint
from servable.engines.plan import find_artifact
from servable.engines.plan_cache import plans_dir
from servable.engines.tuned_plan import Setting
from servable.forge.quantization.steps import BRAIN
from servable.forge.samples import Samples
from servable.forge.tuning import finals
from servable.forge.tuning import tune as tuning
from servable.forge.tuning.choice import Objective
from servable.forge.tuning.page import as_json, objective_missed, tune_report
from servable.forge.tuning.plan import plan_file, plan_of
from servable.forge.tuning.trials import Form, Trial, first_trials, tolerance_of, variants
from servable.forge.tuning.tune import tune
from servable.forge.tuning.tuned import TuneOptions
from servable.forge.verify import EXACT
from servable.report.html import write_html


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return find_artifact(write_network(tmp_path_factory.mktemp("tuned") / "net" / "1"))


def wrong_copy(network: Artifact, folder: Path) -> Artifact:
    model = onnx.load(network.path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return find_artifact(folder)


def with_forms(monkeypatch: pytest.MonkeyPatch, *forms: Form) -> None:
    monkeypatch.setattr(tuning, "forms_of", lambda *_: (list(forms), ["quantize: it needs nncf"]))


def test_a_plan_is_made_of_candidates_that_answer_rightly(
    network: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Form(network, fingerprint=fingerprint(network))
    wrong = wrong_copy(network, tmp_path / "wrong")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"\x08\x07")
    with_forms(
        monkeypatch,
        mine,
        Form(wrong, "negate", fingerprint=fingerprint(wrong)),
        Form(Artifact("onnx", broken / "model.onnx"), "break"),
    )
    said: list[str] = []
    monkeypatch.setattr(tuning, "variants", lambda trial, _cpus: variants(trial, 2)[:1])
    monkeypatch.setattr(finals, "MOST_ROUNDS", finals.LEAST_ROUNDS)
    monkeypatch.setattr(tuning, "winners", lambda found, *_: list(found)[-1:])
    options = TuneOptions(batches=(1, 4), budget_s=12, engines=("onnxruntime",))
    tuned = tune(network, options, report=said.append)
    assert tuned.samples.made_up
    default = tuned.results[0]
    assert default.ok
    assert default.trial == Trial(0, Setting("onnxruntime"))
    assert [one.trial for one in tuned.results if one.confirmed] == [default.trial, variants(default.trial, 2)[0]]
    reasons = {tuned.forms[one.trial.form].made: one.reason for one in tuned.results if not one.ok}
    assert reasons["negate"].startswith("it answers differently")
    assert reasons["break"]
    plan = plan_of(tuned, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    assert plan.tuned == "2026-01-02 03:04 UTC"
    assert [form.made for form in plan.forms] == [""]
    assert plan.key.fingerprint == fingerprint(network)
    assert plan.ranges[-1].rows is None
    assert {figure.rows for part in plan.ranges for figure in part.figures} == {1, 4}
    assert all(part.difference < 1e-4 for part in plan.ranges)
    assert plan_file(plan).parent == plans_dir()
    assert plan_file(plan).name.startswith("net-1-")
    assert any("left" in line for line in said)
    page = write_html(tune_report(tuned, plan, "/tmp/plans/x.json"))
    assert "it answers differently" in page
    assert "it needs nncf" in page
    document = as_json(tuned)
    assert len(document["results"]) == len(tuned.results)
    assert len(json.dumps(document)) < 100_000


def test_given_rows_are_used_and_a_budget_is_kept(network: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with_forms(monkeypatch, Form(network, fingerprint=fingerprint(network)))

    def read(signature: Signature) -> Samples:
        assert list(signature.inputs) == ["x"]
        return Samples({"x": np.ones((3, 3, 6, 6), np.float32)}, "a file")

    tuned = tune(network, TuneOptions(Objective("p99", 1e-9), batches=(2,), budget_s=0.001), read)
    assert tuned.samples.origin == "a file"
    assert {one.reason for one in tuned.results[1:]} == {"no time was left for it: raise --budget"}
    plan = plan_of(tuned)
    assert plan.reason().startswith("plan: nothing is faster than the default")
    assert objective_missed(tuned, plan)
    assert not objective_missed(tune(network, TuneOptions(Objective("p99", 10), (), (2,), 0.001), read), plan)


def test_what_cannot_be_tuned_says_why(network: Artifact, tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text("")
    with pytest.raises(ServingError, match="is Python: there is no other way"):
        tune(Artifact("python", code), TuneOptions())
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"\x08\x07")
    with pytest.raises(ServingError, match=r"onnxruntime, which would serve .* cannot run it"):
        tune(Artifact("onnx", broken), TuneOptions())


def test_trials_are_each_form_on_each_engine_that_reads_it() -> None:
    forms = [Form(Artifact("onnx", Path("/a.onnx"))), Form(Artifact("openvino", Path("/a.xml")), "int8", "int8")]
    assert first_trials(forms, ["f32"]) == [
        Trial(0, Setting("onnxruntime")), Trial(0, Setting("openvino")), Trial(1, Setting("openvino"), "int8"),
    ]  # fmt: skip
    reduced = [one for one in first_trials(forms, ["f32", "bf16"]) if one.precision == "bf16"]
    assert reduced == [Trial(0, Setting("openvino", "bf16"), "bf16")]
    assert first_trials(forms, ["f32"], ["onnxruntime"]) == [Trial(0, Setting("onnxruntime"))]


def test_reduced_precision_may_cost_what_the_step_that_stores_it_may() -> None:
    given = tolerance_of("bf16", made_up=False)
    assert (given.relative, given.cosine, given.agreement) == (BRAIN.relative, BRAIN.cosine, 0.99)
    assert tolerance_of("bf16", made_up=False, most=0.01).relative == 0.01
    nonsense = tolerance_of("bf16", made_up=True)
    assert (nonsense.relative, nonsense.cosine, nonsense.agreement) == (0.5, 0.95, None)
    assert tolerance_of("int8", made_up=True) == replace(tolerance_of("int8", made_up=False), agreement=None)
    assert tolerance_of("f32", made_up=True, most=0.5) == EXACT


def test_variants_fit_the_machine() -> None:
    trial = Trial(0, Setting("onnxruntime"))
    assert variants(trial, 1) == []
    of_two = {
        (one.setting.intra_op_threads, one.setting.inter_op_threads, one.setting.streams) for one in variants(trial, 2)
    }
    assert of_two == {(1, 0, 0), (0, 2, 0), (0, 0, 2)}
    of_eight = {(one.setting.intra_op_threads, one.setting.streams) for one in variants(trial, 8)}
    assert {(0, 8), (0, 4), (4, 0), (1, 0)} <= of_eight


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--objective", "speed"), "'speed' is no objective"),
        (("--batch", "0"), "--batch: expected sizes"),
        (("--budget", "soon"), "--budget: expected a time"),
        (("--engines", "abacus"), "no engine is called 'abacus'"),
        (("--data", "/no/such.npz"), "/no/such.npz"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    network: Artifact, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main(["tune", str(network.path), "--quiet", *words]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.splitlines()) == 1
