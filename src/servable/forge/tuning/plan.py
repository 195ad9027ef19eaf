"""The plan that a tuning leads to, and where it is kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from servable.engines.fingerprint import outline
from servable.engines.plan_cache import plans_dir
from servable.engines.tuned_plan import SCHEMA, Figure, Plan, Range, machine_key
from servable.forge.tuning.choice import choose_members, ranges
from servable.forge.tuning.finals import decisive
from servable.forge.tuning.tuned import Result, Tuned
from servable.lab.statistics import Estimate


def plan_of(tuned: Tuned, now: datetime | None = None) -> Plan:
    """Return the plan: for each range of rows the trial to run, of those that were measured to the end."""
    able, objective, sizes = confirmed(tuned), tuned.options.objective, tuned.options.batches
    times = {number: decisive(one, able[0], sizes, objective) for number, one in able.items()}
    chosen = choose_members({number: found for number, found in times.items() if found}, 0, objective)
    plain = {number: {rows: able[number].seconds(rows, objective) for rows in sizes} for number in set(chosen.values())}
    parts = ranges(chosen, plain)
    used = sorted({able[number].trial.form for _, number in parts})
    default = tuned.results[0].trial.setting
    engines = {able[number].trial.setting.engine for _, number in parts} | {default.engine}
    return Plan(
        schema=SCHEMA,
        model=str(tuned.artifact.path),
        tuned=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        objective=str(tuned.options.objective),
        precisions=tuned.options.precisions,
        signatures=tuned.covered,
        key=machine_key(tuned.forms[0].fingerprint, outline(tuned.artifact), engines),
        forms=tuple(tuned.forms[form].record() for form in used),
        default=default,
        ranges=tuple(
            _range(rows, used, able[number], inside)
            for (rows, number), inside in zip(parts, _sizes_within([rows for rows, _ in parts], chosen), strict=True)
        ),
    )


def _sizes_within(ends: Sequence[int | None], sizes: Iterable[int]) -> list[list[int]]:
    """Return the measured sizes of batch that lie in each range."""
    found: list[list[int]] = [[] for _ in ends]
    for size in sorted(sizes):
        found[next(place for place, end in enumerate(ends) if end is None or size <= end)].append(size)
    return found


def _range(rows: int | None, used: Sequence[int], one: Result, sizes: Sequence[int]) -> Range:
    trial, verdict = one.trial, one.verdict
    return Range(
        rows,
        used.index(trial.form),
        trial.precision,
        trial.setting,
        tuple(_figure(one, size) for size in sizes),
        verdict.relative if verdict is not None else 0.0,
        str(verdict.tolerance) if verdict is not None else "",
    )


def confirmed(tuned: Tuned) -> dict[int, Result]:
    """Return those results, by their place, that a plan may rest on: what won twice, or the default alone."""
    found = {number: one for number, one in enumerate(tuned.results) if one.ok and one.confirmed}
    return {0: tuned.results[0], **found}


def finalists(tuned: Tuned) -> dict[int, Result]:
    """Return those results, by their place, that can be told from each other: of the finals, or the default alone."""
    found = {number: one for number, one in enumerate(tuned.results) if one.ok and one.gains}
    return {0: tuned.results[0], **found}


def plan_file(plan: Plan) -> Path:
    """Return where a plan is kept for ``auto``: one for each model, machine and libraries."""
    parts = [part for part in Path(plan.model).with_suffix("").parts if part not in {"/", "model"}]
    name = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts[-2:]) or "model"
    here = msgspec.json.encode([plan.key.cpu, plan.key.cpus, plan.key.quota], order="sorted")
    machine = hashlib.blake2b(here, digest_size=3).hexdigest()
    return plans_dir() / f"{name}-{plan.key.fingerprint.rpartition(':')[2][:12]}-{machine}.json"


def _figure(one: Result, rows: int) -> Figure:
    found = one.measured.at(rows)
    assert found is not None, "a trial without times is never chosen"
    gain = one.gains.get(rows, Estimate(1.0))
    estimate = found.estimate_s()
    seconds = found.median_s if estimate is None else estimate.value
    return Figure(rows, seconds, rows / seconds, gain.value, gain.low, gain.high)
