"""``servable warmup record|show``: the requests that a version runs before it becomes available."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from servable.cli import DONE
from servable.cli.predict import read_inputs
from servable.cli.tables import print_table
from servable.cli.targets import find_version, load_here
from servable.client.inputs import as_inputs
from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.messages import InferRequest, ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.engines.base import Model
from servable.lifecycle.warmup import FREE_SIZES, invent_inputs
from servable.lifecycle.warmup_file import MOST_RECORDS, WARMUP_FILE, warmup_file
from servable.protos.tfrecord import DamagedRecordsError, frame_record, read_records
from servable.serving.validation import complete_inputs, missing_signature
from servable.wire.prediction_log import LoggedCall, decode_prediction_log, encode_call, requests_of
from servable.wire.tfserving_grpc import encode_predict_request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="list the requests of a file or a version", allow_abbrev=False)
    show.add_argument("path", type=Path, metavar="PATH", help="a file of records, a version or a model directory")
    show.add_argument("--json", action="store_true", help="print JSON")
    record = verbs.add_parser(
        "record",
        help="write requests beside a version, after they have run",
        description="Write requests beside a version, after each has run on it. They replace those that are there.",
        allow_abbrev=False,
    )
    record.add_argument("path", type=Path, metavar="PATH", help="a version, or a model directory: its newest version")
    record.add_argument(
        "inputs", nargs="*", metavar="NAME=VALUE", help="an input as JSON (x='[[1.0, 2.0]]'), or NAME=@FILE.npy|.json"
    )
    record.add_argument("--data", type=Path, metavar="FILE", help="all inputs: .npz, or .json with {name: value}")
    record.add_argument("--log", type=Path, nargs="+", default=[], metavar="FILE", help="records of request logs")
    record.add_argument(
        "--synthesize", action="store_true", help="invent rows for each signature, in batches of --sizes"
    )
    record.add_argument("--sizes", default="1", metavar="N,...", help="rows of invented batches (default: 1)")
    record.add_argument("--count", type=int, default=MOST_RECORDS, metavar="N", help="records at most (default: 1000)")
    record.add_argument("--signature", default="", metavar="NAME", help=f"default: {DEFAULT_SIGNATURE}; invented: all")
    record.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    record.add_argument("--engine", metavar="NAME", help="the engine to try them with")


def run(arguments: argparse.Namespace) -> int:
    """Show or record."""
    return _show(arguments) if arguments.verb == "show" else _record(arguments)


# -- show -------------------------------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    path = _file_of(arguments.path)
    rows = [_describe(number, call) for number, call in enumerate(read_calls([path]), 1)]
    if arguments.json:
        names = ("record", "kind", "model", "signature", "inputs", "answer", "time")
        sys.stdout.write(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2) + "\n")
    else:
        print_table(("record", "kind", "model", "signature", "inputs", "answer", "time"), rows)
    return DONE


def _file_of(path: Path) -> Path:
    if path.is_dir():
        found = warmup_file(path) or warmup_file(find_version(path, None).path)
        if found is None:
            raise not_found(f"{path} has no {WARMUP_FILE}")
        return found
    if not path.exists():
        raise not_found(f"{path} does not exist")
    return path


def _describe(number: int, call: LoggedCall) -> tuple[str, ...]:
    signature, inputs = "", f"{len(call.request)} bytes"
    if call.kind == "predict_log":
        (request,) = requests_of(call, call.model, {}, "")
        signature = request.signature or DEFAULT_SIGNATURE
        inputs = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in request.inputs.items())
    model = call.model.name if call.model.version is None else f"{call.model.name}/{call.model.version}"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(call.time_s)) if call.time_s else ""
    answer = f"{len(call.response)} bytes" if call.response else "none"
    return str(number), call.kind, model, signature, inputs, answer, when


def read_calls(paths: Iterable[Path]) -> Iterator[LoggedCall]:
    """Yield the calls in files of records; INVALID_ARGUMENT, DATA_LOSS or NOT_FOUND name the file."""
    for path in paths:
        try:
            for record in read_records(path):
                call = decode_prediction_log(record)
                if call is not None:
                    yield call
        except DamagedRecordsError as error:
            raise ServingError(Code.DATA_LOSS, f"{path}: {error}") from None
        except OSError as error:
            raise not_found(f"cannot read {path}: {error.strerror}") from None


# -- record -----------------------------------------------------------------------------------------------------------


def _record(arguments: argparse.Namespace) -> int:
    sources = [bool(arguments.inputs or arguments.data), bool(arguments.log), arguments.synthesize]
    if sum(sources) != 1:
        raise invalid_argument("give one source of requests: inputs (NAME=VALUE, --data), --log FILE, or --synthesize")
    if not 1 <= arguments.count <= MOST_RECORDS:
        raise invalid_argument(f"--count is from 1 to {MOST_RECORDS}: a server takes no more warm-up records")
    artifact = find_version(arguments.path, arguments.model_version)
    model, _ = load_here(artifact, arguments.engine)
    try:
        calls = list(_calls(arguments, model))[: arguments.count]
        if not calls:
            raise invalid_argument("there are no requests to record")
        for number, call in enumerate(calls, 1):
            _try(model, call, number)
    finally:
        model.close()
    folder = artifact.path if artifact.path.is_dir() else artifact.path.parent
    path = folder / WARMUP_FILE
    _write(path, calls)
    sys.stdout.write(f"{path}: {len(calls)} requests, each of which {model.engine} answered\n")
    return DONE


def _calls(arguments: argparse.Namespace, model: Model) -> Iterator[LoggedCall]:
    if arguments.log:
        yield from read_calls(arguments.log)
    elif arguments.synthesize:
        yield from _invented(model, arguments.signature, _sizes(arguments.sizes))
    else:
        signature = model.signatures.get(arguments.signature or DEFAULT_SIGNATURE)
        if signature is None:
            raise missing_signature(arguments.signature or DEFAULT_SIGNATURE)
        inputs = as_inputs(read_inputs(arguments.inputs, arguments.data), signature)
        yield _predict(InferRequest(ModelRef("model"), complete_inputs(signature, inputs), signature.name))


def _sizes(text: str) -> list[int]:
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in text.split(",")]
    if min(sizes) < 1:
        raise invalid_argument(f"--sizes: expected positive numbers with commas between them, not {text!r}")
    return sizes


def _invented(model: Model, only: str, sizes: Sequence[int]) -> Iterator[LoggedCall]:
    if only and only not in model.signatures:
        raise missing_signature(only)
    for signature in model.signatures.values():
        if only in {"", signature.name}:
            for size in sizes:
                inputs = invent_inputs(signature, size, FREE_SIZES[0])
                yield _predict(InferRequest(ModelRef("model"), inputs, signature.name))


def _predict(request: InferRequest) -> LoggedCall:
    return LoggedCall("predict_log", encode_predict_request(request), b"", request.model, int(time.time()))


def _try(model: Model, call: LoggedCall, number: int) -> None:
    """Run a request: one that fails would keep the version from being served."""
    try:
        for request in requests_of(call, ModelRef("model"), model.signatures, model.engine):
            name = request.signature or DEFAULT_SIGNATURE
            signature = model.signatures.get(name)
            if signature is None:
                raise missing_signature(name)
            outputs = request.output_filter or tuple(signature.outputs)
            model.run(name, complete_inputs(signature, request.inputs), outputs)
    except ServingError as error:
        raise failed_precondition(f"request {number} does not run, and nothing was written: {error.message}") from error


def _write(path: Path, calls: Sequence[LoggedCall]) -> None:
    """Put the file in its place whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(b"".join(frame_record(encode_call(call)) for call in calls))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
