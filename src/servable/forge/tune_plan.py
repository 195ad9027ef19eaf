"""The plan that a tuning leads to, and where it is kept."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from servable.engines.fingerprint import outline
from servable.engines.plan_cache import plans_dir
from servable.engines.tuned_plan import SCHEMA, Figure, Form, Plan, Range, machine_key
from servable.forge.tune_choice import choose_members, proven, ranges
from servable.forge.tuned import Result, Tuned
from servable.lab.statistics import Estimate


def plan_of(tuned: Tuned, now: datetime | None = None) -> Plan:
    """Return the plan: for each range of rows the trial to run, of those that were measured to the end."""
    objective, sizes = tuned.options.objective, tuned.options.batches
    able = finalists(tuned)
    default_s = {rows: tuned.results[0].seconds(rows, objective) for rows in sizes}
    times = {
        number: {
            rows: proven(one.seconds(rows, objective), one.gains.get(rows) if number else None, default_s[rows])
            for rows in sizes
        }
        for number, one in able.items()
        if all(one.measured.at(rows) is not None for rows in sizes)
    }
    chosen = choose_members(times, 0, objective)
    found = ranges(chosen, times)
    used = sorted({able[number].trial.form for _, number in found})
    places = {form: place for place, form in enumerate(used)}
    parts = []
    for rows, number in found:
        one = able[number]
        mine = [size for size in sizes if chosen[size] == number]
        parts.append(
            Range(
                rows,
                places[one.trial.form],
                one.trial.precision,
                one.trial.setting,
                tuple(_figure(one, size) for size in mine),
                one.verdict.relative if one.verdict is not None else 0.0,
                str(one.verdict.tolerance) if one.verdict is not None else "",
            )
        )
    default = tuned.results[0].trial.setting
    engines = {part.setting.engine for part in parts} | {default.engine}
    forms: tuple[Form, ...] = tuple(tuned.forms[form].record() for form in used)
    return Plan(
        schema=SCHEMA,
        model=str(tuned.artifact.path),
        tuned=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        objective=str(objective),
        precisions=tuned.options.precisions,
        signatures=tuned.covered,
        key=machine_key(tuned.forms[0].fingerprint, outline(tuned.artifact), engines),
        forms=forms,
        default=default,
        ranges=tuple(parts),
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
