"""What is to be measured: everything that ``servable bench URL`` can be asked for, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from servable.core.errors import invalid_argument
from servable.lab.objective import Objective
from servable.lab.session import ClientOptions, Load
from servable.lab.synthesis import Wanted
from servable.lab.wires.http import Template
from servable.transport.tls import ClientTlsOptions

SCENARIOS = ("load", "single-stream", "multi-stream", "server", "offline")
_OFFLINE_IN_FLIGHT = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement. Each of ``variants`` (batch sizes, payloads) meets each of ``loads``.

    Without loads the highest rate that holds ``objective`` is searched; without an objective too, what a closed loop
    gets is measured, and then an open loop at half of that rate.
    """

    url: str
    wire: str = ""
    version: int | None = None
    signature: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    tls: ClientTlsOptions = field(default_factory=ClientTlsOptions)
    template: Template | None = None
    data: Path | None = None
    expect: str = ""
    variants: tuple[Wanted, ...] = (Wanted(),)
    loads: tuple[Load, ...] = ()
    objective: Objective | None = None
    scenario: str = "load"
    trial: Load | None = None
    """Duration and warm-up of the trials of a search; its rate does not matter."""
    poisson: bool = True
    """Arrivals of a search."""
    client: ClientOptions = field(default_factory=ClientOptions)
    server_pid: int | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out."""
        if not self.variants:
            raise invalid_argument("a measurement needs a variant of its requests")
        if self.searches and len(self.variants) > 1:
            raise invalid_argument("the search for a rate takes one batch size and payload, not a sweep")

    @property
    def searches(self) -> bool:
        """Return whether the highest rate is searched."""
        return not self.loads and self.objective is not None


def scenario_loads(
    name: str, duration_s: float, count: int | None, warmup_s: float | None, width: int
) -> tuple[Load, ...]:
    """Return the loads of a scenario in the manner of MLPerf's; ``width`` is the samples of a multi-stream query."""
    if name == "single-stream":
        return (Load(concurrency=1, duration_s=duration_s, count=count, warmup_s=warmup_s),)
    if name == "multi-stream":
        return (Load(concurrency=width, burst=True, duration_s=duration_s, count=count, warmup_s=warmup_s),)
    if name == "offline":
        most = _OFFLINE_IN_FLIGHT if count is None else min(count, _OFFLINE_IN_FLIGHT)
        return (Load(concurrency=most, duration_s=duration_s, count=count, warmup_s=warmup_s),)
    raise invalid_argument(f"{name!r} is no scenario with a load of its own: there are {', '.join(SCENARIOS)}")


SCENARIO_NOTES = {
    "single-stream": "single-stream: one request at a time; its figure is the latency of 90 of 100.",
    "multi-stream": "multi-stream: a query is several requests at once and ends with its last; latencies are queries'.",
    "server": "server: Poisson arrivals; its figure is the highest rate that holds the objective.",
    "offline": "offline: all requests may be answered at once; its figure is the throughput, latencies mean nothing.",
}
"""In the manner of MLPerf Inference; no official result, which would need its load generator and rules."""
