"""``servable example list|build|data``: the zoo's models as artifacts on disk, and data for those that have labels."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from servable.cli import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="show the example models")
    listing.add_argument("--json", action="store_true", help="print JSON")
    build = verbs.add_parser("build", help="build one into a model directory", allow_abbrev=False)
    build.add_argument("name", metavar="NAME", help="an example model; see: servable example list")
    build.add_argument(
        "--out", type=Path, default=Path("models"), metavar="DIR", help="root of models (default: models)"
    )
    build.add_argument("--name", dest="model_name", metavar="NAME", help="name of the model directory (default: NAME)")
    build.add_argument("--version", dest="model_version", type=int, default=1, metavar="N", help="version (default: 1)")
    build.add_argument("--format", choices=("onnx", "saved_model"), default="onnx", help="default: onnx")
    build.add_argument("--seed", type=int, default=None, metavar="N", help="seed of the weights")
    build.add_argument("--overwrite", action="store_true", help="replace the version if it exists")
    data = verbs.add_parser("data", help="write inputs with labels, for a model that is fitted", allow_abbrev=False)
    data.add_argument("name", metavar="NAME", help="an example model with labels, as simple_cnn_fitted")
    data.add_argument("file", metavar="FILE", type=Path, help="an .npz to write: the inputs, and labels")
    data.add_argument("--rows", type=int, default=256, metavar="N", help="default: %(default)s")
    data.add_argument("--seed", type=int, default=1, metavar="N", help="of the data; default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """List, build, or write data."""
    from servable.zoo import catalog

    if arguments.verb == "list":
        rows = {name: catalog.describe(name).summary for name in catalog.names()}
        if arguments.json:
            sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        else:
            width = max(map(len, rows))
            sys.stdout.write("".join(f"{name:{width}}  {text}\n" for name, text in rows.items()))
        return DONE
    if arguments.verb == "data":
        return _write_data(arguments)
    options = {} if arguments.seed is None else {"seed": arguments.seed}
    built = catalog.build(
        arguments.name,
        arguments.out,
        version=arguments.model_version,
        kind=arguments.format,
        model_name=arguments.model_name,
        overwrite=arguments.overwrite,
        # Beside the result, not in it: standard output is the path alone.
        report=_report,
        **options,
    )
    sys.stdout.write(f"{built}\n")
    return DONE


def _write_data(arguments: argparse.Namespace) -> int:
    import numpy as np

    from servable.core.errors import failed_precondition, invalid_argument
    from servable.zoo import catalog

    if arguments.file.suffix != ".npz":
        raise invalid_argument(f"{arguments.file}: the data is an .npz file")
    inputs, labels = catalog.labelled(arguments.name, arguments.rows, arguments.seed)
    try:
        np.savez(arguments.file, labels=labels, **inputs)  # type: ignore[arg-type]  # the stub knows no arrays by name
    except OSError as error:
        raise failed_precondition(f"cannot write {arguments.file}: {error.strerror}") from error
    sys.stdout.write(f"{arguments.file}\n")
    return DONE


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
