"""The client reads answers in parts, as they are made, and the server waits for a reader that is slow."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.server_process import ServerProcess, wait_until

import servable

COUNT = """
from collections.abc import Iterator
import numpy as np
from servable import Code, ServingError, Tensor

class Count:
    def predict(self, n: Tensor["int64", ()], size: Tensor["int64", ()] = 1) -> Iterator[Tensor["int64", "k"]]:
        made = 0
        try:
            while made != n:
                made += 1
                if made == 1000:
                    raise ServingError(Code.OUT_OF_RANGE, "a thousand")
                yield np.full(int(size), made)
        finally:
            print("closed after", made, flush=True)
"""


@pytest.fixture
def server(serve: Callable[..., ServerProcess], tmp_path: Path) -> ServerProcess:
    version = tmp_path / "count" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(COUNT)
    return serve(version.parent).ready()


def test_parts_come_as_they_are_made_and_a_reader_that_leaves_ends_them(server: ServerProcess) -> None:
    with servable.Client(server.grpc_url) as client:
        assert [part["output"].tolist() for part in client.predict_stream("count", n=3, size=2)] == [
            [1, 1],
            [2, 2],
            [3, 3],
        ]
        found: list[int] = []
        with pytest.raises(servable.ServingError) as caught:
            found.extend(part["output"][0] for part in client.predict_stream("count", n=-1))
        assert caught.value.code is servable.Code.OUT_OF_RANGE
        with pytest.raises(servable.ServingError, match="Servable not found"):
            list(client.predict_stream("nobody", n=np.int64(1)))
        left = client.predict_stream("count", n=-1)
        assert [part["output"].tolist() for part in itertools.islice(left, 2)] == [[1], [2]]
        left.close()
        wait_until(lambda: server.stderr.count("closed after") == 4, "its generator has ended")
        assert client.predict("count", n=2)["output"].tolist() == [1, 2]
    with servable.Client(server.rest_url) as client, pytest.raises(servable.ServingError, match="over gRPC"):
        list(client.predict_stream("count", n=1))


def test_a_reader_that_is_slow_holds_its_own_stream_back_and_loses_nothing(server: ServerProcess) -> None:
    async def test() -> None:
        async with servable.AsyncClient(server.grpc_url) as client:
            slow = client.predict_stream("count", n=-1, size=100_000)
            assert (await anext(slow))["output"][-1] == 1
            others = [part["output"][0] async for part in client.predict_stream("count", n=300)]
            assert others == list(range(1, 301))
            for expected in range(2, 21):
                part = (await anext(slow))["output"]
                assert (part[0], part[-1], len(part)) == (expected, expected, 100_000)
            await slow.aclose()

    asyncio.run(test())
    wait_until(lambda: server.stderr.count("closed after") == 3, "its generator has ended")
    made = int(server.stderr.rpartition("closed after ")[2].split('"')[0])
    assert made < 100, "what fits into the windows and buffers on the way, and no more"
