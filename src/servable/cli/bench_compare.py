"""``servable bench compare A B ...``: contestants in turn, in one run, on one model."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from servable.cli import DONE, FAILED
from servable.cli.bench_options import numbers
from servable.cli.reports import put_everywhere
from servable.core.errors import invalid_argument
from servable.core.scratch import scratch
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.lab.compare import PROTOCOLS, Plan, compare
from servable.lab.comparison import Comparison, Conditions, encode
from servable.lab.comparison_page import comparison_report, comparison_table
from servable.lab.contestants import FORMS, Contestant, Running, parse_contestant
from servable.lab.exchange import Sample
from servable.lab.sources import read_samples
from servable.lab.subject import SAMPLES, Subject, example_subject, served_subject
from servable.lab.synthesis import Wanted, synthesise
from servable.zoo import catalog

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add who, on what, how long and where."""
    parser.description = (
        "Measures contestants in turn (A B B A), with the same requests, and compares every answer with the right one. "
        "Ratios are to the first. A contestant that fails is a row with the reason."
    )
    parser.epilog = "exit codes: 0 done, 1 nobody could be measured or answers were wrong, 2 wrong usage, 130 stopped"
    parser.add_argument("contestants", nargs="+", metavar="CONTESTANT", help=FORMS)
    subject = parser.add_argument_group("what they serve")
    subject.add_argument(
        "--model", metavar="NAME|PATH", help="an example model or an artifact; not needed if the first is a URL"
    )
    subject.add_argument("--data", type=Path, metavar="FILE", help="requests: .npz, .json, ...; default: made up")
    subject.add_argument("--rows", type=int, default=1, metavar="N", help="rows of a request; default: %(default)s")
    load = parser.add_argument_group("load")
    load.add_argument("--concurrency", default="1,32", metavar="N,...", help="requests in flight; default: %(default)s")
    load.add_argument("--protocol", choices=("grpc", "rest", "both"), default="both", help="default: %(default)s")
    load.add_argument("--rounds", type=int, default=4, metavar="N", help="even is best; default: %(default)s")
    load.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of a block; default: %(default)g")
    load.add_argument("--warmup", type=float, default=0.5, metavar="S", help="before each; default: %(default)g")
    load.add_argument(
        "--fresh", action="store_true", help="start servers for each round; else they are stopped while others work"
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--server-cores", metavar="N,...", help="default: all but the last")
    machine.add_argument("--client-cores", metavar="N,...", help="default: the last")
    machine.add_argument("--no-pin", action="store_true", help="let servers and client run anywhere")
    machine.add_argument(
        "--threads", type=int, metavar="N", help="threads of each engine; default: one for each server core"
    )
    machine.add_argument(
        "--batch-rows", type=int, default=32, metavar="N", help="the most that peers join; default: %(default)s"
    )
    machine.add_argument(
        "--batch-wait", type=float, default=1.0, metavar="MS", help="the longest that they wait; default: %(default)g"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help=".json, .html, .md or .csv; repeatable"
    )
    output.add_argument("--json", action="store_true", help="print the comparison as JSON")
    output.add_argument("--quiet", action="store_true", help="say nothing meanwhile")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print."""
    contestants = [parse_contestant(text) for text in arguments.contestants]
    conditions = conditions_of(arguments)
    wanted = PROTOCOLS if arguments.protocol == "both" else tuple(
        name for name in PROTOCOLS if name.lower() == arguments.protocol
    )  # fmt: skip
    concurrencies = numbers("--concurrency", arguments.concurrency, int, least=1)
    with scratch() as folder:
        subject = subject_of(arguments, contestants[0], folder)
        plan = Plan(
            contestants,
            subject,
            replace(conditions, samples=len(subject.samples)),
            concurrencies,
            wanted,
            command=("servable", *sys.argv[1:]),
        )
        found = asyncio.run(compare(plan, _silent if arguments.quiet else _report))
    put(found, arguments)
    return exit_code(found)


def put(found: Comparison, arguments: argparse.Namespace) -> None:
    """Print a comparison, and write it where it was asked for."""
    text, report, table = encode(found).decode(), comparison_report(found), comparison_table(found.rows)
    put_everywhere(text, report, table, arguments.out, as_json=arguments.json)


def exit_code(found: Comparison) -> int:
    """Return how it went."""
    if found.interrupted:
        return INTERRUPTED
    right = any(block.ok for row in found.rows for block in row.blocks)
    wrong = any(block.wrong for row in found.rows for block in row.blocks)
    return DONE if right and not wrong else FAILED


def conditions_of(arguments: argparse.Namespace) -> Conditions:
    """Return the conditions that were asked for; INVALID_ARGUMENT names an option that cannot be met."""
    usable = sorted(os.sched_getaffinity(0))
    server: tuple[int, ...] = ()
    client: tuple[int, ...] = ()
    if not arguments.no_pin and len(usable) > 1:
        server = _cores("--server-cores", arguments.server_cores, usable) or tuple(usable[:-1])
        client = _cores("--client-cores", arguments.client_cores, usable) or tuple(usable[-1:])
    elif arguments.server_cores or arguments.client_cores:
        raise invalid_argument("--server-cores and --client-cores need two cores or more, and no --no-pin")
    for option in ("rounds", "seconds", "rows", "batch_rows"):
        if not getattr(arguments, option) > 0:
            raise invalid_argument(f"--{option.replace('_', '-')} must be above 0")
    if arguments.warmup < 0 or arguments.batch_wait < 0 or (arguments.threads or 1) < 1:
        raise invalid_argument("--warmup and --batch-wait must not be negative, --threads must be 1 or more")
    return Conditions(
        rounds=arguments.rounds,
        block_s=arguments.seconds,
        warmup_s=arguments.warmup,
        threads=arguments.threads or len(server or usable),
        batch_rows=arguments.batch_rows,
        batch_wait_ms=arguments.batch_wait,
        server_cores=server,
        client_cores=client,
        fresh=arguments.fresh,
    )


def subject_of(arguments: argparse.Namespace, first: Contestant, folder: Path) -> Subject:
    """Return what is asked: an example model, an artifact, or what the first contestant serves."""
    model = arguments.model
    if model is None:
        if not isinstance(first, Running):
            raise invalid_argument("--model says what to serve: an example model, or the path of an artifact")
        return asyncio.run(served_subject(first.label, arguments.data, rows=arguments.rows))
    if model in catalog.CATALOG and not Path(model).exists():
        if arguments.data is not None:
            raise invalid_argument(f"{model} is an example model, which brings its own data: --data is for others")
        return example_subject(model, folder, rows=arguments.rows)
    return artifact_subject(Path(model), arguments.data, arguments.rows)


def artifact_subject(path: Path, data: Path | None, rows: int) -> Subject:
    """Return an artifact of the user's. The right answers are those that it gives in this process."""
    from servable.cli.targets import find_version, load_here

    artifact = find_version(path, None)
    if artifact.kind not in {"onnx", "saved_model"} or artifact.transform is not None:
        what = "a model with a transform" if artifact.transform is not None else f"{artifact.kind} model"
        raise invalid_argument(f"{path} holds a {what}: peers serve a plain model.onnx or SavedModel")
    model, _ = load_here(artifact, None)
    try:
        signature = model.signatures[DEFAULT_SIGNATURE]
        if data is None:
            samples = synthesise(signature, Wanted(batch=rows, samples=SAMPLES))
        else:
            samples = read_samples(data, signature, rows, SAMPLES)
        outputs = tuple(signature.outputs)
        answered = [Sample(one.inputs, model.run(DEFAULT_SIGNATURE, dict(one.inputs), outputs)) for one in samples]
    finally:
        model.close()
    name = path.resolve().name if path.is_dir() else path.stem
    return Subject(name, signature, answered, {artifact.kind: artifact.path})


def _cores(option: str, text: str | None, usable: list[int]) -> tuple[int, ...]:
    if text is None:
        return ()
    found = tuple(numbers(option, text, int, least=0))
    foreign = [core for core in found if core not in usable]
    if foreign:
        raise invalid_argument(f"{option}: there is no core {foreign[0]} for this process; it may use {usable}")
    return found


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _silent(_: str) -> None:
    pass
