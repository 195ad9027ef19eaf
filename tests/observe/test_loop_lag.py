"""How late the loop is: measured on a real loop that is really blocked, with a clock that says how long."""

from __future__ import annotations

import asyncio

import pytest

from servable.observe.instruments import Distribution
from servable.observe.loop_lag import INTERVAL_S, LAG_BUCKETS_S, LoopLag


class Clock:
    """Time that jumps when told to."""

    def __init__(self) -> None:
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.jumped_s


@pytest.mark.parametrize(("blocked_s", "lines"), [(0.0, 0), (0.9, 0), (1.2, 1)])
def test_what_holds_the_loop_is_seen(blocked_s: float, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    lags = Distribution(LAG_BUCKETS_S)

    async def watch() -> None:
        clock = Clock()
        lag = LoopLag(asyncio.get_running_loop(), lags, clock)
        lag.start()
        clock.jumped_s = blocked_s
        while not sum(lags.counts):
            await asyncio.sleep(0)
        lag.stop()

    asyncio.run(watch())
    assert sum(lags.counts) == 1
    assert lags.total >= blocked_s
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines


def test_nothing_is_left_after_the_end() -> None:
    lags = Distribution(LAG_BUCKETS_S)

    async def watch() -> None:
        lag = LoopLag(asyncio.get_running_loop(), lags)
        lag.start()
        lag.stop()
        lag.stop()
        await asyncio.sleep(INTERVAL_S * 1.5)

    asyncio.run(watch())
    assert sum(lags.counts) == 0
