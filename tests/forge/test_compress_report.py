"""The page of ``servable compress report``, from lines that are made up."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from servable.cli import main
from servable.engines.tuned_plan import Setting
from servable.forge.compression.report import WAYS, Found, Line, Plan, as_json, as_page
from servable.forge.measure import BatchTimes, Measured
from servable.forge.reference import Judged
from servable.forge.steps import step_named

IDLE: dict[str, Any] = {"cores": 2, "load_average": 0.1}


def line(title: str, accuracy: float, milliseconds: float) -> Line:
    batches = tuple(BatchTimes(rows, (milliseconds * rows / 1000,)) for rows in (1, 32))
    return Line(
        title,
        Judged(0.0, 0.0, None, 0.9, accuracy, 600),
        {"bytes": 2_000_000, "gzip": 1_500_000, "huffman": 1_000_400},
        Measured(Setting(), "onnx", "model.onnx", engine="onnxruntime", batches=batches),
    )


def test_the_page_has_a_line_for_each_model_with_its_speed_beside_the_base() -> None:
    lines = (line("base, float32", 0.93, 1.0), line("half", 0.9, 0.25))
    page = as_page(Found(Plan(rows=2400, epochs=10, seed=1), lines, {"thin": "no layer"}, IDLE))
    assert "| base, float32 | 93.0 % | 90.0 % | 2000.0 | 1500.0 | 1000.4 | 1.000 | 32.000 | 1.00 x |" in page
    assert "| half | 90.0 % | 90.0 % | 2000.0 | 1500.0 | 1000.4 | 0.250 | 8.000 | 4.00 x |" in page
    assert "- thin: no layer" in page
    assert "trained here on 1800 of them for 10 epochs" in page
    assert "`servable compress report --rows 2400 --epochs 10 --seed 1`" in page
    assert "busy" not in page
    assert page.endswith("\n")
    assert not page.endswith("\n\n")


def test_the_page_says_itself_that_the_machine_was_busy() -> None:
    found = Found(Plan(), (line("base", 0.9, 1.0),), {}, {"cores": 2, "load_average": 7.5})
    assert "load average 7.5 on 2 cores" in as_page(found)
    assert as_json(found)["lines"][0]["judged"]["accuracy"] == 0.9
    json.dumps(as_json(found))


def test_every_way_is_a_step_and_follows_what_it_is_made_of() -> None:
    known = {"base"}
    for way in WAYS:
        assert step_named(way.step)
        assert way.of in known
        known.add(way.name)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_too_few_pictures_are_refused_before_anything_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "report", "--rows", "4", "--quiet"]) == 1
    assert "labelled pictures has 4 rows; training and judging take" in capsys.readouterr().err
