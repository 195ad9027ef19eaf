"""One fuzzed connection from its first byte to its end, and what must hold after it."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, cast

from bench.fuzz.scripts import FrameScript, damaged, request
from bench.fuzz.world import Application, Loop, Transport
from servable.transport.exchange import Peer
from servable.transport.http1 import Http1Connection
from servable.transport.http1.reception import Reception
from servable.transport.http2 import frames
from servable.transport.http2.connection import ServerConnection
from servable.transport.ledger import Ledger
from servable.transport.limits import KIB, MIB, Limits

if TYPE_CHECKING:
    import asyncio

PEER = Peer("fuzz:1", local=True)
LIMITS = (
    Limits(process_body_budget=4 * MIB, body_budget=2 * MIB, max_ping_strikes=0),
    Limits(
        process_body_budget=MIB, max_body=100 * KIB, initial_window=20_000, connection_window=70_000,
        max_frame=16_384, max_concurrent_streams=8, requests_per_turn=3, frames_per_turn=7,
    ),
)  # fmt: skip
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_ALIVE = b"alive?!!"


class BrokenError(AssertionError):
    """Something that may never happen has happened."""


def check(*, holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(what)


def h2_session(random: Random, outcomes: Counter[str], longest: int) -> int:
    """Fuzz one HTTP/2 connection; return how many frames it took before it ended, or was left alone."""
    loop, application = Loop(), Application()
    limits = random.choice(LIMITS)
    ledger = Ledger(None, limits.process_body_budget)
    connection = ServerConnection(
        application, limits, PEER, cast("asyncio.AbstractEventLoop", loop), clock=loop.time, ledger=ledger
    )
    transport = Transport(loop, connection)
    connection.connection_made(cast("asyncio.Transport", transport))
    script = FrameScript(random, random.choice((0.0, 0.0, 0.01, 0.05, 0.5)))
    noisy = random.random() < 0.1
    connection.data_received(frames.PREFACE + frames.settings([]) + frames.SETTINGS_ACK)
    taken = 0
    while taken < longest and not (connection.closing or transport.closing):
        batch = [script.next() for _ in range(random.choice((1, 1, 3, 10, 40)))]
        taken += len(batch)
        data = b"".join(batch)
        if noisy and random.random() < 0.3:
            data = damaged(random, data)
        _deliver(random, connection, transport, loop, data)
        _time_and_answers(random, application, transport, loop)
    outcomes[_h2_outcome(connection, transport, loop, wild=script, noisy=noisy)] += 1
    transport.release()
    transport.lose()
    application.release()
    loop.advance(0)
    _nothing_is_left(connection, ledger, loop)
    return taken


def _deliver(random: Random, connection: ServerConnection, transport: Transport, loop: Loop, data: bytes) -> None:
    """Hand bytes over as a loop would: in pieces, and none while the connection does not read."""
    position = 0
    while position < len(data) and not transport.closing:
        size = len(data) if random.random() < 0.7 else random.randrange(1, 2000)
        if not transport.reading:
            loop.turn()
            if not transport.reading:  # it waits for its client to read, so the client does
                transport.release()
                loop.turn()
        connection.data_received(data[position : position + size])
        position += size
        if random.random() < 0.5:
            loop.turn()


def _time_and_answers(random: Random, application: Application, transport: Transport, loop: Loop) -> None:
    roll = random.random()
    if roll < 0.3:
        application.release(random)
    elif roll < 0.35:
        transport.stuck = True
    elif roll < 0.45:
        transport.release()
    loop.advance(random.choice((0, 0, 0.01, 0.1, 1.0)) if roll > 0.01 else 40.0)


def _h2_outcome(
    connection: ServerConnection, transport: Transport, loop: Loop, *, wild: FrameScript, noisy: bool
) -> str:
    """Name how the connection stands, after checking that it is one of the ways it may."""
    transport.release()
    loop.turn()
    if not (connection.closing or transport.closing or noisy or wild.is_wild or connection.blocks.stream_id):
        connection.data_received(frames.ping(_ALIVE))
        loop.advance(0.1)
        answered = frames.ping(_ALIVE, frames.ACK) in transport.written
        check(holds=answered or connection.closing, what="an open connection does not answer PING")
    last = _last_frame(bytes(transport.written))
    if connection.closing and transport.shut:
        said_goaway = last is not None and last[0] == frames.GOAWAY
        its_own_wish = connection._leaving  # noqa: SLF001  # the client's GOAWAY leaves no other trace
        check(holds=said_goaway or its_own_wish, what="the last word was not GOAWAY, nor the client's")
        code = int.from_bytes(last[1][4:8], "big") if last is not None and said_goaway else frames.NO_ERROR
        check(holds=code != frames.INTERNAL_ERROR, what="GOAWAY(INTERNAL_ERROR): a defect of ours")
        connection.data_received(b"what was on its way")
        loop.advance(connection.limits.linger_s + 1)
        check(holds=transport.closing, what="lingering did not end")
        return f"ended with GOAWAY {frames.code_name(code)}" if said_goaway else "closed after the client's GOAWAY"
    return "given up by the server" if transport.closing else "open, and in order"


def _last_frame(output: bytes) -> tuple[int, bytes] | None:
    """Return type and payload of the last frame; the output must end at the end of one."""
    position, last = 0, None
    while position < len(output):
        size = int.from_bytes(output[position : position + 3], "big")
        check(holds=position + 9 + size <= len(output), what="the output ends inside a frame")
        last = (output[position + 3], output[position + 9 : position + 9 + size])
        position += 9 + size
    return last


def _nothing_is_left(connection: ServerConnection, ledger: Ledger, loop: Loop) -> None:
    check(holds=not connection.streams, what="streams are left")
    check(holds=connection.active == 0, what="work slots are left")
    check(holds=not connection.work.waiting, what="requests still wait")
    check(holds=ledger.buffered == connection.receiver.buffered == 0, what="bytes of bodies are still counted")
    check(holds=connection.sender.queued == 0, what="bytes of replies are still queued")
    check(holds=not connection.sender.parked and not connection.sender.ready, what="streams still wait to send")
    check(holds=loop.armed == 0, what="a timer is left")


def h1_session(random: Random, outcomes: Counter[str]) -> int:
    """Send a few requests, most of them damaged, on one HTTP/1.1 connection; return how many."""
    loop, application = Loop(), Application()
    limits = random.choice(LIMITS)
    ledger = Ledger(None, limits.process_body_budget)
    reception = Reception(application, limits, b"http", ledger)
    connection = Http1Connection(
        application, limits, PEER, cast("asyncio.AbstractEventLoop", loop), reception=reception, clock=loop.time
    )
    transport = Transport(loop, connection)
    connection.connection_made(cast("asyncio.Transport", transport))
    count = random.choice((1, 1, 2, 5))
    requests = [request(random) for _ in range(count)]
    data = b"".join(damaged(random, one) if random.random() < 0.8 else one for one in requests)
    position = 0
    while position < len(data) and not transport.closing:
        size = len(data) if random.random() < 0.5 else random.randrange(1, 3000)
        if transport.reading:
            connection.data_received(data[position : position + size])
            position += size
        loop.turn()
        if not transport.reading or random.random() < 0.2:
            _time_and_answers(random, application, transport, loop)
            transport.release()
            application.release()
            loop.turn()
    _end_h1(random, connection, transport, application, loop)
    found = [int(status) for status in _STATUS.findall(bytes(transport.written))]
    check(holds=500 not in found, what="500: a defect of ours")
    check(holds=not transport.written or transport.written.startswith(b"HTTP/1.1 "), what="that is no reply")
    outcomes["answered " + " ".join(map(str, sorted(set(found)))) if found else "no reply"] += 1
    check(holds=ledger.buffered == 0, what="bytes of bodies are still counted")
    check(holds=connection.active == 0, what="a request is still active")
    check(holds=loop.armed == 0, what="a timer is left")
    return count


def _end_h1(
    random: Random, connection: Http1Connection, transport: Transport, application: Application, loop: Loop
) -> None:
    """Half-close, wait or vanish; in the end the connection must be gone by itself."""
    transport.release()
    application.release()
    loop.turn()
    how = random.random()
    if how < 0.6 and not transport.closing:
        if not connection.eof_received():
            transport.close()
    elif how < 0.8:
        transport.lose()
    for _ in range(8):
        loop.advance(100)
        application.release()
        transport.release()
    check(holds=transport.lost, what="the connection does not end")
