"""From what client processes recorded to the numbers of a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from servable.lab.histogram import Histogram
from servable.lab.recorder import SLICES_PER_SECOND, Recording, Slice, Sparse
from servable.lab.result import ClientCost, ErrorKind, Latency, Part, Second, Split, Step

_BUSY = 0.9
_LATE_MS = 1.0
_LATE_SHARE = 0.1
_HIDDEN = 1.2
_STEADY_SECONDS = 4
_RATE_DRIFT = 0.1
_MEDIAN_DRIFT = 0.15


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step was asked to be."""

    label: str
    batch: int
    request_bytes: float
    offered_rate_per_s: float | None = None
    concurrency: int | None = None
    burst: bool = False


def build_step(asked: Asked, recordings: Sequence[Recording]) -> Step:
    """Merge the recordings of all client processes."""
    begin = min(one.begin_ns for one in recordings)
    end = max(one.end_ns for one in recordings)
    duration_s = max(end - begin, 1) / 1e9
    ok = sum(one.ok for one in recordings)
    latency = merged(one.query if asked.burst else one.latency for one in recordings)
    sends = merged(one.send for one in recordings)
    corrected = None
    interval_ms = 0.0
    if asked.concurrency is not None and not asked.burst:
        interval_ms = latency.usual()
        corrected = latency.corrected(round(interval_ms * 1e6)).summary()
    summary = latency.summary()
    client = _client_cost(asked, recordings, duration_s, sends, summary)
    unfinished = [age for one in recordings for age in one.unfinished]
    return Step(
        label=asked.label,
        ok=ok,
        errors=sum(one.errors for one in recordings),
        wrong=sum(one.wrong for one in recordings),
        offered_rate_per_s=asked.offered_rate_per_s,
        concurrency=asked.concurrency,
        batch=asked.batch,
        request_bytes=asked.request_bytes,
        reply_bytes=sum(one.reply_bytes for one in recordings) / max(ok, 1),
        duration_s=duration_s,
        warmup_s=max(one.first_slice for one in recordings) / SLICES_PER_SECOND,
        throughput_per_s=ok / duration_s,
        rows_per_s=sum(one.rows for one in recordings) / duration_s,
        verified=sum(one.verified for one in recordings),
        unfinished=len(unfinished),
        error_kinds=_kinds(recordings),
        latency=summary,
        corrected=corrected,
        split=Split(
            send=_part(sends),
            wait=_part(merged(one.wait for one in recordings)),
            decode=_part(merged(one.decode for one in recordings)),
            queue=_part(merged(one.queue for one in recordings)),
            compute=_part(merged(one.compute for one in recordings)),
        ),
        seconds=seconds(recordings),
        client=client,
        steady=is_steady(recordings),
        notes=_notes(asked, summary, corrected, interval_ms, unfinished),
    )


def merged(parts: Iterable[Sparse | None]) -> Histogram:
    """Return one histogram of several."""
    found = Histogram()
    for part in parts:
        if part is not None:
            part.add_to(found)
    return found


def seconds(recordings: Sequence[Recording]) -> tuple[Second, ...]:
    """Return the measured window second by second, all processes together."""
    measured = [one.slices[one.first_slice :] for one in recordings]
    longest = max((len(slices) for slices in measured), default=0)
    found = []
    for at in range(0, longest, SLICES_PER_SECOND):
        parts = [part for slices in measured for part in slices[at : at + SLICES_PER_SECOND]]
        histogram = merged(part.latency for part in parts)
        p50, p99 = histogram.percentiles((50, 99))
        known = histogram.count > 0
        found.append(
            Second(
                at_s=at / SLICES_PER_SECOND,
                ok=sum(part.ok for part in parts),
                errors=sum(part.errors for part in parts),
                wrong=sum(part.wrong for part in parts),
                p50_ms=p50 if known else None,
                p99_ms=p99 if known else None,
            )
        )
    return tuple(found)


def settled(slices: Sequence[Sequence[Slice]]) -> bool:
    """Return whether a warm-up may end: over the last second of slices rate and median have stopped to move."""
    if any(len(of_one) < SLICES_PER_SECOND for of_one in slices):
        return False
    last = [of_one[-SLICES_PER_SECOND:] for of_one in slices]
    half = SLICES_PER_SECOND // 2
    before = [part for of_one in last for part in of_one[:half]]
    after = [part for of_one in last for part in of_one[half:]]
    return _alike(before, after)


def is_steady(recordings: Sequence[Recording]) -> bool | None:
    """Return whether the two halves of the window tell the same story; ``None`` if it was too short to tell."""
    measured = [one.slices[one.first_slice :] for one in recordings]
    shortest = min(len(slices) for slices in measured)
    if shortest < _STEADY_SECONDS * SLICES_PER_SECOND:
        return None
    half = shortest // 2
    before = [part for slices in measured for part in slices[:half]]
    after = [part for slices in measured for part in slices[shortest - half : shortest]]
    return _alike(before, after)


def _alike(before: Sequence[Slice], after: Sequence[Slice]) -> bool:
    counts = [sum(part.ok for part in parts) for parts in (before, after)]
    if not all(counts):
        return False
    # Chance alone moves a count by its root.
    allowed = max(_RATE_DRIFT * max(counts), 3 * math.sqrt(max(counts)))
    if abs(counts[0] - counts[1]) > allowed:
        return False
    medians = [merged(part.latency for part in parts).percentile(50) for parts in (before, after)]
    return abs(medians[0] - medians[1]) <= max(_MEDIAN_DRIFT, 2 / math.sqrt(min(counts))) * max(medians)


def _kinds(recordings: Sequence[Recording]) -> tuple[ErrorKind, ...]:
    counts: dict[tuple[str, str], int] = {}
    for one in recordings:
        for key, count in one.kinds.items():
            counts[key] = counts.get(key, 0) + count
    return tuple(
        ErrorKind(code, message, count)
        for (code, message), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _part(histogram: Histogram) -> Part | None:
    if not histogram.count:
        return None
    p50, p99 = histogram.percentiles((50, 99))
    return Part(histogram.mean(), p50, p99)


def _client_cost(
    asked: Asked, recordings: Sequence[Recording], duration_s: float, sends: Histogram, latency: Latency
) -> ClientCost:
    shares = [one.cpu_ns / max(one.end_ns - one.begin_ns, 1) for one in recordings]
    ended = sum(one.ok + one.errors + one.wrong for one in recordings)
    busiest = max(shares)
    late = sends.percentile(99) if asked.offered_rate_per_s is not None and sends.count else None
    reason = ""
    if late is not None:
        if late > max(_LATE_MS, _LATE_SHARE * latency.p99_ms):
            reason = (
                f"1 of 100 requests began {late:.3g} ms late or later: the client could not follow its schedule, "
                "or had as many requests in flight as it may; more client processes or connections may help"
            )
    elif busiest >= _BUSY:
        reason = f"a client process used {busiest:.0%} of a core: the server could do more; use more client processes"
    return ClientCost(
        cpu_share=busiest,
        cpu_us_per_request=sum(one.cpu_ns for one in recordings) / 1e3 / max(ended, 1),
        late_p99_ms=late,
        bottleneck=bool(reason),
        reason=reason,
    )


def _notes(
    asked: Asked, latency: Latency, corrected: Latency | None, interval_ms: float, unfinished: Sequence[int]
) -> tuple[str, ...]:
    found = []
    if corrected is not None and corrected.p99_ms > _HIDDEN * latency.p99_ms:
        found.append(
            f"A closed loop asks nothing while it waits, which hides stalls: p99 {latency.p99_ms:.3g} ms here would be "
            f"{corrected.p99_ms:.3g} ms for clients that ask every {interval_ms:.3g} ms. Measure with --rate."
        )
    waiting = [age for age in unfinished if age > latency.max_ms * 1e6]
    if asked.offered_rate_per_s is not None and waiting:
        found.append(
            f"{len(waiting)} requests had waited longer than any that was answered, up to {max(waiting) / 1e9:.3g} s: "
            "the server did not keep up, and these latencies are a lower bound."
        )
    return tuple(found)
