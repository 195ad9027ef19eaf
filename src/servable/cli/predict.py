"""``servable predict``: one call of an artifact or a served model, from the shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servable.cli import DONE
from servable.cli.tables import print_table
from servable.cli.targets import TARGET_HELP, Served, find_version, load_here, parse_target
from servable.client.inputs import as_inputs
from servable.core.errors import invalid_argument, not_found
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.serving.validation import chosen_outputs, complete_inputs, missing_signature
from servable.wire.json_writer import dumps_tensors

MOST_SHOWN = 20
"""Elements of an output that a table shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the target, the ways to give inputs and the forms of output."""
    parser.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    parser.add_argument(
        "inputs", nargs="*", metavar="NAME=VALUE", help="an input as JSON (x='[[1.0, 2.0]]'), or NAME=@FILE.npy|.json"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="all inputs: .npz, or .json with {name: value}")
    parser.add_argument("--signature", default="", metavar="NAME", help=f"default: {DEFAULT_SIGNATURE}")
    parser.add_argument("--outputs", default="", metavar="NAME,...", help="default: all")
    parser.add_argument("--version", dest="model_version", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--engine", metavar="NAME", help="for an artifact: the engine to run it with")
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="write the outputs as arrays")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Call and print."""
    inputs = read_inputs(arguments.inputs, arguments.data)
    wanted = tuple(name for name in arguments.outputs.split(",") if name)
    target = parse_target(arguments.target)
    if isinstance(target, Served):
        outputs = _call_server(target, inputs, arguments, wanted)
    else:
        outputs = _call_artifact(target, inputs, arguments, wanted)
    if arguments.out is not None:
        np.savez(arguments.out, allow_pickle=False, **outputs)
    if arguments.json:
        sys.stdout.buffer.write(dumps_tensors({}, "outputs", outputs) + b"\n")
    else:
        print_table(("output", "type", "shape", "values"), [_row(name, array) for name, array in outputs.items()])
    return DONE


def _call_server(
    target: Served, inputs: Mapping[str, Any], arguments: argparse.Namespace, wanted: tuple[str, ...]
) -> Mapping[str, Array]:
    from servable.client import Client

    with Client(target.url) as client:
        return client.predict(
            target.model, arguments.signature, version=arguments.model_version, outputs=wanted, inputs=inputs
        ).outputs


def _call_artifact(
    path: Path, inputs: Mapping[str, Any], arguments: argparse.Namespace, wanted: tuple[str, ...]
) -> Mapping[str, Array]:
    model, _ = load_here(find_version(path, arguments.model_version), arguments.engine)
    try:
        name = arguments.signature or DEFAULT_SIGNATURE
        signature = model.signatures.get(name)
        if signature is None:
            raise missing_signature(name)
        fed = complete_inputs(signature, as_inputs(_only_input(inputs, signature), signature))
        return model.run(name, fed, chosen_outputs(signature, wanted))
    finally:
        model.close()


def _only_input(inputs: Mapping[str, Any], signature: Signature) -> Mapping[str, Any]:
    """A ``.npy`` file names no input: where there is only one, that is meant."""
    if "" in inputs and len(inputs) == 1 and len(signature.inputs) == 1:
        return {next(iter(signature.inputs)): inputs[""]}
    return inputs


def read_inputs(words: Sequence[str], data: Path | None) -> dict[str, Any]:
    """Return inputs by name from the command line and a file; INVALID_ARGUMENT names the word or file that is wrong."""
    inputs = {} if data is None else _read_all(data)
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise invalid_argument(f"{word!r} is no input: expected NAME=VALUE or NAME=@FILE")
        inputs[name] = _read_one(Path(value[1:])) if value.startswith("@") else _parse(value, f"input {name}")
    if not inputs:
        raise invalid_argument("there are no inputs: give NAME=VALUE or --data FILE")
    return inputs


def _read_all(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with _load_array(path) as arrays:
            return dict(arrays)
    found = _read_one(path)
    if path.suffix == ".npy":
        return {"": found}
    if not isinstance(found, dict):
        raise invalid_argument(f"{path} must hold an object of inputs by name")
    return found.get("inputs", found) if len(found) == 1 else found


def _read_one(path: Path) -> Any:
    if path.suffix == ".npy":
        return _load_array(path)
    try:
        return _parse(path.read_text(), str(path))
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None


def _load_array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise not_found(f"cannot read {path}: {error}") from None
    except ValueError as error:
        raise invalid_argument(f"{path} is no array file: {error}") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise invalid_argument(f"{where} is no JSON: {error}") from None


def _row(name: str, array: Array) -> tuple[str, ...]:
    values = np.array2string(array, threshold=MOST_SHOWN, precision=6, separator=", ", max_line_width=80)
    return name, str(array.dtype), str(list(array.shape)), values
