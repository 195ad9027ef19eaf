"""The nine steps, what shows that each is done, and which command does it. Pure but for the reading of artifacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from servable.forge.artifacts import MAIN_FILES
from servable.forge.checklist.tree import Tree


class State(Enum):
    """Whether something is done, is to do, or does not apply."""

    DONE = "done"
    TO_DO = "to do"
    NONE = "n/a"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of a step. ``find`` returns the files that show it; ``spare`` a reason why it need not be."""

    name: str
    find: Callable[[Tree], list[str]]
    command: str
    spare: Callable[[Tree], str] = field(default=lambda _tree: "")


@dataclass(frozen=True, slots=True)
class Step:
    """One of the nine."""

    number: int
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A part of a step in a project: ``evidence`` are files, or the reason why it does not apply."""

    step: Step
    part: Part
    state: State
    evidence: tuple[str, ...]


PROSE: Final = (
    "*.md", "*.rst", "requirements*.txt", "*.toml", "*.yml", "*.yaml", "*.sh", "Makefile", "*.mk", "*.cfg", "*.ini",
    "run",
)  # fmt: skip
SCRIPTS: Final = (
    "*.sh", "Makefile", "*.mk", "*.yml", "*.yaml", "Dockerfile*", "*.Dockerfile", "Jenkinsfile", "*.toml", "*.service",
    "Procfile", "Justfile", "*.py", "run", "*.cfg", "*.ini",
)  # fmt: skip
_CI: Final = (
    ".github/workflows/*", ".gitlab-ci.yml", "Jenkinsfile", ".circleci/*", "azure-pipelines.yml", ".ci/*",
    "bitbucket-pipelines.yml", ".buildkite/*", "cloudbuild.yaml", ".drone.yml", ".travis.yml",
)  # fmt: skip
_FROZEN: Final = (
    "saved_model.pb", "*.onnx", "*.tflite", "*.pt2", "graph.pb", "frozen*.pb", "model.xml", "*.torchscript",
)  # fmt: skip
_CHECKPOINTS: Final = ("*.keras", "*.h5", "*.pth", "*.ckpt", "*.ckpt-*", "checkpoint", "*.safetensors")

_BOUND = r"must|at most|at least|below|under|less than|more than|within|no more|budget|target|objective|<|>|≤|≥"


def _demand(subjects: str, commands: str) -> re.Pattern[str]:
    """Return what finds a line that sets a bound to one of these, in numbers, or a command that does."""
    line = rf"^(?=.*\b(?:{subjects})\b)(?=.*(?:{_BOUND}))(?=.*\d).*$"
    return re.compile(rf"{commands}|{line}", re.IGNORECASE | re.MULTILINE)


_SPEED = _demand(r"latency|p9\d|p99\.9|response time|throughput|requests? (?:a|per) second", r"--slo\b|max_latency\s*=")
_ACCURACY = _demand(r"accuracy|precision|recall|f1|auc|top-?[15]|error rate", r"--max-drop\b")
_SIZE = _demand(r"size|memory|disk|RAM|megabytes?|[MG]i?B", r"--goal[ =]size|child_memory_mb\s*=")
_TRAINS = re.compile(
    r"\.fit\(|GradientTape|optimizer\.step\(|\.backward\(\)|Trainer\(|train_on_batch|servable (compress|example build)"
)
_OPTIMISES = re.compile(
    r"servable (optimize|quantize|compress)\b|tfmot\.|nncf\.|prune|distil|quantize_(static|dynamic)"
)
_QUANTIZED = re.compile(rb"DequantizeLinear|MatMulInteger|ConvInteger|DynamicQuantizeLinear|FakeQuantize")
_SERVES = re.compile(
    r"servable serve|tensorflow_model_server|model_config_list|\[\[models\]\]|servable\.Server|uvicorn|gunicorn|"
    r"tritonserver|torchserve|mlserver|bentoml serve"
)
_CHECKS = re.compile(r"servable check|--servable-model|servable_profile")
_MEASURES = re.compile(r"servable (bench|profile)|wrk |h2load |locust|k6 run|py-spy|cProfile|line_profiler")
_TRACES = re.compile(r'"traceEvents"|"(p99_ms|p99_ns|latencies|runs_s|throughput_per_s)"\s*:')
_DEPLOYS = re.compile(
    r"kind:\s*(Deployment|StatefulSet|InferenceService|RayService|Knative)|^services:|\[Service\]|servable push|"
    r"helm (install|upgrade)|kubectl apply|ansible",
    re.MULTILINE,
)
_METRICS = re.compile(
    r"prometheus_config|scrape_configs|monitoring_config_file|/monitoring/|ServiceMonitor|opentelemetry|prometheus_client"
)
_ALERTS = re.compile(r"^\s*-\s*alert:|alertmanager|PrometheusRule|\"alert\"|pagerduty", re.MULTILINE)
_LOGS = re.compile(r"--access_log|access_log\s*=|logging_config|log_requests|request_log|fluent|loki|opentelemetry")
_SCALES = re.compile(
    r"--workers|workers\s*=\s*\d|replicas:|HorizontalPodAutoscaler|maxReplicas|ray\.serve|num_replicas|--enable_batching|"
    r"\[batching\]|max_batch_size|servable tune|--plan\b|autoscal"
)
_LOADED = re.compile(r"servable bench.*--(rate|concurrency|slo)|locust|k6 run|h2load|wrk ")


def artifacts(tree: Tree) -> list[str]:
    """Return the artifacts that need no code of the model's."""
    return tree.named(*_FROZEN)


def _python_models(tree: Tree) -> list[str]:
    return [file for file in tree.named(MAIN_FILES["python"]) if _is_model(tree.texts.get(file, ""))]


def _is_model(text: str) -> bool:
    return re.search(r"^class \w+", text, re.MULTILINE) is not None and "def predict" in text


def _tests(tree: Tree) -> list[str]:
    return list(dict.fromkeys([*tree.named("test_*.py", "*_test.py"), *tree.saying(_CHECKS, *SCRIPTS, "*.json")]))


def _came_trained(tree: Tree) -> str:
    found = [*artifacts(tree), *_python_models(tree)]
    return f"the model came trained: {found[0]}" if found else ""


def _nothing_to_freeze(tree: Tree) -> str:
    found = _python_models(tree)
    held = tree.named(*_CHECKPOINTS)
    return f"{found[0]} is Python: it has no graph to freeze" if found and not held else ""


def _dashboards(tree: Tree) -> list[str]:
    return [file for file in tree.named("*.json") if _is_dashboard(tree.texts.get(file, ""))]


def _is_dashboard(text: str) -> bool:
    return '"panels"' in text and '"targets"' in text


def _saying(words: re.Pattern[str], *patterns: str) -> Callable[[Tree], list[str]]:
    return lambda tree: tree.saying(words, *patterns)


def _demanded(words: re.Pattern[str]) -> Callable[[Tree], list[str]]:
    """Look into what says what must be; a list of changes and a report of measurements say what was."""
    return lambda tree: [
        file
        for file in tree.saying(words, *PROSE)
        if "changelog" not in file.lower() and "benchmark" not in file.lower()
    ]


def _named(*patterns: str) -> Callable[[Tree], list[str]]:
    return lambda tree: tree.named(*patterns)


def _any(*finders: Callable[[Tree], list[str]]) -> Callable[[Tree], list[str]]:
    return lambda tree: list(dict.fromkeys(file for find in finders for file in find(tree)))


STEPS: Final[Sequence[Step]] = (
    Step(1, "gather requirements", (
        Part("speed", _demanded(_SPEED), "servable bench URL --slo p99=50ms"),
        Part("accuracy", _demanded(_ACCURACY), "servable optimize MODEL --max-drop 0.01"),
        Part("size", _demanded(_SIZE), "servable optimize MODEL --goal size"),
    )),
    Step(2, "train", (
        Part(
            "training code or checkpoints",
            _any(_saying(_TRAINS, "*.py", "*.ipynb", "Makefile", "*.sh"), _named(*_CHECKPOINTS)),
            "servable example build sentiment",
            _came_trained,
        ),
    )),
    Step(3, "optimise", (
        Part(
            "smaller or faster artifacts",
            _any(
                lambda tree: tree.holding(_QUANTIZED, "*.onnx", "*.xml"),
                _named("*int8*", "*quant*.onnx", "*quant*.tflite", "*pruned*", "*distil*"),
                _saying(_OPTIMISES, *SCRIPTS, "*.ipynb"),
            ),
            "servable optimize MODEL",
        ),
    )),
    Step(4, "freeze", (
        Part("an artifact that needs no code", artifacts, "servable export MODEL OUT", _nothing_to_freeze),
    )),
    Step(5, "backend and tests", (
        Part("a server", _saying(_SERVES, *SCRIPTS, "*.config", "*.pbtxt"), "servable serve MODEL"),
        Part("tests", _tests, "servable check MODEL"),
    )),
    Step(6, "profile", (
        Part(
            "measurements or profiles",
            _any(
                _saying(_TRACES, "*.json"), _named("*.prof", "*.lprof", "*.xplane.pb"), _saying(_MEASURES, *SCRIPTS)
            ),
            "servable profile MODEL",
        ),
    )),
    Step(7, "automate build and deployment", (
        Part("build", _named("Dockerfile*", "*.Dockerfile", "Makefile", "pyproject.toml", "Justfile"),
             "servable doctor"),
        Part("continuous integration", _named(*_CI), "servable check MODEL"),
        Part("deployment", _saying(_DEPLOYS, *SCRIPTS), "servable serve MODEL"),
    )),
    Step(8, "monitoring", (
        Part("metrics", _saying(_METRICS, *SCRIPTS, "*.config", "*.pbtxt"), "servable serve MODEL"),
        Part("dashboards or alerts", _any(_dashboards, _saying(_ALERTS, "*.yml", "*.yaml", "*.json", "*.tf")),
             "servable status URL"),
        Part("logs", _saying(_LOGS, *SCRIPTS, "*.config", "*.conf"), "servable serve MODEL --access_log requests.log"),
    )),
    Step(9, "scaling", (
        Part("more cores, copies or batches", _saying(_SCALES, *SCRIPTS, "*.config", "*.pbtxt", "*.json"),
             "servable tune MODEL"),
        Part("a load test",
             _any(_saying(_LOADED, *SCRIPTS), _saying(_TRACES, "*bench*.json", "*load*.json", "*result*.json")),
             "servable bench URL --rate 100,200,400"),
    )),
)  # fmt: skip


def judge(tree: Tree) -> list[Judged]:
    """Judge every part of every step."""
    return [_judged(tree, step, part) for step in STEPS for part in step.parts]


def state_of(judged: Sequence[Judged], step: Step) -> State:
    """Return the state of a step: done when all of its parts are that can be."""
    states = {one.state for one in judged if one.step is step}
    if State.TO_DO in states:
        return State.TO_DO
    return State.DONE if State.DONE in states else State.NONE


def as_json(tree: Tree, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return it for JSON."""
    return {
        "folder": str(tree.root),
        "files": len(tree.files),
        "cut": tree.cut,
        "steps": [
            {
                "number": step.number,
                "step": step.title,
                "state": state_of(judged, step).value,
                "parts": [
                    {
                        "part": one.part.name,
                        "state": one.state.value,
                        "evidence": list(one.evidence),
                        "command": one.part.command,
                    }
                    for one in judged
                    if one.step is step
                ],
            }
            for step in STEPS
        ],
    }


def _judged(tree: Tree, step: Step, part: Part) -> Judged:
    found = part.find(tree)
    if found:
        return Judged(step, part, State.DONE, tuple(found))
    reason = part.spare(tree)
    return Judged(step, part, State.NONE, (reason,)) if reason else Judged(step, part, State.TO_DO, ())
