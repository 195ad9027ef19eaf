"""``servable config``: the schema of files of settings, and TensorFlow Serving's files turned into them."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from servable.cli import DONE
from servable.core.errors import Code, ServingError, invalid_argument
from servable.settings.schema import schema_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("schema", help="print the JSON schema of servable.toml", allow_abbrev=False)
    convert = actions.add_parser(
        "convert",
        help="turn files of TensorFlow Serving into servable.toml, or back",
        description=(
            "Turns files of TensorFlow Serving (models, batching, monitoring, ssl, platform, session, told apart by "
            "what is in them) into one servable.toml; or a servable.toml into such files, in a directory OUT. What "
            "cannot be expressed is printed."
        ),
        allow_abbrev=False,
    )
    convert.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="a servable.toml, or files of TF Serving")
    convert.add_argument("output", type=Path, metavar="OUT", help="a file that ends in .toml, or a directory")


def run(arguments: argparse.Namespace) -> int:
    """Print the schema, or convert."""
    if arguments.action == "schema":
        sys.stdout.write(schema_text())
        return DONE
    return _convert(arguments.inputs, arguments.output)


def _convert(inputs: list[Path], output: Path) -> int:
    from servable.settings.convert import from_toml, to_toml

    if output.suffix == ".toml":
        made, folder = to_toml(inputs, output.name), output.parent
    elif len(inputs) == 1 and inputs[0].suffix == ".toml":
        made, folder = from_toml(inputs[0], str(output.absolute())), output
    else:
        raise invalid_argument(
            "expected files of TensorFlow Serving and an OUT that ends in .toml, or one IN that ends in .toml and a "
            "directory OUT"
        )
    for name in made.files:
        if (folder / name).exists():
            raise ServingError(Code.ALREADY_EXISTS, f"{folder / name} is there already: remove it, or give another OUT")
    for name, text in made.files.items():
        _write(folder / name, text)
    if made.flags:
        sys.stdout.write(f"{shlex.join(['tensorflow_model_server', *dict.fromkeys(made.flags)])}\n")
    for line in made.lost:
        sys.stderr.write(f"not expressed: {line}\n")
    return DONE


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"cannot write {path}: {error.strerror}") from None
    sys.stderr.write(f"wrote {path}\n")
