"""Measure this machine and write the reports: python -m bench.run [noop] [models] [cold_start] [--seconds S]

Everything is a ratio or stands beside a peer measured in the same run. See docs/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

REPORTS = Path(__file__).parent.parent / "docs" / "benchmarks"
SCENARIOS = {
    "noop": "The server itself: a one-layer model",
    "models": "Small text models, as a ratio to a raw TensorFlow session",
    "batching": "TensorFlow Serving's batching parameters against automatic batching",
    "cold_start": "Cold start",
}
PACKAGES = ("numpy", "onnxruntime", "tensorflow-cpu", "uvloop", "httptools", "orjson", "protobuf", "grpcio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=list(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.scenarios or SCENARIOS:
        scenario = importlib.import_module(f"bench.{name}")
        steal = steal_ticks()
        if name == "cold_start":
            rows = scenario.figures(max(5, arguments.repeats))
        else:
            rows = scenario.figures(arguments.seconds, arguments.repeats)
        page = report(name, rows, arguments, steal_ticks() - steal)
        (REPORTS / f"{name}.md").write_text(page)
        print(page)


def report(name: str, rows: Sequence[Any], arguments: argparse.Namespace, steal: int) -> str:
    scenario = importlib.import_module(f"bench.{name}")
    columns = [column.name for column in fields(rows[0])]
    lines = [f"# {SCENARIOS[name]}", "", (scenario.__doc__ or "").strip(), ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in asdict(row).values()) + " |" for row in rows]
    command = f'make bench BENCH="{name} --seconds {arguments.seconds:g} --repeats {arguments.repeats}"'
    made = f"Command: `{command}`. Median of the repeats. {conditions()} CPU time stolen during the run: {steal} ticks."
    lines += ["", made, ""]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def conditions() -> str:
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {versions}."
    )


def steal_ticks() -> int:
    return int(Path("/proc/stat").read_text().splitlines()[0].split()[8])


if __name__ == "__main__":
    main()
