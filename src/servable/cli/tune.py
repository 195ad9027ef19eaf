"""``servable tune``: find how a model runs fastest here, and leave a plan that ``servable serve`` follows."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from servable.cli import DONE, MISSED
from servable.core.errors import invalid_argument
from servable.core.progress import unheard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, what to tune for, and the forms of output."""
    parser.description = (
        "Measure engines, precisions, threads and streams by size of batch, each in a process of its own and each "
        "compared with the default engine's answers, and write a plan. It is kept in the cache, where servable serve "
        "finds it, or in a file for servable serve --plan FILE."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="PATH of an artifact, a version or a model directory")
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument(
        "--objective",
        default="throughput",
        metavar="WHAT",
        help="throughput, latency, or p99=50ms (the largest batches within that); default: %(default)s",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        action="extend",
        default=["f32"],
        choices=("f32", "bf16", "int8"),
        help="what may be computed in, f32 always among it; answers change with bf16 and int8; default: f32 alone",
    )
    parser.add_argument(
        "--max-difference",
        type=float,
        metavar="X",
        help="how far reduced precision may be off, over the largest value; default: 0.1 for bf16, 0.3 for int8",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="inputs: .npz, .npy, JSON, images or a request log")
    parser.add_argument("--batch", default="1,8,32", metavar="LIST", help="sizes of batch; default: %(default)s")
    parser.add_argument("--budget", default="120s", metavar="TIME", help="time to measure; default: %(default)s")
    parser.add_argument("--engines", metavar="LIST", help="try these engines only; default: all that are installed")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="write the plan there instead of into the cache")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page, too")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace) -> int:
    """Tune, print, keep the plan; exit code 3 if an objective with a limit is kept by nothing."""
    from servable.engines.tuned_plan import write_plan
    from servable.forge.artifacts import find_source
    from servable.forge.samples import from_file
    from servable.forge.tuning.choice import parse_objective
    from servable.forge.tuning.page import objective_missed
    from servable.forge.tuning.plan import plan_file, plan_of
    from servable.forge.tuning.tune import tune
    from servable.forge.tuning.tuned import TuneOptions

    options = TuneOptions(
        objective=parse_objective(arguments.objective),
        precisions=tuple(dict.fromkeys(["f32", *arguments.precision])),
        batches=_batches(arguments.batch),
        budget_s=_seconds(arguments.budget),
        engines=_engines(arguments.engines),
        max_difference=arguments.max_difference,
    )
    data = arguments.data
    read = None if data is None else (lambda signature: from_file(data, signature))
    report = unheard if arguments.quiet or arguments.json else _say
    tuned = tune(find_source(arguments.model.absolute(), arguments.model_version), options, read, report)
    plan = plan_of(tuned)
    place = arguments.plan or plan_file(plan)
    write_plan(plan, place)
    _show(arguments, tuned, plan, place)
    return MISSED if objective_missed(tuned, plan) else DONE


def _show(arguments: argparse.Namespace, tuned: Any, plan: Any, place: Path) -> None:
    import msgspec

    from servable.cli.reports import put_report
    from servable.forge.tuning.page import as_json, candidates_table, tune_report

    report, table = tune_report(tuned, plan, str(place)), candidates_table(tuned, plan)
    if arguments.json:
        document = {"plan_file": str(place), "plan": msgspec.to_builtins(plan), **as_json(tuned)}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        put_report(report, table)
    if arguments.html is not None:
        put_report(report, table, arguments.html, "html")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _batches(text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise invalid_argument(f"--batch: expected sizes such as 1,8,32, not {text!r}")
    return tuple(found)


def _seconds(text: str) -> float:
    factors = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, factor = (text[:-1], factors[text[-1]]) if text[-1:] in factors else (text, 1.0)
    try:
        found = float(number) * factor
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        raise invalid_argument(f"--budget: expected a time such as 120s or 5m, not {text!r}")
    return found


def _engines(text: str | None) -> tuple[str, ...]:
    from servable.engines.base import engine_class

    names = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    for name in names:
        engine_class(name)
    return names
