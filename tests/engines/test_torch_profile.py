"""PyTorch's events as spans: named as other engines name theirs, on our clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from servable.engines.torch_profile import spans_of


@dataclass(frozen=True)
class Event:
    """As kineto gives one: methods, and nanoseconds since 1970."""

    called: str
    at_ns: int
    took_ns: int

    def name(self) -> str:
        return self.called

    def start_thread_id(self) -> int:
        return 3

    def start_ns(self) -> int:
        return self.at_ns

    def duration_ns(self) -> int:
        return self.took_ns


def test_events_are_spans() -> None:
    events = [Event("aten::linear", 5_000_000_000, 2_000), Event("cudaLaunch", 6_000_000_000, 1)]
    first, second = spans_of(events, ahead=4.0)
    assert (first.thread, first.name, second.name) == ("torch 3", "aten.linear:linear", "cudaLaunch")
    assert (first.began, first.seconds) == pytest.approx((1.0, 2e-6))
