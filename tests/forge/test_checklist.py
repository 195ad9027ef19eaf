"""A project is judged by what lies in its folder, and told which command does what is left."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from servable.cli import COMMANDS, build_parser, main
from servable.forge.checklist.steps import STEPS, State, judge, state_of
from servable.forge.checklist.tree import look
from servable.settings import option_fields


def states(folder: Path) -> dict[str, str]:
    judged = judge(look(folder))
    return {step.title: state_of(judged, step).value for step in STEPS}


def parts(folder: Path) -> dict[str, State]:
    return {one.part.name: one.state for one in judge(look(folder))}


def put(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


NOTHING = {step.title: "to do" for step in STEPS}


def test_an_empty_folder_has_everything_before_it(tmp_path: Path) -> None:
    assert states(tmp_path) == NOTHING


def test_a_model_that_was_trained_elsewhere_needs_no_training(tmp_path: Path) -> None:
    put(tmp_path, {"models/m/1/model.onnx": b"\x08\x07"})
    found = judge(look(tmp_path))
    assert states(tmp_path) == {**NOTHING, "train": "n/a", "freeze": "done"}
    (train,) = (one for one in found if one.step.title == "train")
    assert train.evidence == ("the model came trained: models/m/1/model.onnx",)


def test_a_checkpoint_is_trained_and_not_frozen(tmp_path: Path) -> None:
    put(tmp_path, {"train.py": "model.fit(x, y)\n", "out/weights.keras": b"PK"})
    assert states(tmp_path) == {**NOTHING, "train": "done"}


def test_a_model_in_python_has_nothing_to_freeze(tmp_path: Path) -> None:
    put(tmp_path, {"m/1/model.py": "class Model:\n    def predict(self, x):\n        return x\n"})
    assert states(tmp_path)["freeze"] == "n/a"
    put(tmp_path, {"m/model.ckpt": b"x"})
    assert states(tmp_path)["freeze"] == "to do", "there is a checkpoint beside it"


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("README.md", "The p99 latency must stay below 50 ms.", "speed"),
        ("slo.sh", "servable bench $URL --slo p99=50ms", "speed"),
        ("docs/goals.md", "Accuracy: at least 0.9 on the test set", "accuracy"),
        ("ci.yml", "run: servable optimize m --max-drop 0.01", "accuracy"),
        ("README.md", "Its memory has to be below 200 MB", "size"),
        ("m/1/model.onnx", b"....DequantizeLinear...", "smaller or faster artifacts"),
        ("m/1/model.xml", b'<layer type="FakeQuantize"/>', "smaller or faster artifacts"),
        ("models.config", "model_config_list { config { name: 'm' } }", "a server"),
        ("tests/test_model.py", "def test_it(): pass", "tests"),
        ("ci/profile.json", '{"servable_profile": 1}', "tests"),
        ("out.trace.json", '{"traceEvents": []}', "measurements or profiles"),
        ("model.prof", b"x", "measurements or profiles"),
        ("Dockerfile", "FROM python", "build"),
        (".github/workflows/ci.yml", "on: push", "continuous integration"),
        ("k8s/serve.yaml", "kind: Deployment", "deployment"),
        ("prometheus.yml", "scrape_configs: []", "metrics"),
        ("board.json", '{"panels": [{"targets": []}]}', "dashboards or alerts"),
        ("alerts.yml", "rules:\n  - alert: Slow", "dashboards or alerts"),
        ("servable.toml", 'access_log = "requests.log"', "logs"),
        ("k8s/serve.yaml", "replicas: 3", "more cores, copies or batches"),
        ("Makefile", "load:\n\tservable bench $(URL) --rate 100,200", "a load test"),
    ],
)
def test_what_shows_a_part(tmp_path: Path, name: str, text: str | bytes, part: str) -> None:
    assert parts(tmp_path)[part] is State.TO_DO
    put(tmp_path, {name: text})
    assert parts(tmp_path)[part] is State.DONE
    (judged,) = (one for one in judge(look(tmp_path)) if one.part.name == part)
    assert judged.evidence == (name,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "It answers with low latency. See page 3."),
        ("CHANGELOG.md", "p99 latency is below 50 ms now"),
        ("notes.md", "accuracy matters to us"),
        ("requirements.txt", "numpy>=1.26"),
        (".venv/pyvenv.cfg", "home = /usr"),
        ("node_modules/a/Dockerfile", "FROM x"),
        ("board.json", '{"panels": []}'),
        ("tool.py", '"""To try it:\n\nservable serve m --workers 2\n"""\n# servable bench URL --rate 5\nx = 1\n'),
    ],
)
def test_what_shows_nothing(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, {name: text})
    if name.startswith(".venv"):
        put(tmp_path, {".venv/lib/test_numpy.py": "", ".venv/lib/Dockerfile": "FROM x"})
    assert states(tmp_path) == NOTHING
    assert set(parts(tmp_path).values()) == {State.TO_DO}


def test_a_step_is_done_when_all_its_parts_are(tmp_path: Path) -> None:
    put(tmp_path, {"README.md": "p99 latency below 50 ms, accuracy at least 0.9"})
    assert states(tmp_path)["gather requirements"] == "to do"
    put(tmp_path, {"GOALS.md": "at most 200 MB of memory"})
    assert states(tmp_path)["gather requirements"] == "done"


def test_the_command_prints_json_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, {"Dockerfile": "FROM python"})
    assert main(["checklist", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["number"] for step in document["steps"]] == list(range(1, 10))
    build = document["steps"][6]["parts"][0]
    assert build == {"part": "build", "state": "done", "evidence": ["Dockerfile"], "command": "servable doctor"}
    assert main(["checklist", str(tmp_path), "--strict"]) == 3
    assert "0 of 9 steps are done, 9 to do" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "part"), [("nowhere", "there is no folder"), ("file", "is a file")])
def test_what_is_no_folder(tmp_path: Path, name: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["checklist", str(tmp_path / name)]) == 1
    assert part in capsys.readouterr().err


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lost.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "ring").symlink_to(tmp_path)
    put(tmp_path, {"odd.md": b"\xff\xfe p99 latency below 5 ms"})
    assert parts(tmp_path)["speed"] is State.DONE


def flags_of(command: str) -> set[str]:
    words = ["run"] if command == "bench" else []
    parser = build_parser(command)
    for name in [command, *words]:
        (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = choices[name]
    served = {f"--{item.name}" for item in option_fields()} if command == "serve" else set()
    return served | {flag for action in parser._actions for flag in action.option_strings}


def test_every_command_that_is_named_exists() -> None:
    for step in STEPS:
        for part in step.parts:
            program, command, *_ = part.command.split()
            assert program == "servable"
            assert command in COMMANDS, part.command
            flags = {word for word in part.command.split() if word.startswith("--")}
            assert flags <= flags_of(command), part.command
