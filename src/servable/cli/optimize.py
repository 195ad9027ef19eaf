"""``servable optimize``: a pipeline of steps, one artifact each, measured and compared; the best can be published."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from servable.cli import DONE, FAILED, MISSED
from servable.cli.bench_options import numbers
from servable.cli.forging import MODEL_HELP, tell, write_json
from servable.cli.reports import put_report
from servable.core.errors import invalid_argument
from servable.core.signatures import Signature
from servable.forge.appraisal import Timing
from servable.forge.artifacts import find_source, folder_of
from servable.forge.pipeline.optimize import Plan, optimize
from servable.forge.pipeline.optimized import GIVEN, GOALS, Goal, Optimized
from servable.forge.pipeline.page import artifacts_table, optimized_report
from servable.forge.pipeline.route import reachable
from servable.forge.samples import Samples, from_file
from servable.forge.steps import steps
from servable.lab.sources import read_arrays
from servable.lifecycle.intake import publish

DEFAULT_STEPS = ("freeze", "fold", "onnx", "openvino", "fp16", "int8-weights", "int8")
FOLDER = "optimized"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the steps, the data, the goal and the forms of output."""
    parser.description = (
        "Does steps with a model, one artifact to serve for each, every one compared with its source through its "
        "engine; measures all of them, and says which is the best. A step that fails is a row with its reason. What "
        "was done before is reused. Ctrl-C leaves whole artifacts only; the next run goes on from there."
    )
    parser.epilog = (
        "example: servable optimize models/cnn --data val.npz --goal latency --max-drop 0.01 --publish models/cnn | "
        "exit codes: 0 done, 1 nothing could be measured, 2 wrong usage, 3 --publish: nothing is better than the model"
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help=MODEL_HELP)
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        nargs="?",
        help=f"a folder of models, one for each step; default: {FOLDER}/NAME",
    )
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="of MODEL; default: the newest")
    parser.add_argument(
        "--steps",
        metavar="STEP,...",
        help="each from the newest artifact of full precision that it reads; prune+int8 is one after the other; "
        f"default: those of {','.join(DEFAULT_STEPS)} that read such a model",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="for the steps, such as sparsity=0.5"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", type=Path, metavar="FILE", help="inputs: .npz, .npy, JSON, a folder of images, a request log"
    )
    data.add_argument(
        "--labels",
        default="labels",
        metavar="NAME|FILE",
        help="the right classes: an array of the .npz of --data, or an .npy file; default: %(default)s",
    )
    data.add_argument("--samples", type=int, default=512, metavar="N", help="rows to take; default: %(default)s")
    goal = parser.add_argument_group("goal")
    goal.add_argument("--goal", choices=GOALS, default="latency", help="default: %(default)s")
    goal.add_argument(
        "--max-drop",
        type=float,
        default=0.01,
        metavar="X",
        help="share of the accuracy, or without labels of the top classes, that may be lost; default: %(default)g",
    )
    goal.add_argument("--publish", type=Path, metavar="MODEL_DIR", help="publish the best there, as the next version")
    timing = parser.add_argument_group("measuring")
    timing.add_argument("--batch", default="1,8,32", metavar="N,...", help="batch sizes; default: %(default)s")
    timing.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each; default: %(default)g")
    output = parser.add_argument_group("output")
    output.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--fresh", action="store_true", help="do everything again")
    output.add_argument("--quiet", action="store_true", help="no lines of progress")


def run(arguments: argparse.Namespace) -> int:
    """Do the steps, print the report, publish."""
    goal = Goal(arguments.goal, arguments.max_drop)
    if not 0 <= goal.max_drop < 1:
        raise invalid_argument(f"--max-drop {goal.max_drop:g} is no share: expected 0 to 1, such as 0.01 for 1 %")
    if arguments.samples < 1 or not arguments.seconds > 0:
        raise invalid_argument("--samples and --seconds must be above 0")
    plan = _plan(arguments)
    try:
        found = optimize(plan, lambda line: tell(arguments, line))
    except KeyboardInterrupt:
        sys.stderr.write(
            f"servable optimize: interrupted; what {plan.out} has is whole, and the same command goes on\n"
        )
        raise
    report, table = optimized_report(found, goal), artifacts_table(found, goal)
    if arguments.html is not None:
        put_report(report, table, arguments.html, "html")
    if arguments.json:
        write_json(found.as_json(goal))
    else:
        put_report(report, table)
    if found.best(goal) is None:
        return FAILED
    return DONE if arguments.publish is None else _publish(found, goal, arguments.publish)


def _plan(arguments: argparse.Namespace) -> Plan:
    source = find_source(arguments.model, arguments.model_version)
    out = arguments.out or Path(FOLDER) / _name_of(arguments.model)
    if arguments.steps is None:
        words = reachable(DEFAULT_STEPS, source.kind, steps())
    else:
        words = [word.strip() for word in arguments.steps.split(",") if word.strip()]
    batches = tuple(dict.fromkeys(numbers("--batch", arguments.batch, int, least=1)))
    return Plan(
        source,
        out,
        words,
        Timing(batches, budget_s=arguments.seconds),
        _data(arguments),
        dict(_option(text) for text in arguments.option),
        arguments.fresh,
    )


def _name_of(model: Path) -> str:
    path = model.resolve()
    return path.parent.name if path.name.isdecimal() else path.stem if path.is_file() else path.name


def _option(text: str) -> tuple[str, object]:
    import json

    name, separator, value = text.partition("=")
    if not name or not separator:
        raise invalid_argument(f"--option {text!r} is no option: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _data(arguments: argparse.Namespace) -> Callable[[Signature], Samples] | None:
    path, labels = arguments.data, arguments.labels
    if path is None:
        if labels != "labels":
            raise invalid_argument("--labels goes with --data")
        return None

    def read(signature: Signature) -> Samples:
        if not labels.endswith(".npy"):
            return from_file(path, signature, arguments.samples, labels)
        found = from_file(path, signature, arguments.samples)
        (right,) = read_arrays(Path(labels), _labels_signature()).values()
        if right.ndim != 1 or len(right) < len(found):
            raise invalid_argument(
                f"{labels} has shape {list(right.shape)}: expected one label for each of {len(found)} rows"
            )
        return replace(found, labels=right[: len(found)])

    return read


def _labels_signature() -> Signature:
    from servable.core.signatures import DEFAULT_SIGNATURE, TensorSpec
    from servable.core.tensors import INT64

    return Signature(DEFAULT_SIGNATURE, {"labels": TensorSpec("labels", INT64, (None,))}, {})


def _publish(found: Optimized, goal: Goal, target: Path) -> int:
    best = found.best(goal)
    if best is None or best.name == GIVEN:
        sys.stderr.write(f"servable optimize: nothing was published: the model as it is is the best by {goal.name}\n")
        return MISSED
    published = publish(folder_of(find_source(Path(best.path))), target)
    sys.stderr.write(f"published {best.name} as {published}\n")
    return DONE
