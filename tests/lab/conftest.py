from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servable.core.messages import ModelRef
from servable.lab.exchange import Sample
from servable.lab.result import Step
from servable.lab.session import ClientOptions, Load, Session
from servable.lab.target import parse_endpoint
from servable.lab.wires.tfserving import TfservingGrpc, TfservingRest

SCORES = np.array([[0.25, 0.75]], np.float32)


@dataclass(frozen=True)
class Stub:
    grpc: int
    rest: int

    def url(self, over: str, behaviour: str) -> str:
        return f"grpc://127.0.0.1:{self.grpc}/{behaviour}" if over == "grpc" else f"{self.base}/{behaviour}"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.rest}"

    def truth(self, behaviour: str, over: str = "grpc") -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base}/truth", timeout=10) as reply:
            found = json.load(reply)
        return dict(found[behaviour if over == "grpc" else f"/v1/models/{behaviour}:predict"])

    def session(self, over: str, behaviour: str, *, expect: bool = True, **options: Any) -> Session:
        endpoint = parse_endpoint(self.url(over, behaviour))
        model, authority = ModelRef(behaviour), endpoint.authority
        wire = TfservingGrpc(model, authority) if over == "grpc" else TfservingRest(model, authority)
        expected = {"scores" if over == "grpc" else "predictions": SCORES} if expect else None
        samples = [Sample({"x": np.arange(at, at + 4, dtype=np.float32).reshape(1, 4)}, expected) for at in range(4)]
        return Session(
            endpoint.address, wire, [wire.prepare(sample) for sample in samples], ClientOptions(**options)
        )  # fmt: skip

    def steps(self, over: str, behaviour: str, loads: Sequence[Load], **options: Any) -> list[Step]:
        async def run() -> list[Step]:
            async with self.session(over, behaviour, **options) as session:
                return [await session.step(load) for load in loads]

        return asyncio.run(run())


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with running_stub() as found:
        yield found


@pytest.fixture
def stalling_stub() -> Iterator[Stub]:
    """One for itself: a stall stops everybody."""
    with running_stub() as found:
        yield found


@contextlib.contextmanager
def running_stub() -> Iterator[Stub]:
    script = Path(__file__).with_name("stub_server.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Stub(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(10)
