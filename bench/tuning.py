"""What servable tune finds for the example models, beside the engine that would run them without a plan.

Each model is tuned as a user would: the default engine is the reference, every candidate is compared with its
answers, and the finalists run in turn beside it, forwards and backwards, each in a process of its own and called as
the server calls it; what wins does so once more in fresh processes, and those figures are shown. ``gain`` is how many
times as fast the plan is as the default at a size of batch, with its 95 % confidence interval: what may lose more
than a twentieth at a size by its lower end does not run that size; ``difference`` is the largest, over the largest
value of the reference. ``others`` is the share of the processors that other processes used when a tuning began: near
0 on a quiet machine. Inputs are the examples' own samples.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.run import REPORTS, conditions, steal_ticks
from servable.core.signatures import Signature
from servable.engines.plan import find_artifact
from servable.engines.tuned_plan import Plan
from servable.forge.samples import Samples
from servable.forge.tuning.choice import parse_objective
from servable.forge.tuning.plan import plan_of
from servable.forge.tuning.tune import tune
from servable.forge.tuning.tuned import Tuned, TuneOptions
from servable.zoo import catalog

ROWS = 64
BF16 = ("f32", "bf16")


@dataclass(frozen=True)
class Case:
    """One model in one form, and what is allowed."""

    model: str
    kind: str
    batches: tuple[int, ...] = (1, 8, 32)
    precisions: tuple[str, ...] = ("f32",)

    def __str__(self) -> str:
        return f"{self.model}, {self.kind}" + (f", {self.precisions[-1]} allowed" if len(self.precisions) > 1 else "")


CASES = (
    Case("lstm_tokens", "saved_model"),
    Case("text_cnn_small", "saved_model"),
    Case("resnet50_fitted", "onnx", (1, 8), BF16),
    Case("text_cnn", "saved_model", (1, 8)),
)


def tuned(case: Case, folder: Path, budget_s: float, objective: str) -> Tuned:
    built = folder / case.kind / case.model / "1"
    if not built.exists():
        catalog.build(case.model, folder / case.kind, kind=case.kind)
    artifact = find_artifact(built)

    def read(_signature: Signature) -> Samples:
        rows = 16 if case.model.startswith("resnet") else ROWS
        return Samples(catalog.sample_inputs(case.model, rows, 3, kind=case.kind), "the example's samples")

    options = TuneOptions(parse_objective(objective), case.precisions, case.batches, budget_s)
    return tune(artifact, options, read, lambda line: print(f"  {line}", flush=True))


def row(case: Case, found: Tuned, plan: Plan) -> str:
    low, runs = 1, []
    gains = []
    for part in plan.ranges:
        reach = f"from {low}" if part.rows is None else f"{low} to {part.rows}"
        made = plan.forms[part.form].made
        runs.append(f"{reach}: {part.describe()}" + (f" ({made})" if made else ""))
        gains += [
            f"**{one.gain:.2f}** [{one.low or one.gain:.2f}, {one.high or one.gain:.2f}] at {one.rows}"
            for one in part.figures
        ]
        low = (part.rows or 0) + 1
    default = ", ".join(
        f"{1000 * times.median_s:.3g} at {times.rows}" for times in found.results[0].measured.batches if times.seconds
    )
    difference = max(part.difference for part in plan.ranges)
    others = "" if found.occupied is None else f"{found.occupied:.0%}"
    cells = (case, plan.default.engine, default, "; ".join(runs), "; ".join(gains), f"{difference:.1g}", others)
    return "| " + " | ".join(map(str, cells)) + " |"


def refused(case: Case, found: Tuned) -> list[str]:
    return [f"- {case}: {one.trial}: {one.reason}" for one in found.results if one.reason.startswith("it answers")]


def page(rows: Sequence[str], refusals: Sequence[str], options: argparse.Namespace, steal: int) -> str:
    summary, method = (__doc__ or "").strip().split("\n\n")
    lines = ["# Tuning", "", summary, "", method, ""]
    lines += ["| model | default | its ms a batch | plan | gain | difference | others |", "|" + " --- |" * 7, *rows, ""]
    if refusals:
        lines += ["Refused, since they answer differently:", "", *refusals, ""]
    command = f"python -m bench.tuning --budget {options.budget:g} --objective {options.objective}"
    lines += [f"Command: `{command}`. {conditions()} CPU time stolen during the run: {steal} ticks.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of measuring for each model")
    parser.add_argument("--objective", default="throughput")
    parser.add_argument(
        "--models", type=Path, help="folder of examples, by format, that are built already or built there"
    )
    parser.add_argument("--only", default="", help="only cases whose name contains this; writes no report")
    options = parser.parse_args()
    rows: list[str] = []
    refusals: list[str] = []
    steal = steal_ticks()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if options.only not in str(case):
                continue
            print(case, flush=True)
            found = tuned(case, options.models or Path(folder), options.budget, options.objective)
            rows.append(row(case, found, plan_of(found)))
            refusals += refused(case, found)
            text = page(rows, refusals, options, steal_ticks() - steal)
            if not options.only:
                (REPORTS / "tuning.md").write_text(text)
            print(text, flush=True)


if __name__ == "__main__":
    main()
