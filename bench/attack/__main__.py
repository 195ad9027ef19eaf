"""What each flood, at full speed from one client, and each stall costs another client's calls and the server's memory.

    python -m bench.attack [--seconds N] [--only WORD]

An ordinary ``servable serve`` on one core. On the other, one client calls a small model over gRPC every millisecond,
and beside it, at lower priority so that it is the server that makes the first one wait, the hostile one works; it
connects again as soon as the server has ended its connection. Calm is measured before and after. A run of everything
writes docs/benchmarks/attack.md. Exit code 3 if a p99 is 10 times the calm one or more, or memory 64 MB above calm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.attack.floods import FLOODS, STALLS, flood
from bench.processes import LOADER_CORE, pinned, resident_mb, servable_server
from bench.questions import PREDICT, samples
from bench.run import REPORTS, conditions, steal_ticks
from servable.zoo import catalog

MOST_P99 = 10.0
MOST_MB = 64.0
_CALM = "(calm, before)"
_AFTER = "(calm, after)"
_NAMES = [*FLOODS, *STALLS]


@dataclass(frozen=True)
class Seen:
    """What the other client saw: latencies in ms, sorted; the server's resident memory in MB."""

    latencies: list[float]
    most_mb: float

    def at(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


@dataclass(frozen=True)
class Row:
    """One attack. ``wrong`` counts the other client's calls that failed or were answered wrongly."""

    attack: str
    calls: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    times_calm: float
    most_mb_above_calm: float
    mb_above_calm_after: float
    connections: str
    wrong: int


class Victim:
    """The other client."""

    def __init__(self, channel: grpc.Channel, pid: int) -> None:
        self._call = channel.unary_unary(PREDICT)
        self._body = samples("half_plus_two", (1,))[0].grpc_body("half_plus_two")
        self._expected = self._call(self._body, timeout=10)
        self._pid = pid
        self.wrong = 0

    def watch(self, seconds: float) -> Seen:
        """Call for so long; look at the server's memory now and then."""
        found: list[float] = []
        most = 0.0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                self.wrong += self._call(self._body, timeout=10) != self._expected
            except grpc.RpcError:
                self.wrong += 1
            found.append((time.perf_counter() - began) * 1e3)
            if len(found) % 50 == 1:
                most = max(most, resident_mb(self._pid))
            time.sleep(0.001)
        return Seen(sorted(found), max(most, resident_mb(self._pid)))


def rows(port: int, pid: int, seconds: float, names: list[str]) -> Iterator[Row]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        victim = Victim(channel, pid)
        victim.watch(1.0)
        calm = victim.watch(2 * seconds)
        calm_mb = resident_mb(pid)

        def row(name: str, seen: Seen, after_mb: float, connections: str) -> Row:
            wrong, victim.wrong = victim.wrong, 0
            p99 = seen.at(0.99)
            return Row(
                name, len(seen.latencies), seen.at(0.5), p99, seen.latencies[-1], p99 / calm.at(0.99),
                seen.most_mb - calm_mb, after_mb - calm_mb, connections, wrong,
            )  # fmt: skip

        yield row(_CALM, calm, calm_mb, "")
        for name in names:
            command = [sys.executable, "-m", "bench.attack", "--attack", name, "--port", str(port)]
            attacker = subprocess.Popen(
                pinned(LOADER_CORE, ["nice", "-n", "10", *command, "--seconds", str(seconds)]),
                stdout=subprocess.PIPE,
                text=True,
            )
            assert attacker.stdout is not None
            attacker.stdout.readline()  # it has begun
            seen = victim.watch(seconds)
            connections = attacker.communicate()[0].strip()
            victim.watch(0.5)
            yield row(name, seen, resident_mb(pid), connections)
        yield row(_AFTER, victim.watch(2 * seconds), resident_mb(pid), "")


def attack(name: str, port: int, seconds: float) -> None:
    print("begun", flush=True)
    print(STALLS[name](port, seconds) if name in STALLS else flood(name, port, seconds))


def page(found: list[Row], seconds: float, steal: int) -> str:
    columns = (
        "attack", "calls", "p50 ms", "p99 ms", "max ms", "p99 / calm", "most MB above calm", "MB above calm after",
        "its connections", "wrong",
    )  # fmt: skip
    lines = ["# Under attack", "", *(__doc__ or "").strip().splitlines(), ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for one in found:
        cells = (
            one.attack, str(one.calls), f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.max_ms:.1f}",
            f"{one.times_calm:.1f}", f"{one.most_mb_above_calm:.1f}", f"{one.mb_above_calm_after:.1f}",
            one.connections, str(one.wrong),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    made = f"Command: `python -m bench.attack --seconds {seconds:g}`. {conditions()}"
    lines += ["", f"{made} CPU time stolen during the run: {steal} ticks.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each attack lasts")
    parser.add_argument("--only", default="", help="only the attacks whose name contains this")
    parser.add_argument("--attack", choices=_NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        attack(options.attack, options.port, options.seconds)
        return 0
    names = [name for name in _NAMES if options.only in name]
    found: list[Row] = []
    steal = steal_ticks()
    with tempfile.TemporaryDirectory() as folder:
        catalog.build("half_plus_two", Path(folder), kind="onnx")
        with servable_server(folder) as (pid, port):
            for row in rows(port, pid, options.seconds, names):
                found.append(row)
                print(row, flush=True)
    report = page(found, options.seconds, steal_ticks() - steal)
    print(report)
    if names == _NAMES:
        (REPORTS / "attack.md").write_text(report)
    missed = [one for one in found if one.times_calm >= MOST_P99 or one.most_mb_above_calm >= MOST_MB or one.wrong]
    for one in missed:
        print(f"missed: {one}", file=sys.stderr)
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
