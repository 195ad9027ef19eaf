"""Converters that cannot live beside our libraries, each in an environment of its own that a person asks for once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import servable
from servable.core.cache import cache_dir
from servable.core.environments import Environment, pinned
from servable.core.errors import failed_precondition, invalid_argument
from servable.core.progress import Progress
from servable.forge.worker import run_apart

_REQUIREMENTS: Final = Path(__file__).parent / "requirements"


@dataclass(frozen=True, slots=True)
class Converter:
    """A converter and its environment. ``download_mb`` and ``disk_mb`` are what it costs to install, in megabytes.

    ``borrows`` are packages that it takes from this environment, so that they are not downloaded twice.
    """

    name: str
    summary: str
    python: tuple[int, int]
    download_mb: int
    disk_mb: int
    borrows: tuple[str, ...] = ()

    @property
    def requirements(self) -> Path:
        """Return the list of every package of its environment, with versions."""
        return _REQUIREMENTS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """Return which of it is installed."""
        return pinned(self.requirements)[self.name]

    def environment(self, root: Path | None = None) -> Environment:
        """Return where it is, or would be."""
        return Environment(self.name, self.requirements, self.python, root or cache_dir() / "converters")


CONVERTERS: Final[Mapping[str, Converter]] = MappingProxyType(
    {
        converter.name: converter
        for converter in (
            Converter(
                "litert-torch",
                "torch modules and ONNX to TFLite, with the torch that is installed here",
                (sys.version_info[0], sys.version_info[1]),
                download_mb=240,
                disk_mb=1060,
                borrows=("torch",),
            ),
        )
    }
)


def converter_named(name: str) -> Converter:
    """Return a converter; INVALID_ARGUMENT names those that there are."""
    if name not in CONVERTERS:
        raise invalid_argument(f"{name!r} is no converter: there are {', '.join(CONVERTERS)}")
    return CONVERTERS[name]


def missing(name: str) -> str:
    """Return how a converter is installed and what that costs; "" if it is installed."""
    converter = CONVERTERS[name]
    if converter.environment().installed():
        return ""
    return (
        f"its converter, {name}, works in an environment of its own, which is not installed: "
        f"servable converters install {name} (downloads {converter.download_mb} MB, keeps {converter.disk_mb} MB)"
    )


def run_in(name: str, function: str, arguments: Mapping[str, Any], report: Progress) -> Any:
    """Call ``module:function(report=..., **arguments)`` in a converter's environment, as ``run_apart`` does.

    FAILED_PRECONDITION says how to install it. The module may import what the environment has, and of ours what
    imports nothing beyond the standard library.
    """
    converter = CONVERTERS[name]
    hint = missing(name)
    if hint:
        raise failed_precondition(hint)
    found = [str(Path(servable.__file__).parent.parent), *filter(None, map(_home, converter.borrows))]
    return run_apart(
        function, arguments, report, python=str(converter.environment().python), path=tuple(dict.fromkeys(found))
    )


def _home(package: str) -> str:
    """Return the folder that a package is imported from."""
    spec = importlib.util.find_spec(package)
    return "" if spec is None or spec.origin is None else str(Path(spec.origin).parent.parent)
