"""Plans followed and refused: by contents, machine, libraries, and what a person asks for."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines import planned
from servable.engines.base import Artifact, EngineOptions
from servable.engines.fingerprint import fingerprint, outline
from servable.engines.plan import choose, find_artifact, load
from servable.engines.plan_cache import plans_dir
from servable.engines.tuned_plan import (
    SCHEMA,
    Figure,
    Form,
    Key,
    Plan,
    Range,
    Setting,
    machine_key,
    misfit,
    read_plan,
    write_plan,
)
from servable.zoo import catalog

AUTO = EngineOptions(plan="auto")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "servable" / "plans"


@pytest.fixture
def model(tmp_path: Path) -> Artifact:
    return find_artifact(catalog.build("half_plus_two", tmp_path))


def part(rows: int | None, engine: str, form: int = 0, precision: str = "f32", **words: Any) -> Range:
    figure = Figure(rows or 8, 0.001, 1000.0, 1.9, 1.8, 2.0)
    return Range(rows, form, precision, Setting(engine, precision, **words), (figure,), 1e-7, "|d| <= 1e-05")


def plan_for(artifact: Artifact, *ranges: Range, **changes: Any) -> Plan:
    engines = {one.setting.engine for one in ranges}
    found = Plan(
        SCHEMA,
        str(artifact.path),
        "2026-11-21 12:00 UTC",
        "throughput",
        ("f32",),
        ("serving_default",),
        machine_key(fingerprint(artifact), outline(artifact), engines),
        (Form(artifact.kind),),
        Setting("onnxruntime"),
        ranges,
    )
    return msgspec.structs.replace(found, **changes)


def options(path: Path, **words: Any) -> EngineOptions:
    return EngineOptions(plan=str(path), **words)


def refusal(artifact: Artifact, chosen: EngineOptions) -> str:
    with pytest.raises(ServingError) as failure:
        choose(artifact, options=chosen)
    assert failure.value.code in {Code.FAILED_PRECONDITION, Code.NOT_FOUND}
    return failure.value.message


def test_a_plan_routes_by_rows_and_says_so(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(2, "onnxruntime", intra_op_threads=1), part(None, "openvino", streams=2)), file)
    choice = choose(model, options=options(file))
    assert (choice.engine, choice.precision, choice.isolated) == ("onnxruntime+openvino", "f32", False)
    assert choice.reason == ("plan: 1.9x the default (onnxruntime) at batch 2, measured on 2026-11-21 12:00 UTC")
    loaded = load(choice, model, options(file))
    try:
        assert loaded.engine == "onnxruntime+openvino"
        assert list(loaded.signatures) == ["serving_default"]
        for rows in (0, 1, 2, 3, 7):
            x = np.arange(rows, dtype=np.float32).reshape(rows, 1)
            assert np.allclose(loaded.run("serving_default", {"x": x}, ("y",))["y"], x / 2 + 2)
        with pytest.raises(ServingError, match="no signature 'other'"):
            loaded.run("other", {"x": np.zeros((1, 1), np.float32)}, ("y",))
    finally:
        loaded.close()
        loaded.close()


def test_each_range_is_computed_by_its_own_engine(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(2, "openvino"), part(4, "onnxruntime"), part(None, "openvino", streams=2)), file)
    loaded = load(choose(model, options=options(file)), model, options(file))
    routes = loaded._routes["serving_default"]  # type: ignore[attr-defined]
    assert [run.__self__.engine for run, _ in routes] == ["openvino", "onnxruntime", "openvino"]
    asked: list[int] = []

    def note(place: int, *_: object) -> dict[str, Any]:
        asked.append(place)
        return {}

    for place, (_run, name) in enumerate(routes):
        routes[place] = (partial(note, place), name)
    for rows in (1, 2, 3, 4, 5, 1000):
        loaded.run("serving_default", {"x": np.zeros((rows, 1), np.float32)}, ("y",))
    assert asked == [0, 0, 1, 1, 2, 2]
    loaded.close()


def test_auto_finds_the_models_own_plan(model: Artifact, cache: Path, tmp_path: Path) -> None:
    assert choose(model, options=AUTO) == choose(model)  # nothing is there yet
    other = find_artifact(catalog.build("noop", tmp_path))
    write_plan(plan_for(other, part(None, "openvino")), cache / "other.json")
    (cache / "broken.json").write_text("{")
    assert choose(model, options=AUTO) == choose(model)
    write_plan(plan_for(model, part(None, "openvino")), cache / "mine.json")
    assert choose(model, options=AUTO).engine == "openvino"
    assert choose(model).engine == "onnxruntime"
    assert plans_dir() == cache


def test_plans_of_somebody_else_are_not_followed(model: Artifact, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(plan_for(model, part(None, "openvino")), cache / "mine.json")
    monkeypatch.setattr("os.getuid", lambda: cache.stat().st_uid + 1)
    expected = "openvino" if cache.stat().st_uid == 0 else "onnxruntime"  # the administrator's are everybody's
    assert choose(model, options=AUTO).engine == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only the administrator gives files away")
def test_not_even_the_administrator_follows_plans_of_somebody_else(model: Artifact, cache: Path) -> None:
    write_plan(plan_for(model, part(None, "openvino")), cache / "theirs.json")
    assert choose(model, options=AUTO).engine == "openvino"
    os.chown(cache, 65534, -1)
    assert choose(model, options=AUTO).engine == "onnxruntime"


def test_signatures_that_were_not_compared_stay_with_the_default_engine(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(None, "openvino"), signatures=("other",)), file)
    loaded = load(choose(model, options=options(file)), model, options(file))
    assert loaded._rest.engine == "onnxruntime"  # type: ignore[attr-defined]
    assert not loaded._routes  # type: ignore[attr-defined]
    assert loaded.run("serving_default", {"x": np.ones((1, 1), np.float32)}, ("y",))["y"].item() == 2.5
    loaded.close()


def test_an_engine_that_was_loaded_is_closed_if_the_next_one_fails(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    broken = tmp_path / "broken" / "model.onnx"
    broken.write_bytes(b"\x08\x07")
    form = Form("onnx", str(broken), fingerprint(Artifact("onnx", broken)), "broken")
    plan = plan_for(model, part(1, "onnxruntime"), part(None, "openvino", form=1), forms=(Form("onnx"), form))
    loaded: list[Any] = []
    member = planned._member

    def note(*words: Any) -> Any:
        loaded.append(member(*words))
        return loaded[-1]

    monkeypatch.setattr(planned, "_member", note)
    with pytest.raises(ServingError):
        planned.load_planned(plan, model, EngineOptions())
    (first,) = loaded
    with pytest.raises(ServingError, match="has been unloaded"):
        first.run("serving_default", {"x": np.ones((1, 1), np.float32)}, ("y",))


def test_the_reason_is_that_of_the_plan_for_these_contents(model: Artifact, cache: Path) -> None:
    mine = plan_for(model, part(None, "openvino"))
    foreign = msgspec.structs.replace(mine, key=msgspec.structs.replace(mine.key, cpu="Other"), tuned="2027")
    other = msgspec.structs.replace(mine, key=msgspec.structs.replace(mine.key, fingerprint="sha256:0"), tuned="2028")
    write_plan(foreign, cache / "a.json")
    write_plan(other, cache / "b.json")
    assert "it was tuned on Other" in choose(model, options=AUTO).reason


def test_a_start_without_plans_does_not_even_import_what_reads_them(model: Artifact, cache: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from servable.engines.base import Artifact, EngineOptions\nfrom servable.engines.plan import choose\n"
        f"choose(Artifact('onnx', Path({str(model.path)!r})), options=EngineOptions(plan='auto'))\n"
        "assert 'servable.engines.tuned_plan' not in sys.modules"
    )
    assert not cache.exists()
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engine_asked_for_comes_before_a_plan(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(None, "openvino")), file)
    choice = choose(model, "onnxruntime", options=options(file))
    assert (choice.engine, choice.plan) == ("onnxruntime", None)


def test_other_contents_of_the_same_length_are_told_apart(
    model: Artifact, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "plan.json"
    plan = plan_for(model, part(None, "openvino"))
    write_plan(plan, file)
    write_plan(plan, cache / "mine.json")
    data = bytearray(model.path.read_bytes())
    place = data.index(np.float32(0.5).tobytes())
    data[place : place + 4] = np.float32(0.25).tobytes()
    model.path.write_bytes(data)
    assert "tuned for other contents" in refusal(model, options(file))
    with caplog.at_level(logging.WARNING):
        choice = choose(model, options=AUTO)
    assert (choice.engine, choice.plan) == ("onnxruntime", None)
    assert choice.reason.endswith("its plan is not followed: it was tuned for other contents of the artifact")
    assert len(caplog.records) == 1
    model.path.write_bytes(bytes(data) + b"\x00\x00")
    assert "tuned for other contents" in choose(model, options=AUTO).reason  # known by its place


def test_the_time_of_a_file_does_not_count(model: Artifact, tmp_path: Path) -> None:
    before = fingerprint(model)
    copy = tmp_path / "copy" / "model.onnx"
    copy.parent.mkdir()
    copy.write_bytes(model.path.read_bytes())
    assert fingerprint(Artifact("onnx", copy)) == before


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cpu": "Other 9000"}, "tuned on Other 9000"),
        ({"cpus": 64}, "with 64 CPUs"),
        ({"quota": 0.5}, "quota of 0.5"),
        ({"libraries": {"openvino": "1.0"}}, "openvino 1.0"),
        ({"libraries": {"abacus": "1.0"}}, "none is installed"),
    ],
)
def test_a_foreign_plan_is_refused_with_what_differs(
    model: Artifact, cache: Path, tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    plan = plan_for(model, part(None, "openvino"))
    plan = msgspec.structs.replace(plan, key=msgspec.structs.replace(plan.key, **change))
    file = tmp_path / "plan.json"
    write_plan(plan, file)
    assert word in refusal(model, options(file))
    write_plan(plan, cache / "mine.json")
    assert word in choose(model, options=AUTO).reason


def test_a_plan_of_this_machine_wins_over_a_foreign_one(model: Artifact, cache: Path) -> None:
    mine = plan_for(model, part(None, "openvino"))
    foreign = msgspec.structs.replace(mine, key=msgspec.structs.replace(mine.key, cpu="Other"), tuned="2027")
    write_plan(foreign, cache / "a.json")
    write_plan(mine, cache / "b.json")
    assert choose(model, options=AUTO).engine == "openvino"


def test_what_the_start_asks_for_otherwise_is_in_the_way(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(None, "openvino")), file)
    assert "numbers of threads" in refusal(model, options(file, intra_op_threads=1))
    assert "numbers of threads" in refusal(model, options(file, inter_op_threads=2))
    assert "the tags gpu" in refusal(model, options(file, saved_model_tags=("gpu",)))
    transformed = replace(model, transform=tmp_path / "transform.py")
    assert "transform.py is Python" in refusal(transformed, options(file))


def test_a_form_must_be_what_was_tuned(model: Artifact, tmp_path: Path) -> None:
    form = catalog.build("half_plus_two", tmp_path / "forms") / "model.onnx"
    made = Form("onnx", str(form), fingerprint(Artifact("onnx", form)), "a copy")
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(None, "openvino", form=1), forms=(Form("onnx"), made)), file)
    assert choose(model, options=options(file)).plan is not None
    form.write_bytes(form.read_bytes() + b"\x00\x00")
    assert "is not what was tuned" in refusal(model, options(file))
    form.unlink()
    assert "is gone" in refusal(model, options(file))


def test_reduced_precision_is_loud(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(plan_for(model, part(None, "openvino", precision="bf16"), precisions=("f32", "bf16")), file)
    choice = choose(model, options=options(file))
    assert choice.precision == "bf16"
    assert "REDUCED PRECISION bf16, as allowed" in choice.reason
    loaded = load(choice, model, options(file))
    assert loaded.precision == "bf16"
    loaded.close()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": "servable.plan/9"}, "reads servable.plan/1"),
        ({"ranges": []}, "do not reach"),
        ({"precisions": []}, "it uses f32"),
        ({"forms": [{"kind": "python", "path": "/evil/model.py"}]}, "kind 'python'"),
        ({"forms": []}, "do not reach"),
    ],
)
def test_nonsense_in_a_plan_is_named(model: Artifact, tmp_path: Path, change: dict[str, Any], word: str) -> None:
    file = tmp_path / "plan.json"
    document = msgspec.to_builtins(plan_for(model, part(None, "openvino")))
    file.write_text(json.dumps({**document, **change}))
    assert word in refusal(model, options(file))


@pytest.mark.parametrize("change", [{"engine": "abacus"}, {"streams": -1}, {"precision": "bf16"}])
def test_nonsense_in_a_setting_is_named(model: Artifact, tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "plan.json"
    document = msgspec.to_builtins(plan_for(model, part(None, "openvino")))
    document["ranges"][0]["setting"].update(change)
    file.write_text(json.dumps(document))
    assert str(file) in refusal(model, options(file))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "servable.plan/1"}', "\xff\xfe", "null"])
def test_what_is_no_plan_is_refused_with_the_file(model: Artifact, tmp_path: Path, text: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    assert f"{file} is no plan" in refusal(model, options(file))
    file.unlink()
    assert "cannot read the plan" in refusal(model, options(file))


def test_ranges_must_follow_each_other(model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for ranges in ((part(4, "openvino"),), (part(4, "openvino"), part(2, "openvino"), part(None, "openvino"))):
        write_plan(plan_for(model, *ranges), file)
        with pytest.raises(ServingError, match="ranges"):
            read_plan(file)


def test_keys_are_compared_field_by_field() -> None:
    here = Key("sha256:a", (("model.onnx", 3),), "cpu", 2, None, {"onnxruntime": "1"})
    assert misfit(here, here) is None
    assert misfit(here, msgspec.structs.replace(here, libraries={"onnxruntime": "1", "more": "2"})) is None
    assert misfit(msgspec.structs.replace(here, files=()), here) is None
