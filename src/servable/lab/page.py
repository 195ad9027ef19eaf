"""A measurement as a report: what to see first, what to doubt, and under what conditions it was made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from servable.lab.page_plots import best, latency_section, load_section, parts_section, time_section
from servable.lab.result import Machine, Result, Scenario, Step
from servable.report.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Figure,
    Figures,
    Notice,
    Report,
    Section,
    Table,
    Tone,
    Toned,
)
from servable.report.units import BYTES, PER_SECOND, SECONDS, SHARE, Unit, number, quantity

STEAL_SHARE = 0.02
"""From here on, what a hypervisor took is worth a warning."""


def report_of(result: Result) -> Report:
    """Return the report of one result."""
    tone, verdict = judge(result)
    what = result.target.model or result.target.url
    made = f", {result.started}" if result.started else ""
    sections = [
        Section("Steps", (steps_table(result),), _steps_note(result)),
        *load_section(result),
        *latency_section(result),
        *time_section(result),
        *parts_section(result),
        *_errors(result),
        _conditions(result),
    ]
    return Report(
        title=f"{what} over {result.target.wire}",
        subtitle=f"{result.target.url}{made}",
        verdict=verdict,
        tone=tone,
        lead=(_headline(result), *doubts(result)),
        sections=sections,
        footer=f"Made by servable {result.versions.get('servable', '')}".rstrip() + f" from a {result.schema} file.",
    )


def judge(result: Result) -> tuple[Tone, str]:
    """Say in a sentence whether the answers were right; speed comes after that."""
    total = result.ok + result.errors + result.wrong
    verified = sum(step.verified for step in result.steps)
    if not total:
        return Tone.BAD, "Nothing was answered"
    if result.wrong or result.errors:
        failed = [f"{count:,} {name}" for count, name in ((result.errors, "failed"), (result.wrong, "wrong")) if count]
        share = quantity((result.errors + result.wrong) / total, SHARE)
        return Tone.BAD, f"{' and '.join(failed)} of {total:,} requests ({share})"
    if any(step.client.bottleneck for step in result.steps):
        return Tone.WARNING, f"All {total:,} requests succeeded, but the client was the bottleneck"
    if not verified:
        return Tone.WARNING, f"All {total:,} requests succeeded; no answer was compared with what was expected"
    return Tone.GOOD, f"All {total:,} requests succeeded; {verified:,} answers were compared, all right"


def _headline(result: Result) -> Figures:
    items = []
    if result.search is not None:
        search = result.search
        held = "none" if search.rate_per_s is None else quantity(search.rate_per_s, PER_SECOND)
        tone = Tone.BAD if search.rate_per_s is None else Tone.GOOD
        note = f"{search.trials} trials, {search.confidence:.3g} confidence"
        items.append(Figure(f"Highest rate with {search.objective}", held, note, tone))
    if result.steps:
        step = best(result.steps)
        failing = not step.ok or step.errors or step.wrong
        tone, where = (Tone.BAD, f"{step.label}, with failures") if failing else (Tone.PLAIN, step.label)
        items.append(Figure("Right answers", quantity(step.throughput_per_s, PER_SECOND), where, tone))
        items.append(Figure("Median", _ms(step.latency.p50_ms, step), where, tone))
        items.append(Figure("99th percentile", _ms(step.latency.p99_ms, step), where, tone))
    failed = result.errors + result.wrong
    note = f"{result.errors:,} errors, {result.wrong:,} wrong answers"
    items.append(Figure("Failures", number(failed), note, Tone.BAD if failed else Tone.GOOD))
    verified = sum(step.verified for step in result.steps)
    against = f"with {_expected(result.scenario)}" if result.scenario.expect else "only checked for success"
    items.append(Figure("Answers compared", number(verified), against, Tone.PLAIN if verified else Tone.WARNING))
    return Figures(items)


def _ms(value: float, step: Step) -> str:
    return quantity(value / 1e3 if step.latency.count else None, SECONDS)


def doubts(result: Result) -> Iterator[Notice]:
    """Yield what speaks against the numbers, the worst first; what is said of several steps is said once."""
    said: dict[tuple[Tone, str], list[str]] = {}
    for step in result.steps:
        for tone, text in _doubts_of(step):
            said.setdefault((tone, text), []).append(step.label)
    for wanted in (Tone.BAD, Tone.WARNING, Tone.PLAIN):
        for (tone, text), labels in said.items():
            if tone is wanted:
                where = "all loads" if len(labels) == len(result.steps) > 3 else ", ".join(labels)
                yield Notice(f"{where}: {text}", tone)
        if wanted is Tone.WARNING and result.interrupted:
            yield Notice("The run was stopped by hand: its last step is shorter than asked.")
    for note in result.notes:
        yield Notice(note, Tone.PLAIN)


def _doubts_of(step: Step) -> Iterator[tuple[Tone, str]]:
    if step.wrong:
        yield Tone.BAD, f"{step.wrong:,} answers were wrong. A server that answers wrongly has no speed."
    if step.errors:
        share = quantity(step.errors / (step.ok + step.errors + step.wrong), SHARE)
        kinds = "; ".join(f"{kind.count:,} {kind.code}" for kind in step.error_kinds[:3])
        yield Tone.BAD, f"{share} of the requests failed ({kinds or 'no reason told'})."
    if step.client.bottleneck:
        why = step.client.reason or f"it used {quantity(step.client.cpu_share, SHARE)} of a core"
        yield Tone.WARNING, f"the client was the bottleneck, not the server: {why}."
    if step.cpu_steal_share is not None and step.cpu_steal_share > STEAL_SHARE:
        share = quantity(step.cpu_steal_share, SHARE)
        yield Tone.WARNING, f"the hypervisor took {share} of the CPU time from this machine."
    if step.steady is False:
        yield Tone.WARNING, "rate or median still moved during the measurement."
    if step.unfinished:
        yield Tone.WARNING, f"{step.unfinished:,} requests had no answer when it ended, and count nowhere."
    for note in step.notes:
        yield Tone.PLAIN, note


def _steps_note(result: Result) -> str:
    begins = "began" if result.scenario.arrivals == "closed" else "should have begun"
    return f"Times are of right answers only, counted from when a request {begins}. A dash: too few to tell."


def steps_table(result: Result) -> Table:
    """Return the numbers of all steps; columns without any are left out."""
    wanted: list[tuple[str, Unit | None, list[Cell]]] = [
        ("load", None, [step.label for step in result.steps]),
        ("offered", PER_SECOND, [step.offered_rate_per_s for step in result.steps]),
        ("right answers", PER_SECOND, [step.throughput_per_s for step in result.steps]),
        ("rows", PER_SECOND, [step.rows_per_s if step.batch > 1 else None for step in result.steps]),
        ("p50", SECONDS, [_percentile(step, step.latency.p50_ms, 0.5) for step in result.steps]),
        ("p90", SECONDS, [_percentile(step, step.latency.p90_ms, 0.9) for step in result.steps]),
        ("p99", SECONDS, [_percentile(step, step.latency.p99_ms, 0.99) for step in result.steps]),
        ("p99.9", SECONDS, [_percentile(step, step.latency.p999_ms, 0.999) for step in result.steps]),
        ("max", SECONDS, [_percentile(step, step.latency.max_ms, 0) for step in result.steps]),
        ("ok", None, [step.ok for step in result.steps]),
        ("errors", None, [_count(step.errors) for step in result.steps]),
        ("wrong", None, [_count(step.wrong) for step in result.steps]),
        ("compared", None, [step.verified for step in result.steps]),
        ("server CPU", SHARE, [step.server.cpu_share if step.server else None for step in result.steps]),
        ("client CPU", SHARE, [_client(step) for step in result.steps]),
        ("steal", SHARE, [_steal(step) for step in result.steps]),
        ("objective", None, [_held(step) for step in result.steps]),
    ]
    kept = [item for item in wanted if any(cell not in (None, "") for cell in item[2])]
    columns = [Column(name, unit) if unit is not None else Column(name) for name, unit, _ in kept]
    return Table(columns, list(zip(*(cells for _, _, cells in kept), strict=True)))


def _percentile(step: Step, value_ms: float, share: float) -> float | None:
    # A percentile that less than one answer lies above is the maximum under a better name.
    return value_ms / 1e3 if step.latency.count * (1 - share) >= 1 else None


def _count(count: int) -> Cell:
    return Toned(count, Tone.BAD) if count else 0


def _client(step: Step) -> Cell:
    share = step.client.cpu_share
    return Toned(share, Tone.WARNING) if step.client.bottleneck else share


def _steal(step: Step) -> Cell:
    share = step.cpu_steal_share
    return Toned(share, Tone.WARNING) if share is not None and share > STEAL_SHARE else share


def _held(step: Step) -> Cell:
    if step.slo_held is None:
        return ""
    return Toned("held", Tone.GOOD) if step.slo_held else Toned("missed", Tone.BAD)


def _errors(result: Result) -> Iterator[Section]:
    rows = [(step.label, kind.code, kind.count, kind.message) for step in result.steps for kind in step.error_kinds]
    if rows:
        columns = (Column("load"), Column("code"), Column("count"), Column("first message"))
        yield Section("Errors", (Table(columns, rows),), "Failures are counted, never timed.")


def _conditions(result: Result) -> Section:
    scenario, target = result.scenario, result.target
    bound = f"{scenario.count:,} requests" if scenario.count is not None else ""
    bound = f"{scenario.duration_s:g} s" if scenario.duration_s is not None else bound
    version = f", version {target.version}" if target.version is not None else ""
    steal = [step.cpu_steal_share for step in result.steps if step.cpu_steal_share is not None]
    pairs = [
        ("Server", target.url),
        ("Model", f"{target.model}{version}" + (f", signature {target.signature}" if target.signature else "")),
        ("Wire", target.wire),
        ("Scenario", f"{scenario.name}, {_loop(scenario.arrivals)}"),
        ("Each step", bound + (f" after {scenario.warmup_s:g} s of warm-up" if scenario.warmup_s else "")),
        (
            "Client",
            _client_words(scenario),
        ),
        ("Data", f"{scenario.data or 'not told'}, {scenario.samples:,} different requests"),
        ("Answers", f"compared with {_expected(scenario)}" if scenario.expect else "checked for success only"),
        *machine_facts(result.machine),
        ("CPU steal", quantity(max(steal), SHARE) + " at most in a step" if steal else "not known"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))),
        ("Begun", result.started),
    ]
    blocks: list[Block] = [Facts([(name, value) for name, value in pairs if value.strip(", ")])]
    if result.command:
        blocks.append(Facts([("Command", shlex.join(result.command))], code=True))
    return Section("Conditions", blocks)


def _expected(scenario: Scenario) -> str:
    return "the first answer to each request" if scenario.expect == "first" else scenario.expect


def machine_facts(machine: Machine) -> list[tuple[str, str]]:
    """Return what is known of a machine."""
    quota = f", {machine.cpu_quota:g} cores allowed" if machine.cpu_quota else ""
    memory = quantity(machine.memory_bytes, BYTES) if machine.memory_bytes else ""
    return [
        ("Machine", f"{machine.cpu or 'unknown CPU'}, {machine.cores} cores{quota}"),
        ("Memory", memory),
        ("System", machine.system),
    ]


def _client_words(scenario: Scenario) -> str:
    processes, connections = _many(scenario.processes, "process"), _many(scenario.connections, "connection")
    return f"{processes}, {connections}, seed {scenario.seed}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")


def _loop(arrivals: str) -> str:
    if arrivals == "closed":
        return "closed loop (each client waits for its answer)"
    return f"open loop, {arrivals} arrivals (requests begin on schedule, whatever the server does)"
