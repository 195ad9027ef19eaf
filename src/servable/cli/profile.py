"""``servable profile``: where the time of one model goes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from servable.cli import DONE
from servable.cli.bench_options import range_of, shape_of
from servable.cli.reports import FORMATS, put_report, put_text
from servable.cli.targets import Served, find_version, parse_target
from servable.core.errors import failed_precondition, invalid_argument
from servable.engines.base import Artifact
from servable.engines.plan import choose
from servable.forge.profiling.order import HOW, Wanted
from servable.forge.profiling.report import document, main_table, report_of
from servable.forge.profiling.result import Profile, profile_model
from servable.forge.profiling.trace import trace

_OF_PYTHON = frozenset({"cprofile", "line"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the kind of profile and what to run."""
    parser.description = (
        "Says where the time of one model goes: by the engine's own profiler, or, of a model in Python, by function or "
        "line. It runs in a process of its own, whose CPU time and memory are shown beside it."
    )
    parser.add_argument("target", metavar="MODEL", help="an artifact, or a model's directory (its newest version)")
    parser.add_argument(
        "--how",
        choices=HOW,
        help="ops: a table of operations; chrome: that, and a trace for Perfetto; cprofile, line: of Python; "
        "resources: CPU and memory alone. Default: ops, of a Python model cprofile",
    )
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--engine", metavar="NAME", help="the engine to run it with")
    parser.add_argument("--signature", default="", metavar="NAME", help="default: serving_default")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="rows of a run; default: %(default)s")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the engine; default: as it serves")
    parser.add_argument("--data", type=Path, metavar="FILE", help="inputs: .npz, .npy, JSON, images; else made up")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=2,3", help="of a row; repeatable")
    parser.add_argument("--range", action="append", default=[], metavar="NAME=LOW:BELOW", help="repeatable")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="rows of a table; default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the trace of chrome (.json), the statistics of cprofile and line (.prof, .lprof), else the report",
    )
    parser.add_argument("--format", choices=FORMATS, help="of the report; default: by the ending of --out, else text")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Profile and print."""
    target = parse_target(arguments.target)
    if isinstance(target, Served):
        raise invalid_argument(
            f"{arguments.target}: a profile is of a model on disk; a server tells TensorBoard (docs/how-to/watch.md)"
        )
    artifact = find_version(target, arguments.model_version)
    choice = choose(artifact, arguments.engine)
    wanted = _wanted(arguments, artifact)
    own_file = _own_file(wanted.how, arguments.out)
    profile = profile_model(arguments.target, artifact, choice, wanted, _report)
    if wanted.how == "chrome":
        _write_trace(own_file or Path("profile.trace.json"), profile)
    out = None if own_file is not None else arguments.out
    if arguments.json or (out is not None and out.suffix.lower() == ".json" and arguments.format is None):
        put_text(json.dumps(document(profile), indent=2) + "\n", out)
    else:
        put_report(report_of(profile, arguments.top), main_table(profile, arguments.top), out, arguments.format)
    return DONE


def _wanted(arguments: argparse.Namespace, artifact: Artifact) -> Wanted:
    for option in ("batch", "runs", "top"):
        if getattr(arguments, option) < 1:
            raise invalid_argument(f"--{option} {getattr(arguments, option)} is too few: at least 1")
    how = arguments.how or ("cprofile" if artifact.kind == "python" else "ops")
    return Wanted(
        how=how,
        signature=arguments.signature,
        data=arguments.data,
        batch=arguments.batch,
        runs=arguments.runs,
        threads=arguments.threads,
        stats=_own_file(how, arguments.out) if how in _OF_PYTHON else None,
        shapes=dict(shape_of(text) for text in arguments.shape),
        ranges=dict(range_of(text) for text in arguments.range),
    )


def _own_file(how: str, out: Path | None) -> Path | None:
    """Return the file that is not a report but the profiler's own, if ``--out`` is that."""
    if out is None or how in ("ops", "resources"):
        return None
    reports = (".html", ".htm", ".md", ".csv", ".txt")
    return None if how in _OF_PYTHON and out.suffix.lower() in (*reports, ".json") else out


def _write_trace(path: Path, profile: Profile) -> None:
    found = trace(f"{profile.target} ({profile.engine})", profile.spans, profile.phases, profile.samples)
    try:
        path.write_text(json.dumps(found))
    except OSError as error:
        raise failed_precondition(f"cannot write {path}: {error.strerror}") from None
    sys.stderr.write(f"{path}: open it with https://ui.perfetto.dev or chrome://tracing\n")


def _report(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
