"""How much of the machine a server may use, and the cases that are compared. Pure: nothing here limits anybody."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from servable.core.errors import invalid_argument

EVERY = "all"
"""The name that a pin gives to every model."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_GIBIBYTE = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server may use. ``cpus`` below the number of ``cores`` is a share of their time."""

    cores: tuple[int, ...]
    memory_bytes: int | None = None
    cpus: float | None = None

    @property
    def shares_time(self) -> bool:
        """Whether cores alone do not express the limit."""
        return self.cpus is not None and self.cpus < len(self.cores)


@dataclass(frozen=True, slots=True)
class Case:
    """Servers that work at the same time, each with its limits. ``lacking`` says why this machine cannot show it."""

    title: str
    servers: tuple[tuple[str, Limits], ...]
    lacking: str = ""


def parse_memory(text: str) -> int:
    """Read ``1g``, ``512m`` or bytes, as Docker does; INVALID_ARGUMENT otherwise."""
    found = _SIZE.fullmatch(text.strip())
    count = int(float(found[1]) * 1024 ** _POWERS[found[2].lower()]) if found else 0
    if count <= 0:
        raise invalid_argument(f"--memory {text!r} is no size: expected bytes, or a number with k, m or g, such as 1g")
    return count


def parse_pin(text: str, usable: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Read ``model1=0`` or ``all=0,1``; INVALID_ARGUMENT names a core that this process may not use."""
    name, separator, words = text.partition("=")
    try:
        cores = tuple(dict.fromkeys(int(word) for word in words.split(",")))
    except ValueError:
        cores = ()
    if not name or not separator or not cores:
        raise invalid_argument(f"--pin {text!r} pins nothing: expected NAME=CORE,..., such as model1=0 or {EVERY}=0,1")
    foreign = [core for core in cores if core not in usable]
    if foreign:
        raise invalid_argument(
            f"--pin {text}: there is no core {foreign[0]} for this process; it may use {_listed(usable)}"
        )
    return name, cores


def four_cases(usable: Sequence[int]) -> list[Case]:
    """Return what is compared unless something else is asked for: one CPU, 1 GB, two models apart, two together."""
    first = tuple(usable[:1])
    lacking = "" if len(usable) > 1 else "this process may use one core only"
    apart = tuple((f"model{place}", Limits((core,))) for place, core in enumerate(usable[:2], 1))
    return [
        Case("one CPU", (("model1", Limits(first)),)),
        Case("one CPU, 1 GiB", (("model1", Limits(first, _GIBIBYTE)),)),
        Case("a CPU each", () if lacking else apart, lacking),
        Case("the same CPUs", _together(2, tuple(usable[:2]), None)),
    ]


def asked_cases(
    cpus: float | None, memory_bytes: int | None, pins: Sequence[tuple[str, tuple[int, ...]]], usable: Sequence[int]
) -> list[Case]:
    """Return a case for ``cpus`` and ``memory_bytes``, one for all pins by name, and one for each pin of all models."""
    cases = []
    if cpus is not None or (memory_bytes is not None and not pins):
        cases.append(_one(cpus, memory_bytes, usable))
    named = [(name, cores) for name, cores in pins if name != EVERY]
    twice = {name for name, _ in named if [other for other, _ in named].count(name) > 1}
    if twice:
        raise invalid_argument(f"--pin {sorted(twice)[0]}: each model is pinned once")
    if named:
        where = ", ".join(f"{name} on {_listed(cores)}" for name, cores in named)
        cases.append(Case(where, tuple((name, Limits(cores, memory_bytes)) for name, cores in named)))
    for name, cores in pins:
        if name == EVERY:
            cases.append(Case(f"both on {_listed(cores)}", _together(2, cores, memory_bytes)))
    return cases


def _one(cpus: float | None, memory_bytes: int | None, usable: Sequence[int]) -> Case:
    if cpus is not None and not 0 < cpus <= len(usable):
        raise invalid_argument(f"--cpus {cpus:g}: this process may use {len(usable)}; expected more than 0, up to that")
    cores = tuple(usable if cpus is None else usable[: math.ceil(cpus)])
    words = ["all CPUs" if cpus is None else "one CPU" if cpus == 1 else f"{cpus:g} CPUs"]
    if memory_bytes is not None:
        words.append(size(memory_bytes))
    return Case(", ".join(words), (("model1", Limits(cores, memory_bytes, cpus)),))


def _together(count: int, cores: tuple[int, ...], memory_bytes: int | None) -> tuple[tuple[str, Limits], ...]:
    return tuple((f"model{place}", Limits(cores, memory_bytes)) for place in range(1, count + 1))


def size(count: int) -> str:
    """Write bytes in the unit that suits them."""
    power = min(3, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _listed(cores: Sequence[int]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
