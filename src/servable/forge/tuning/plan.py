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
from servable.forge.tuning.choice import choose_members, proven, ranges
from servable.forge.tuning.tuned import Result, Tuned
from servable.lab.statistics import Estimate


def plan_of(tuned: Tuned, now: datetime | None = None) -> Plan:
    """Return the plan: for each range of rows the trial to run, of those that were measured to the end."""
    able = finalists(tuned)
    times = {number: found for number, one in able.items() if (found := _times(one, tuned, default=not number))}
    chosen = choose_members(times, 0, tuned.options.objective)
    parts = ranges(chosen, times)
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
            _range(rows, used, able[number], sizes)
            for (rows, number), sizes in zip(parts, _sizes_within([rows for rows, _ in parts], chosen), strict=True)
        ),
    )


def _sizes_within(ends: Sequence[int | None], sizes: Iterable[int]) -> list[list[int]]:
    """Return the measured sizes of batch that lie in each range."""
    found: list[list[int]] = [[] for _ in ends]
    for size in sorted(sizes):
        found[next(place for place, end in enumerate(ends) if end is None or size <= end)].append(size)
    return found


def _times(one: Result, tuned: Tuned, *, default: bool) -> dict[int, float]:
    """Return the times to decide by, by rows; nothing if a size of batch has none."""
    objective, sizes = tuned.options.objective, tuned.options.batches
    if any(one.measured.at(rows) is None for rows in sizes):
        return {}
    found = {rows: one.seconds(rows, objective) for rows in sizes}
    if default:
        return found
    return {
        rows: proven(seconds, one.gains.get(rows), tuned.results[0].seconds(rows, objective))
        for rows, seconds in found.items()
    }


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
