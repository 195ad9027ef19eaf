"""From the words of ``servable bench URL`` to a plan."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from servable.core.errors import invalid_argument, not_found
from servable.lab.judge import Tolerance
from servable.lab.objective import parse_objective
from servable.lab.plan import Plan, scenario_loads
from servable.lab.schedule import Schedule, doubling, parse_trace
from servable.lab.session import ClientOptions, Load
from servable.lab.synthesis import Wanted
from servable.lab.wires.http import Template
from servable.transport.tls import ClientTlsOptions

SERVER_TIMING = ("servable-timing", "1")
"""The header by which a server is asked for ``Server-Timing``."""
_MOST_STEPS = 200
Number = TypeVar("Number", int, float)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return the plan; INVALID_ARGUMENT names the option that is wrong."""
    loads = _loads(arguments)
    headers = tuple(_header(text) for text in arguments.header)
    if arguments.server_timing:
        headers = (*headers, SERVER_TIMING)
    warmup_s = _warmup(arguments.warmup)
    return Plan(
        url=arguments.url,
        wire=arguments.wire,
        version=arguments.model_version,
        signature=arguments.signature,
        headers=() if arguments.wire == "http" else headers,
        tls=ClientTlsOptions(arguments.ca, arguments.certificate, arguments.key),
        template=_template(arguments, headers),
        data=arguments.data,
        expect=arguments.expect,
        variants=_variants(arguments),
        loads=loads,
        objective=parse_objective(arguments.slo) if arguments.slo else None,
        scenario=arguments.scenario,
        trial=_trial(arguments, warmup_s),
        poisson=arguments.arrivals == "poisson",
        client=ClientOptions(
            processes=_positive("--processes", arguments.processes),
            connections=_at_least_0("--connections", arguments.connections),
            most_in_flight=_at_least_0("--max-in-flight", arguments.max_in_flight),
            timeout_s=_positive("--timeout", arguments.timeout),
            tolerance=Tolerance(arguments.rtol, arguments.atol),
            cores=tuple(numbers("--cores", arguments.cores, int, least=0)) if arguments.cores else (),
        ),
        server_pid=arguments.server_pid,
        command=("servable", *sys.argv[1:]),
    )


def _trial(arguments: argparse.Namespace, warmup_s: float | None) -> Load:
    """Return what bounds the steps whose load is found on the way; the trials of a search have a short warm-up."""
    if arguments.slo and warmup_s is None:
        warmup_s = 1.0
    return Load(concurrency=1, duration_s=arguments.duration, count=arguments.count, warmup_s=warmup_s)


def numbers(option: str, text: str, kind: Callable[[str], Number], *, least: float) -> list[Number]:
    """Read ``1,4,16``, or ``1..64`` for 1, 2, 4 ... 64; INVALID_ARGUMENT names the option."""
    if kind is int and ".." in text:
        low, _, high = text.partition("..")
        if low.strip() == "1" and high.strip().isdecimal() and int(high) >= 1:
            return [kind(str(one)) for one in doubling(int(high))]
        raise invalid_argument(f"{option} {text!r} is no range: expected 1..N")
    found = []
    for word in text.split(","):
        try:
            value = kind(word)
        except ValueError:
            raise invalid_argument(f"{option} {text!r}: {word!r} is no number") from None
        if not (math.isfinite(value) and value >= least):
            raise invalid_argument(f"{option} {text!r}: {word} is too small: expected {least:g} or more")
        found.append(value)
    return found


def _loads(arguments: argparse.Namespace) -> tuple[Load, ...]:
    warmup_s = _warmup(arguments.warmup)
    given = [name for name in ("concurrency", "rate", "trace") if getattr(arguments, name)]
    if len(given) > 1:
        raise invalid_argument(f"--{given[0]} and --{given[1]} are two loads: give one")
    bounds = {"duration_s": _positive("--duration", arguments.duration), "count": arguments.count, "warmup_s": warmup_s}
    scenario = arguments.scenario
    if scenario not in {"load", "server"}:
        if given:
            raise invalid_argument(f"--scenario {scenario} has a load of its own: leave --{given[0]} out")
        return scenario_loads(scenario, width=_positive("--samples-per-query", arguments.samples_per_query), **bounds)
    if scenario == "server" and not (arguments.slo or arguments.rate):
        raise invalid_argument("--scenario server needs --slo, such as p99=50ms, or --rate")
    if arguments.trace:
        schedule = Schedule("trace", trace_s=_trace(arguments.trace))
        return (Load(schedule=schedule, **bounds),)
    if arguments.rate:
        rates = numbers("--rate", arguments.rate, float, least=1e-3)
        schedules = [Schedule(arguments.arrivals, rate, seed=arguments.seed) for rate in rates]
        if arguments.count is not None:
            bounds["duration_s"] = max(bounds["duration_s"], 2 * arguments.count / min(rates))
        return _few([Load(schedule=schedule, **bounds) for schedule in schedules])
    if arguments.concurrency:
        return _few(
            [Load(concurrency=one, **bounds) for one in numbers("--concurrency", arguments.concurrency, int, least=1)]
        )
    return ()


def _few(loads: Sequence[Load]) -> tuple[Load, ...]:
    if len(loads) > _MOST_STEPS:
        raise invalid_argument(f"{len(loads)} steps are too many: at most {_MOST_STEPS}")
    return tuple(loads)


def _variants(arguments: argparse.Namespace) -> tuple[Wanted, ...]:
    shapes = dict(shape_of(text) for text in arguments.shape)
    ranges = dict(range_of(text) for text in arguments.range)
    sizes: list[int | None] = [None]
    if arguments.string_bytes:
        sizes = list(numbers("--string-bytes", arguments.string_bytes, int, least=0))
    return tuple(
        Wanted(
            batch=batch,
            samples=_positive("--samples", arguments.samples),
            seed=arguments.seed,
            shapes=shapes,
            ranges=ranges,
            string_bytes=size,
            free_size=free,
        )
        for batch in numbers("--batch", arguments.batch, int, least=1)
        for free in numbers("--free-size", arguments.free_size, int, least=0)
        for size in sizes
    )


def _warmup(text: str) -> float | None:
    if text == "auto":
        return None
    (found,) = numbers("--warmup", text, float, least=0)[:1]
    return found


def shape_of(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``NAME=2,3``."""
    name, separator, sizes = text.partition("=")
    if not name or not separator:
        raise invalid_argument(f"--shape {text!r} is no shape: expected NAME=2,3")
    return name, tuple(numbers("--shape", sizes, int, least=0)) if sizes else ()


def range_of(text: str) -> tuple[str, tuple[float, float]]:
    """Read ``NAME=LOWEST:BELOW``."""
    name, _, bounds = text.partition("=")
    low, separator, high = bounds.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = (1.0, 0.0)
    if not name or not separator or not found[0] < found[1]:
        raise invalid_argument(f"--range {text!r} is no range: expected NAME=LOWEST:BELOW")
    return name, found


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise invalid_argument(f"--header {text!r} is no header: expected 'NAME: VALUE'")
    return name.strip(), value.strip()


def _template(arguments: argparse.Namespace, headers: tuple[tuple[str, str], ...]) -> Template | None:
    if arguments.wire != "http":
        if arguments.method or arguments.body:
            raise invalid_argument("--method and --body go with --wire http; other wires make their own requests")
        return None
    from servable.lab.target import parse_endpoint

    body = arguments.body
    if body.startswith("@"):
        try:
            body = Path(body[1:]).read_text()
        except OSError as error:
            raise not_found(f"cannot read {body[1:]}: {error.strerror}") from None
    method = arguments.method or ("POST" if body else "GET")
    return Template(method.upper(), parse_endpoint(arguments.url, "http").path, headers, body)


def _trace(path: Path) -> tuple[float, ...]:
    try:
        return parse_trace(path.read_text(), str(path))
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None


def _positive(option: str, value: Number) -> Number:
    if not value > 0:
        raise invalid_argument(f"{option} {value} is too small: expected more than 0")
    return value


def _at_least_0(option: str, value: int) -> int:
    if value < 0:
        raise invalid_argument(f"{option} {value} is too small: expected 1 or more, or 0 to leave it open")
    return value
