"""Fuzz the server's connections: python -m bench.fuzz [--frames N] [--requests N] [--connections N] [--seed S]

Frames and requests go straight into live connection objects, whose clock is the fuzzer's, and then, fewer of them,
over sockets into an ordinary ``servable serve``. The first thing that may not be ends it with exit code 1 and the seed
that does it again: an exception that would have reached the event loop, a stream, slot, timer or byte that stays
counted, GOAWAY(INTERNAL_ERROR) or 500, an output that is cut, an open connection that does not answer, an object or
memory that is not given back. The defaults write docs/benchmarks/fuzz.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.fuzz.live import Found, against_a_server
from bench.fuzz.sessions import BrokenError, check, h1_session, h2_session
from bench.run import REPORTS, conditions
from servable.transport.http1 import Http1Connection
from servable.transport.http2.connection import ServerConnection
from servable.transport.http2.streams import ServerStream

FRAMES, REQUESTS, CONNECTIONS = 1_000_000, 100_000, 2_000
_LONGEST = (20, 150, 1000, 5000)
_MAX_GROWTH_MB = 8.0
_MAX_LIVE_GROWTH_MB = 16.0


@dataclass(frozen=True)
class Part:
    """One kind of input and what came of it."""

    what: str
    count: int
    connections: int
    seconds: float
    outcomes: Counter[str]
    before_mb: float
    after_mb: float


class Silence(logging.Handler):
    """Nothing of the transport's may log an error: that would be a defect of ours that was caught."""

    def emit(self, record: logging.LogRecord) -> None:
        raise BrokenError(f"logged: {record.getMessage()}") from (record.exc_info or (None, None))[1]


def fuzz(what: str, least: int, seed: str, session: Callable[[Random, Counter[str]], int]) -> Part:
    """Run sessions until they have taken ``least`` of what they count; memory is compared from the first tenth on."""
    outcomes: Counter[str] = Counter()
    count = connections = 0
    before = 0.0
    began = time.perf_counter()
    while count < least:
        connections += 1
        own_seed = f"{seed}:{what}:{connections}"
        try:
            count += session(Random(own_seed), outcomes)
        except Exception as error:
            raise BrokenError(f"{what}, seed {own_seed!r}: {error!r}") from error
        if not before and count >= least // 10:
            before = _settled_mb()
    seconds = time.perf_counter() - began
    after = _settled_mb()
    kept = [one for one in gc.get_objects() if isinstance(one, ServerConnection | Http1Connection | ServerStream)]
    check(holds=not kept, what=f"{len(kept)} connections and streams are still in memory")
    check(holds=after - before < _MAX_GROWTH_MB, what=f"{what}: memory grew from {before:.1f} to {after:.1f} MB")
    return Part(what, count, connections, seconds, outcomes, before, after)


def _settled_mb() -> float:
    """Return the resident memory in MB once what is free has gone back: pieces that the allocator keeps are no leak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def report(parts: list[Part], live: Found, seed: str, command: str) -> str:
    lines = ["# Fuzzing", "", (__doc__ or "").partition("\n\n")[2].strip(), ""]
    lines += ["| input | count | connections | s | MB after a tenth | MB at the end |", "|" + " --- |" * 6]
    lines += [
        f"| {part.what} | {part.count:,} | {part.connections:,} | {part.seconds:.1f} "
        f"| {part.before_mb:.1f} | {part.after_mb:.1f} |"
        for part in parts
    ]
    sent = f"{live.frames:,} + {live.requests:,}"
    lines += [f"| both, over sockets | {sent} | {live.connections:,} | | {live.before_mb:.1f} | {live.after_mb:.1f} |"]
    lines += ["", "No exception, no error in a log, no object left, no byte or slot still counted."]
    for part in parts:
        lines += ["", f"How the connections ended, {part.what}:", "", "| outcome | connections |", "| --- | --- |"]
        lines += [f"| {outcome} | {count:,} |" for outcome, count in part.outcomes.most_common(24)]
        rest = sum(count for _, count in part.outcomes.most_common()[24:])
        lines += [f"| others | {rest:,} |"] if rest else []
    lines += [
        "",
        (
            f"Over sockets: meanwhile another client's {live.right_answers} calls were answered rightly, and the event "
            f"loop was never more than {live.longest_lag_s} s late. Events that the server counted:"
        ),
        "",
        ", ".join(f"{event} {count:,}" for event, count in live.events.most_common()) + ".",
        "",
        f"Command: `{command}`, seed {seed}. {conditions()}",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="over real sockets")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    silence = Silence(logging.ERROR)
    logging.getLogger("servable").addHandler(silence)
    try:
        parts = [
            fuzz("HTTP/2 frames", options.frames, options.seed, _frames),
            fuzz("HTTP/1.1 requests", options.requests, options.seed, h1_session),
        ]
        live = against_a_server(options.seed, options.connections)
        growth = live.after_mb - live.before_mb
        check(holds=growth < _MAX_LIVE_GROWTH_MB, what=f"the server's memory grew by {growth:.1f} MB")
    except BrokenError as broken:
        print(f"broken: {broken}", file=sys.stderr)
        if broken.__cause__ is not None:
            raise
        return 1
    finally:
        logging.getLogger("servable").removeHandler(silence)
    page = report(parts, live, options.seed, "make fuzz")
    if (options.frames, options.requests, options.connections) == (FRAMES, REQUESTS, CONNECTIONS):
        (REPORTS / "fuzz.md").write_text(page)
    print(page)
    return 0


def _frames(random: Random, outcomes: Counter[str]) -> int:
    return h2_session(random, outcomes, random.choice(_LONGEST))


if __name__ == "__main__":
    sys.exit(main())
