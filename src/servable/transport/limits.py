"""Every bound of a connection in one frozen object. Sizes in bytes, times in seconds."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
_LEAST_PROCESS_BUDGET = 512 * MIB


@dataclass(frozen=True, slots=True)
class Rate:
    """A burst, and how much of it comes back in a second."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one HTTP/2 client may do what is legal and costs more than it gains. Beyond: ENHANCE_YOUR_CALM."""

    resets_received: Rate = Rate(1000, 200)
    """Requests given up before their reply was sent."""
    resets_caused: Rate = Rate(100, 10)
    """Streams that this side had to reset because of the client."""
    settings: Rate = Rate(100, 10)
    pings: Rate = Rate(1000, 50)
    empty_data: Rate = Rate(100, 10)
    empty_data_run: int = 10
    """Empty DATA frames in a row."""
    tiny_data: Rate = Rate(10_000, 1000)
    """DATA below 64 bytes that does not end a unary request."""
    glitches: Rate = Rate(10_000, 330)
    """Unknown frames, DATA for closed streams, unasked acknowledgements."""
    header_bytes: Rate = Rate(4 * MIB, 4 * MIB)
    """Bytes of header blocks that had to be decoded, beyond 256 of each."""
    dribbles: Rate = Rate(1000, 100)
    """Pieces below 256 bytes in which a client's window made a reply leave."""
    requests: Rate | None = None
    """Requests of one connection; ``None``: no limit."""
    strays_per_stream: float = 100
    """PRIORITY frames, and resets of streams that are over, for every stream opened."""
    updates_free: float = 100
    updates_per_stream: float = 2
    updates_per_data: float = 10
    """WINDOW_UPDATEs: ``free + per_stream * (streams + per_data * DATA frames sent)`` over a connection's life."""


def _quarter_of_memory() -> int:
    """Return a quarter of the memory that this process may use, at least 512 MiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return max(memory // 4, _LEAST_PROCESS_BUDGET)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask of the server. The reasons for the defaults are in docs/reference/limits.md."""

    max_body: int = 256 * MIB
    max_concurrent_streams: int = 256
    initial_window: int = 1 * MIB
    connection_window: int = 16 * MIB
    max_frame: int = 1 * MIB
    max_header_block: int = 32 * KIB
    max_header_list: int = 16 * KIB
    max_header_list_hard: int = 64 * KIB
    max_header_fields: int = 256
    max_continuations: int = 10
    max_empty_continuations: int = 2
    max_request_head: int = 32 * KIB
    max_request_target: int = 8 * KIB
    max_request_fields: int = 100
    body_budget: int = 512 * MIB
    process_body_budget: int = field(default_factory=_quarter_of_memory)
    rates: Rates = Rates()
    max_outbound: int = 16 * MIB
    requests_per_turn: int = 32
    frames_per_turn: int = 250
    handshake_timeout_s: float = 10.0
    preface_timeout_s: float = 10.0
    head_timeout_s: float = 10.0
    body_progress_timeout_s: float = 30.0
    send_stall_timeout_s: float = 60.0
    idle_timeout_s: float = 300.0
    keep_alive_timeout_s: float = 75.0
    linger_s: float = 2.0
    linger_bytes: int = 1 * MIB
    drain_ping_timeout_s: float = 5.0
    keepalive_interval_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    min_ping_interval_s: float = 5.0
    min_ping_interval_idle_s: float = 5.0
    max_ping_strikes: int = 2
    max_connection_age_s: float = float("inf")
    max_connection_age_grace_s: float = float("inf")
