"""A server of known behaviour, made of other people's HTTP/2 and of plain sockets: ``python stub_server.py`` prints its
ports as JSON, and tells what it did when asked ``GET /truth``.

The behaviour is in the model's name (gRPC) or the path (HTTP): ``delay20`` answers after 20 ms, ``error10`` fails every
10th request, ``wrong10`` answers every 10th wrongly, ``status10`` answers every 10th with HTTP 200 and grpc-status 8,
``stall`` does nothing at all for 100 ms once a second; several are joined by ``-``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import numpy as np

from servable.core.messages import InferResponse, ModelRef
from servable.wire import tfserving_grpc

STALL_S = 0.1
PERIOD_S = 1.0
SCORES = np.array([[0.25, 0.75]], np.float32)
WRONG = np.array([[0.75, 0.25]], np.float32)
_WORD = re.compile(r"(delay|error|wrong|status)(\d+)")


class Behaviour:
    """What one name does, and what it has done."""

    def __init__(self, name: str) -> None:
        self.does = {kind: int(number) for kind, number in _WORD.findall(name)}
        self.stalls = "stall" in name
        self.count = 0
        self.errors = 0
        self.wrong = 0
        self.took_ms: list[float] = []

    def next(self) -> str:
        """Return what the next answer is: ok, error, wrong or status."""
        self.count += 1
        for kind in ("error", "wrong", "status"):
            every = self.does.get(kind)
            if every and self.count % every == 0:
                if kind == "wrong":
                    self.wrong += 1
                else:
                    self.errors += 1
                return kind
        return "ok"

    @property
    def delay_s(self) -> float:
        return self.does.get("delay", 0) / 1000


class Behaviours:
    def __init__(self) -> None:
        self.known: dict[str, Behaviour] = {}

    def of(self, name: str) -> Behaviour:
        if name not in self.known:
            self.known[name] = Behaviour(name)
            if self.known[name].stalls:
                asyncio.get_running_loop().call_later(PERIOD_S - STALL_S, self._stall)
        return self.known[name]

    def _stall(self) -> None:
        asyncio.get_running_loop().call_later(PERIOD_S, self._stall)
        time.sleep(STALL_S)  # as a collection of garbage or a lock would

    def truth(self) -> dict[str, Any]:
        return {
            name: {"count": one.count, "errors": one.errors, "wrong": one.wrong, "took_ms": one.took_ms}
            for name, one in self.known.items()
        }


def after(behaviour: Behaviour, begin: float, act: Any) -> None:
    """Act after the behaviour's delay, and note how long it took in truth since the request arrived at ``begin``."""

    def now() -> None:
        act()
        behaviour.took_ms.append((time.perf_counter() - begin) * 1000)

    if behaviour.delay_s:
        asyncio.get_running_loop().call_later(behaviour.delay_s, now)
    else:
        now()


def framed(scores: np.ndarray[Any, Any]) -> bytes:
    response = InferResponse(ModelRef("stub", 1), "serving_default", {"scores": scores})
    return tfserving_grpc.encode_predict_response(response, framed=True)


class GrpcStub(asyncio.Protocol):
    def __init__(self, behaviours: Behaviours) -> None:
        self.behaviours = behaviours
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.bodies: dict[int, bytearray] = {}
        self.arrived = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        self.arrived = time.perf_counter()
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ask(event.stream_id, bytes(self.bodies.pop(event.stream_id)))
        self.transport.write(self.h2.data_to_send())

    def ask(self, stream_id: int, body: bytes) -> None:
        request = tfserving_grpc.decode_predict_request(body, 5)
        behaviour = self.behaviours.of(request.model.name)
        after(behaviour, self.arrived, lambda: self.answer(stream_id, behaviour.next()))

    def answer(self, stream_id: int, kind: str) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if kind == "error":
            self.h2.send_headers(stream_id, [*head, ("grpc-status", "13"), ("grpc-message", "on purpose")], True)
        else:
            self.h2.send_headers(stream_id, head)
            self.h2.send_data(stream_id, framed(WRONG if kind == "wrong" else SCORES))
            trailers = [("grpc-status", "8" if kind == "status" else "0")]
            if kind == "ok":
                trailers.append(("server-timing", "queue;dur=0.5, compute;dur=1.5"))
            self.h2.send_headers(stream_id, trailers, True)
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())


class RestStub(asyncio.Protocol):
    def __init__(self, behaviours: Behaviours) -> None:
        self.behaviours = behaviours
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        arrived = time.perf_counter()
        self.data += data
        head, separator, body = self.data.partition(b"\r\n\r\n")
        if not separator:
            return
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if found is not None and len(body) < int(found[1]):
            return
        self.data = b""
        target = head.split(b" ")[1].decode()
        if target == "/truth":
            self.write("200 OK", json.dumps(self.behaviours.truth()).encode())
            return
        behaviour = self.behaviours.of(target)
        after(behaviour, arrived, lambda: self.answer(behaviour.next()))

    def answer(self, kind: str) -> None:
        if kind in {"error", "status"}:
            self.write("500 Internal Server Error", b'{"error": "on purpose"}')
        else:
            self.write("200 OK", json.dumps({"predictions": (WRONG if kind == "wrong" else SCORES).tolist()}).encode())

    def write(self, status: str, body: bytes) -> None:
        timing = "server-timing: queue;dur=0.5, compute;dur=1.5\r\n" if status.startswith("200") else ""
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{timing}content-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main() -> None:
    loop = asyncio.get_running_loop()
    behaviours = Behaviours()
    ports = {}
    for name, kind in (("grpc", GrpcStub), ("rest", RestStub)):
        server = await loop.create_server(lambda kind=kind: kind(behaviours), "127.0.0.1", 0)  # type: ignore[misc]
        ports[name] = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started us has gone


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
