"""Every bound of a connection in one frozen object. Sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


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
    max_request_head: int = 32 * KIB
    max_request_target: int = 8 * KIB
    max_request_fields: int = 100
    body_budget: int = 512 * MIB
    max_outbound: int = 16 * MIB
    requests_per_turn: int = 200
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
