"""What completeness costs: the no-op figures at the commit that closed the first transport and now, in one run.

    python -m bench.cost [--seconds N] [--repeats N] [--then REVISION] [--now REVISION]

Both servers run from their own sources, on the same core and under the same load, in turns. Then each runs once more
under a sampler that says which of its modules is at work: the difference is what each part of the server took since.
Writes docs/benchmarks/completeness.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.loads import h2load, wrk
from bench.noop import MODEL, REST_PATH, ROWS, Row, measure
from bench.processes import free_port, running, wait_until_ok
from bench.questions import PREDICT, Sample, samples
from bench.run import REPORTS, conditions, steal_ticks
from bench.sampler import LOOP
from servable.zoo import catalog

ROOT = Path(__file__).parent.parent
FIRST = "7de29ca"
"""The last commit of the transport's first version: before prices of frames, age and keep-alive, TLS, replies and
requests in parts."""
TARGET_US = {"h2load 32x1": 35.0, "wrk 32": 40.0}
OTHERS = "(all others)"
_LEAST_US = 0.15
"""A module below that is among the others."""


@dataclass(frozen=True)
class Contestant:
    """A revision of the server, by its sources."""

    name: str
    sources: Path


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The sources of a revision, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder, "then"))
        subprocess.run(
            ["git", "worktree", "add", "--detach", place, revision], cwd=ROOT, check=True, capture_output=True
        )
        try:
            yield Path(place, "src")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", place], cwd=ROOT, check=True)


@contextlib.contextmanager
def serving(contestant: Contestant, model: str, counts: Path | None = None) -> Iterator[tuple[int, int]]:
    """``servable serve`` of that revision; with ``counts`` under the sampler, which writes them at the end."""
    port = free_port()
    module = ["servable"] if counts is None else ["bench.sampler", str(counts)]
    command = [sys.executable, "-m", *module, "serve", model, "--listen", f"127.0.0.1:{port}", "--log_level", "warning"]
    with running(command, environment={"PYTHONPATH": f"{contestant.sources}:{ROOT}"}) as process:
        wait_until_ok(f"http://127.0.0.1:{port}/readyz", process)
        if counts is not None:
            process.send_signal(signal.SIGUSR1)
        yield process.pid, port


Load = Callable[..., Row]


def loads(seconds: float, found: list[Sample]) -> dict[str, Load]:
    """The two loads of the no-op report: each takes a contestant's start and its name."""
    framed = [sample.framed(MODEL) for sample in found]
    bodies = [sample.rest_body() for sample in found]

    def grpc(name: str, start: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]]) -> Row:
        run = lambda port: h2load(port, PREDICT, framed, connections=32, seconds=seconds)  # noqa: E731  # short
        return measure(name, "h2load 32x1", start, "grpc", run, found, 1)

    def rest(name: str, start: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]]) -> Row:
        run = lambda port: wrk(port, REST_PATH, bodies, connections=32, seconds=seconds)  # noqa: E731  # short
        return measure(name, "wrk 32", start, "rest", run, found, 1)

    return {"h2load 32x1": grpc, "wrk 32": rest}


def compare(
    contestants: list[Contestant], model: str, seconds: float, repeats: int
) -> dict[tuple[str, str], list[Row]]:
    """Run both under both loads, in turns; return the rows by load and contestant."""
    found = samples(MODEL, ROWS)
    rows: dict[tuple[str, str], list[Row]] = {}
    for number in range(repeats):
        for load, run in loads(seconds, found).items():
            for contestant in contestants if number % 2 == 0 else contestants[::-1]:
                row = run(contestant.name, lambda one=contestant: serving(one, model))
                rows.setdefault((load, contestant.name), []).append(row)
                print(row, flush=True)
    return rows


def profile(contestants: list[Contestant], model: str, seconds: float) -> dict[tuple[str, str], dict[str, float]]:
    """Return, by load and contestant, the share of samples of each module."""
    found = samples(MODEL, ROWS)
    shares: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for load, run in loads(seconds, found).items():
            for contestant in contestants:
                file = Path(folder, f"{len(shares)}.json")
                run(contestant.name, lambda one=contestant, out=file: serving(one, model, out))
                counts = json.loads(file.read_text())
                total = sum(counts.values())
                shares[load, contestant.name] = {module: count / total for module, count in counts.items()}
    return shares


def middle(rows: list[Row], column: str) -> float:
    return float(statistics.median(getattr(row, column) for row in rows))


def part_of(module: str) -> str:
    """Return the ring of a module; of the transport, the protocol as well."""
    names = module.split("/")
    if module == LOOP or len(names) == 1:
        return module
    return "/".join(names[:2] if names[0] == "transport" and len(names) > 2 else names[:1])


Costs = dict[str, tuple[float, float]]
"""µs a request, then and now."""


def grouped(costs: Costs, name_of: Callable[[str], str]) -> Costs:
    found: Costs = {}
    for module, (was, has) in costs.items():
        sums = found.get(name_of(module), (0.0, 0.0))
        found[name_of(module)] = (sums[0] + was, sums[1] + has)
    return found


def table(what: str, costs: Costs) -> list[str]:
    """Return the rows, what grew most first."""
    lines = [f"| {what} | then | now | more |", "| --- | --- | --- | --- |"]
    for name, (was, has) in sorted(costs.items(), key=lambda item: item[1][0] - item[1][1]):
        shown = name if name in (LOOP, OTHERS) else f"`{name}`"
        lines.append(f"| {shown} | {was:.2f} | {has:.2f} | {has - was:+.2f} |")
    return lines


def page(
    contestants: list[Contestant],
    rows: dict[tuple[str, str], list[Row]],
    shares: dict[tuple[str, str], dict[str, float]],
    made: str,
) -> str:
    then, now = (contestant.name for contestant in contestants)
    lines = ["# What completeness costs", "", *(__doc__ or "").strip().splitlines(), ""]
    lines += ["| load | server | requests/s | CPU µs a request | p50 µs | p99 µs | failed | wrong |"]
    lines += ["|" + " --- |" * 8]
    for (load, name), found in rows.items():
        lines.append(
            f"| {load} | {name} | {middle(found, 'rate'):,.0f} | {middle(found, 'cpu_us'):.1f} "
            f"| {middle(found, 'p50_us'):,.0f} | {middle(found, 'p99_us'):,.0f} "
            f"| {sum(row.failed for row in found)} | {sum(row.wrong for row in found)} |"
        )
    for load, target in TARGET_US.items():
        before, after = middle(rows[load, then], "cpu_us"), middle(rows[load, now], "cpu_us")
        verdict = "within" if after <= target else "above"
        lines += ["", f"## {load}", ""]
        lines += [
            f"{before:.1f} µs then, {after:.1f} µs now, {verdict} the {target:g} µs allowed. Where they went:",
            "",
        ]
        old, new = shares[load, then], shares[load, now]
        costs = {module: (old.get(module, 0) * before, new.get(module, 0) * after) for module in {*old, *new}}
        lines += table("part", grouped(costs, part_of))
        names = {module: module if max(cost) >= _LEAST_US else OTHERS for module, cost in costs.items()}
        lines += ["", "By module, because what moved from one to another cost nothing:", ""]
        lines += table("module", grouped(costs, names.__getitem__))
    lines += ["", made, ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--then", default=FIRST, help="the revision to compare with")
    parser.add_argument("--now", default="", help="the revision to judge; without it the sources as they are")
    options = parser.parse_args()
    steal = steal_ticks()
    with ExitStack() as stack:
        then = stack.enter_context(checked_out(options.then))
        now = stack.enter_context(checked_out(options.now)) if options.now else ROOT / "src"
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        catalog.build(MODEL, Path(folder), kind="onnx")
        contestants = [Contestant(f"then ({options.then})", then), Contestant("now", now)]
        model = str(Path(folder, MODEL))
        rows = compare(contestants, model, options.seconds, options.repeats)
        shares = profile(contestants, model, options.seconds)
    made = (
        f"Command: `python -m bench.cost --seconds {options.seconds:g} --repeats {options.repeats}`. Medians. "
        f"{conditions()} CPU time stolen during the run: {steal_ticks() - steal} ticks."
    )
    report = page(contestants, rows, shares, made)
    (REPORTS / "completeness.md").write_text(report)
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
