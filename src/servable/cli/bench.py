"""``servable bench``: measure a server, and what came of it. ``bench URL`` is ``bench run URL``."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

COMMANDS = {
    "run": ("servable.cli.bench_run", "load a server, verify its answers, report honest numbers (the default)"),
    "compare": ("servable.cli.bench_compare", "measure servers in turn: URLs, this one, its revisions, other people's"),
    "peers": ("servable.cli.bench_peers", "other people's servers to compare with: list them, install them"),
    "resize": ("servable.cli.bench_resize", "time libraries that resize images"),
    "diff": ("servable.cli.bench_diff", "compare two results; exit code 3 above a threshold"),
    "table": ("servable.cli.bench_table", "print a result again, or write it as Markdown, CSV or a page"),
    "restrict": (
        "servable.cli.bench_restrict",
        "serve models on fewer cores and less memory, and measure what that costs",
    ),
}
"""Name -> module and summary; a module is as in ``servable.cli.COMMANDS``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest="bench_command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        found = commands.add_parser(name, help=summary, description=summary + ".", allow_abbrev=False)
        importlib.import_module(module).add_arguments(found)


def rewrite(words: list[str]) -> list[str]:
    """Put ``run`` before a URL or an option that is no subcommand's."""
    place = words.index("bench") + 1
    following = words[place] if place < len(words) else ""
    if following in COMMANDS or following in {"", "-h", "--help"}:
        return words
    return [*words[:place], "run", *words[place:]]


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    module: Any = importlib.import_module(COMMANDS[arguments.bench_command][0])
    return int(module.run(arguments))
