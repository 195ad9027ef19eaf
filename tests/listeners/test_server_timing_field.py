from __future__ import annotations

from servable.core.messages import InferResponse, ModelRef
from servable.lab.exchange import Told
from servable.lab.server_timing import parse
from servable.listeners.server_timing import is_asked, is_asked_in, timing_field


def test_queue_and_compute_are_told_apart_in_milliseconds() -> None:
    name, value = timing_field(InferResponse(ModelRef("m", 1), "s", {}, 0.000_021, 1.5))
    assert (name, value) == (b"server-timing", b"queue;dur=0.021, compute;dur=1500.000")
    assert parse(value) == Told(21_000, 1_500_000_000)


def test_who_asks() -> None:
    assert [is_asked(value) for value in (b"1", b" true ", b"0", b"False", b"")] == [True, True, False, False, False]
    assert is_asked_in((("a", "b"), ("servable-timing", "1")))
    assert not is_asked_in((("servable-timing", "0"), ("servable-timing-bin", b"1")))
