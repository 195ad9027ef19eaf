"""The result's form, and the page that describes it and the options."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from servable.cli.bench_options import numbers, plan_of
from servable.cli.bench_progress import describe
from servable.cli.bench_run import add_arguments
from servable.core.errors import Code, ServingError
from servable.lab import result
from servable.lab.result import ErrorKind, Latency, Part, Result, Scenario, Search, Second, Split, Step, Target
from servable.lab.session import Progress

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
PAGE = (REFERENCE / "bench.md").read_text()


def a_result() -> Result:
    step = Step(
        "8 in flight",
        10,
        2,
        1,
        concurrency=8,
        error_kinds=(ErrorKind("INTERNAL", "no", 2),),
        latency=Latency(10, 1.5),
        corrected=Latency(12, 2.5),
        split=Split(send=Part(1.0, 1.0, 2.0)),
        seconds=(Second(0.0, 10, 2, 1, None, 3.0),),
        steady=None,
        notes=("ä",),
    )
    return Result(
        Target("grpc://h/m", "tfserving-grpc", "m", 3), Scenario(seed=1), (step, step), ok=20, errors=4, wrong=2,
        search=Search("p99=1ms", None, 5.0, 3), versions={"servable": "1"}, command=("servable", "bench"),
    )  # fmt: skip


def test_results_survive_being_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(result.encode(a_result()))
    assert result.read(path) == a_result()
    document = json.loads(path.read_text())
    assert [document[name] for name in ("schema", "ok", "errors", "wrong")] == ["servable.bench/1", 20, 4, 2]
    document["added_later"] = 1
    assert result.decode(json.dumps(document)) == a_result(), "new fields do not change the version"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"schema": "servable.bench/2"}', "has the form 'servable.bench/2'; expected 'servable.bench/1'"),
        ('{"schema": "servable.bench/1", "target": 3}', r"\$.target"),
    ],
)
def test_what_is_no_result_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ServingError, match=problem) as caught:
        result.decode(text, "old.json")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "old.json" in caught.value.message


def test_the_schema_file_is_the_code() -> None:
    written = json.loads((REFERENCE / "bench-result.schema.json").read_text())
    assert written == json.loads(json.dumps(result.json_schema())), "write servable.lab.result.json_schema() there"


def test_the_page_names_every_field_of_a_result() -> None:
    kinds = {name: kind for name, kind in vars(result).items() if is_dataclass(kind) and not name.startswith("_")}
    assert len(kinds) == 14
    for name, kind in kinds.items():
        section = PAGE.partition(f"### {name}\n")[2].partition("###")[0]
        missing = [field.name for field in fields(kind) if f"| `{field.name}` |" not in section]
        assert not missing, f"docs/reference/bench.md says nothing of {name} {missing}"


def test_the_page_names_every_option() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    assert [option for option in options if option != "--help" and option not in PAGE] == []


def plan_from(*words: str) -> object:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return plan_of(parser.parse_args(["grpc://h/m", *words]))


def test_sweeps_are_read() -> None:
    assert numbers("--x", "1..20", int, least=1) == [1, 2, 4, 8, 16, 20]
    assert numbers("--x", "3,1", int, least=1) == [3, 1]
    assert numbers("--x", "0.5,2", float, least=0.1) == [0.5, 2.0]
    for text in ("", "x", "1,,2", "0", "2..8", "1..x", "nan", "inf"):
        with pytest.raises(ServingError, match="--x"):
            numbers("--x", text, float if text in {"nan", "inf"} else int, least=1)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--warmup", "soon"], "--warmup"),
        (["--duration", "0"], "--duration"),
        (["--count", "0"], "count"),
        (["--range", "x=5:1"], "NAME=LOWEST:BELOW"),
        (["--range", "x"], "NAME=LOWEST:BELOW"),
        (["--shape", "=1"], "NAME=2,3"),
        (["--header", "novalue"], "NAME: VALUE"),
        (["--processes", "0"], "--processes"),
        (["--connections", "-1"], "--connections"),
        (["--timeout", "-1"], "--timeout"),
        (["--scenario", "offline", "--rate", "3"], "has a load of its own"),
        (["--concurrency", ",".join(["1"] * 300)], "too many"),
        (["--trace", "/nowhere"], "cannot read /nowhere"),
        (["--slo", "p99=1s", "--batch", "1,2"], "one batch size and payload"),
    ],
)
def test_wrong_options_are_named(words: list[str], problem: str) -> None:
    with pytest.raises(ServingError, match=problem):
        plan_from(*words)


def test_the_progress_line_says_what_matters() -> None:
    progress = Progress("500/s poisson", False, 3.2, 498.7, 1.234, 9.876, 2, 1)
    assert describe(progress) == "500/s poisson    3.2 s  499/s  p50 1.23 ms  p99 9.88 ms  2 errors  1 wrong"
    assert "warming up" in describe(Progress("x", True, 1, 1, 1, 1, 0, 0))
