"""``servable bench URL``: load a server, with its answers verified, and say what can be believed of the numbers."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from servable.cli import DONE, FAILED, MISSED
from servable.cli.bench_options import plan_of
from servable.cli.bench_progress import ProgressLine
from servable.cli.reports import put_report
from servable.core.errors import failed_precondition, invalid_argument
from servable.core.tensors import ATOL, RTOL
from servable.lab.measure import Measurement
from servable.lab.plan import SCENARIOS, Plan
from servable.lab.result import Result, encode
from servable.lab.target import WIRES

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to ask, how much of it, and what must hold."""
    parser.description = (
        "Loads a served model, or with --wire http any HTTP service. "
        "An answer that is not OK or wrong is a failure, never a latency. Latencies run from when a request should "
        "have begun. By default: the most it can do, then latencies at half of that rate."
    )
    parser.epilog = "exit codes: 0 done, 1 failed, or no right answer, 2 wrong usage, 3 an objective was missed"
    parser.add_argument(
        "url", metavar="URL", help="grpc(s)://HOST:PORT/MODEL, http(s)://..., HOST:PORT may be unix:SOCKET"
    )
    parser.add_argument("--wire", choices=WIRES, default="", help="default: tfserving-grpc or tfserving-rest")
    parser.add_argument("--model-version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--signature", default="", metavar="NAME", help="default: serving_default")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE", help="repeatable")
    parser.add_argument("--server-timing", action="store_true", help="ask the server for queue and compute times")
    _add_load(parser.add_argument_group("load"))
    _add_data(parser.add_argument_group("requests and answers"))
    _add_http(parser.add_argument_group("plain HTTP (--wire http)"))
    _add_client(parser.add_argument_group("the client"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help=".json, .html, .md or .csv; repeatable"
    )
    output.add_argument("--json", action="store_true", help="print the result as JSON")
    output.add_argument("--quiet", action="store_true", help="no progress line")


def _add_load(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--concurrency", default="", metavar="N,...", help="closed loop: 8, a sweep 1,4,16 or 1..64")
    group.add_argument("--rate", default="", metavar="R,...", help="open loop: requests per second, or a sweep")
    group.add_argument(
        "--arrivals", choices=("poisson", "constant"), default="poisson", help="of the open loop; default: %(default)s"
    )
    group.add_argument("--trace", type=Path, metavar="FILE", help="open loop: arrival times in seconds, one a line")
    group.add_argument("--duration", type=float, default=10.0, metavar="S", help="of each step; default: %(default)g")
    group.add_argument("--count", type=int, metavar="N", help="requests of each step, instead of a duration")
    group.add_argument(
        "--warmup", default="auto", metavar="S|auto", help="before each step; auto: until steady, 10 s at most"
    )
    group.add_argument("--slo", default="", metavar="p99=50ms", help="find the highest rate that holds it, or check it")
    group.add_argument("--scenario", choices=SCENARIOS, default="load", help="as MLPerf Inference has them")
    group.add_argument("--samples-per-query", type=int, default=8, metavar="N", help="of multi-stream; default: 8")


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data", type=Path, metavar="FILE", help=".npz, .npy, .json, .jsonl, .tfrecord (request log), folder of images"
    )
    group.add_argument("--expect", default="", metavar="FILE|URL|first", help="right answers: .npz, .json, a server")
    group.add_argument("--rtol", type=float, default=RTOL, help="relative tolerance; default: %(default)g")
    group.add_argument("--atol", type=float, default=ATOL, help="absolute tolerance; default: %(default)g")
    group.add_argument("--batch", default="1", metavar="N,...", help="rows of a request, or a sweep")
    group.add_argument("--samples", type=int, default=16, metavar="N", help="different made-up requests; default: 16")
    group.add_argument("--seed", type=int, default=0, help="of made-up requests and arrivals")
    group.add_argument("--shape", action="append", default=[], metavar="NAME=2,3", help="of a row, where it is free")
    group.add_argument("--range", action="append", default=[], metavar="NAME=0:100", help="of made-up numbers")
    group.add_argument("--free-size", default="1", metavar="N,...", help="of other free dimensions, or a sweep")
    group.add_argument("--string-bytes", default="", metavar="N,...", help="of made-up strings, or a sweep")


def _add_http(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--method", default="", help="default: GET, with a body POST")
    group.add_argument(
        "--body",
        default="",
        metavar="TEXT|@FILE",
        help="with {{index}}, {{random}}, {{randint:1:6}}, {{uuid}}, {{INPUT}}",
    )


def _add_client(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--processes", type=int, default=1, metavar="N", help="client processes")
    group.add_argument("--connections", type=int, default=0, metavar="N", help="of each process (HTTP/2; default: 1)")
    group.add_argument("--max-in-flight", type=int, default=0, metavar="N", help="of each process, in an open loop")
    group.add_argument("--timeout", type=float, default=30.0, metavar="S", help="of a request; default: %(default)g")
    group.add_argument("--cores", default="", metavar="N,...", help="processors for the client processes")
    group.add_argument("--server-pid", type=int, metavar="PID", help="default: who listens there, on this machine")
    group.add_argument("--ca", default="", metavar="FILE", help="authorities to trust (PEM)")
    group.add_argument("--certificate", default="", metavar="FILE", help="the client's own")
    group.add_argument("--key", default="", metavar="FILE", help="of that certificate")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; also what was measured before Ctrl-C."""
    plan = plan_of(arguments)
    for path in arguments.out:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise invalid_argument(f"--out {path} cannot be written: it is a folder, or there is none to put it into")
    result = asyncio.run(_measure(plan, quiet=arguments.quiet or arguments.json))
    write(result, arguments)
    if result.search is not None and result.search.rate_per_s is None and not result.interrupted:
        return MISSED
    if result.search is None and any(step.slo_held is False for step in result.steps):
        return MISSED
    if result.interrupted:
        return INTERRUPTED
    return DONE if result.ok else FAILED


def write(result: Result, arguments: argparse.Namespace) -> None:
    """Print a result and write the files that were asked for."""
    from servable.lab.page import report_of, steps_table

    report, table = report_of(result), steps_table(result)
    for path in arguments.out:
        if path.suffix == ".json":
            put_json(path, result)
        else:
            put_report(report, table, path)
    if arguments.json:
        sys.stdout.write(encode(result).decode())
    else:
        put_report(report, table)


def put_json(path: Path, result: Result) -> None:
    """Write the result itself."""
    try:
        path.write_bytes(encode(result))
    except OSError as error:
        raise failed_precondition(f"cannot write {path}: {error.strerror}") from None


async def _measure(plan: Plan, *, quiet: bool) -> Result:
    with ProgressLine(quiet=quiet) as line:
        measurement = Measurement(plan, on_progress=line.show)
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(measurement.run())

        def interrupted() -> None:
            measurement.stop()
            # The second time there is nothing more to wait for.
            loop.add_signal_handler(signal.SIGINT, running.cancel)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        try:
            return await running
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
