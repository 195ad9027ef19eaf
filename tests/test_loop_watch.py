"""The rule that no event loop may be blocked: it finds what blocks, in this process and in a server's."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests import loop_watch

pytest_plugins = ["pytester"]

BLOCKS = """
import asyncio, time

def test_that_blocks():
    async def block():
        await asyncio.sleep(0)
        time.sleep(1.2)
    asyncio.run(block())

def test_that_does_not():
    async def work():
        for _ in range(3):
            time.sleep(0.4)
            await asyncio.sleep(0)
    asyncio.run(work())
"""


def test_a_test_that_blocks_its_loop_fails(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    pytester.makeconftest(
        conftest.replace("Path(__file__).parent.parent", f"Path({str(Path(__file__).parent.parent)!r})")
    )
    pytester.makepyfile(BLOCKS)
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*an event loop may never be blocked for more than a second*"])


def test_time_between_two_runs_does_not_count() -> None:
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        time.sleep(1.2)
        runner.run(asyncio.sleep(0))
    assert loop_watch.found == []
