"""What the documents say is what the code does."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servable.cli import COMMANDS, build_parser
from servable.cli.flags_page import PAGE, page
from servable.settings import option_fields

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def test_the_page_of_flags_is_the_generated_one() -> None:
    assert PAGE.read_text() == page(), "run: make flags"


def test_the_synchronous_client_is_the_generated_one() -> None:
    command = [sys.executable, "-m", "servable.client.generate", "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: make sync-client"


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"{target} does not exist"


def commands(text: str) -> Iterator[list[str]]:
    for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith("servable "):
                yield (shlex.split(line) if '"' in line else line.split())[1:]


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    return next(found for name, found in below(build_parser(command)) if name == command)


def below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield what follows a command, by name: its verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_and_flags_in_documents_exist(path: Path) -> None:
    for words in commands(path.read_text()):
        assert words[0] in COMMANDS, f"servable {words[0]} is no command"
        module = importlib.import_module(COMMANDS[words[0]][0])
        words = getattr(module, "rewrite", list)(words)
        parser = parser_of(words[0])
        known = flags_of(parser)
        for name, verb in below(parser):
            if name == words[1]:
                known |= flags_of(verb)
        if words[0] == "serve":
            known |= {f"--{item.name}" for item in option_fields()}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{word} is no flag of servable {words[0]}"


@functools.cache
def known_flags() -> frozenset[str]:
    found = {f"--{item.name}" for item in option_fields()} | {"--flag"}
    for command in COMMANDS:
        parser = parser_of(command)
        found |= flags_of(parser).union(*(flags_of(verb) for _, verb in below(parser)))
    return frozenset(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_flags_in_prose_exist(path: Path) -> None:
    for flag in re.findall(r"`(--[a-z][a-z0-9_-]*)[^`]*`", path.read_text()):
        assert flag in known_flags(), f"{flag} is no flag"


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text()):
            assert target in targets, f"{path.name}: make {target}"


def test_metrics_in_the_reference_are_those_exposed() -> None:
    from servable.observe.metrics import Metrics

    exposed = set(re.findall(rb"^# TYPE (servable_\w+)", Metrics(list, lambda _: False).exposition(), re.MULTILINE))
    written = set(re.findall(rb"`(servable_\w+)`", (ROOT / "docs/reference/metrics.md").read_bytes()))
    assert written == exposed


def test_numbers_in_the_readme_come_from_the_reports() -> None:
    section = (ROOT / "README.md").read_text().partition("## Numbers")[2].partition("## ")[0]
    report = (ROOT / "docs/benchmarks/comparison.md").read_text()
    quoted = re.findall(r"\d[\d,]*\.?\d+(?= µs| MB| s,| \|)", section)
    assert len(quoted) > 15
    assert not [number for number in quoted if number not in report]
