"""Ours against every peer that runs here, on four models: python -m bench.comparison, which writes docs/benchmarks.

Rounds go forwards and backwards in turn; gRPC and REST; 1 and 32 requests of one row in flight; every answer compared
with what numpy computes. About 25 minutes on two cores. Peers first: ``servable bench peers install``.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from servable.lab.compare import Plan, compare
from servable.lab.comparison import Comparison, Conditions
from servable.lab.comparison_page import comparison_report
from servable.lab.contestants import parse_contestant
from servable.lab.peers import PEERS
from servable.lab.subject import example_subject
from servable.report.blocks import Block, Report, Section
from servable.report.markdown import write_markdown
from servable.report.plots import BarPlot

REPORTS = Path(__file__).parent.parent / "docs" / "benchmarks"
MODELS = ("noop", "text_cnn_small", "lstm_tokens", "resnet50")
SLOW = {"resnet50": 3}
"""Rounds of models whose answers take so long that all of them would take half of an hour."""
TITLE = "Servable against other servers"
PREFACE = (
    "Everybody serves the same ONNX file with ONNX Runtime and as many threads, except tfserver, which wraps the same "
    "weights as a SavedModel. Requests have one row, and come from one client process on a core of its own. Peers with "
    "dynamic batching have it on. Memory is the sum of the most that each process of a server ever held."
)


def main() -> None:
    """Measure, then write the report and the numbers behind it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], default=[], metavar="MODEL", help="default: all")
    parser.add_argument("--contestants", nargs="+", default=["servable", *PEERS], metavar="CONTESTANT")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a block")
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=REPORTS / "comparison.md")
    arguments = parser.parse_args()
    found = list(comparisons(arguments))
    arguments.out.write_text(write_markdown(page(found)))
    for comparison in found:
        arguments.out.with_name(f"{arguments.out.stem}-{comparison.model}.json").write_bytes(
            msgspec.json.encode(comparison)
        )
    print(f"written: {arguments.out}")


def comparisons(arguments: argparse.Namespace) -> Iterator[Comparison]:
    """One model after the other; Ctrl-C ends with those that were measured."""
    cores = sorted(os.sched_getaffinity(0))
    server, client = (tuple(cores[:-1]), tuple(cores[-1:])) if len(cores) > 1 else ((), ())
    command = ("python", "-m", "bench.comparison", *sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="servable-") as folder:
        for model in arguments.models or MODELS:
            subject = example_subject(model, Path(folder))
            conditions = Conditions(
                rounds=min(arguments.rounds, SLOW.get(model, arguments.rounds)),
                block_s=arguments.seconds,
                warmup_s=arguments.warmup,
                threads=len(server) or 1,
                batch_rows=32,
                batch_wait_ms=1.0,
                server_cores=server,
                client_cores=client,
                samples=len(subject.samples),
            )
            contestants = [parse_contestant(text) for text in arguments.contestants]
            plan = Plan(contestants, subject, conditions, command=command)
            found = asyncio.run(compare(plan, functools.partial(say, model)))
            yield found
            if found.interrupted:
                return


def say(model: str, line: str) -> None:
    print(f"{model}: {line}", flush=True)


def page(found: Sequence[Comparison]) -> Report:
    """All comparisons as one report: each model's tables, and the conditions once, at the end."""
    sections: list[Section] = []
    for comparison in found:
        report = comparison_report(comparison)
        *groups, conditions = report.sections
        # The conditions stand once, below; what differs from model to model stands here.
        verdict = f"{report.subtitle}. {report.verdict}."
        for place, group in enumerate(groups):
            lead: tuple[Block, ...] = tuple(report.lead) if place == 0 else ()
            # The curves and bars of these numbers are on the pages that `servable bench table` makes.
            blocks = [block for block in group.blocks if not isinstance(block, BarPlot)]
            note = f"{verdict} {group.note}" if place == 0 else group.note
            sections.append(Section(f"{comparison.model}: {group.title}", (*lead, *blocks), note))
        if comparison is found[-1]:
            sections.append(conditions)
    return Report(TITLE, PREFACE, sections=sections)


if __name__ == "__main__":
    main()
