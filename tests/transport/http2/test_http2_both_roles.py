"""Our client against our server, through pipes that cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.transport.http2.application import pattern
from tests.transport.http2.caller import Caller
from tests.transport.http2.doubles import FakeTransport
from tests.transport.http2.harness import (
    REPLY,
    Session,
)

from servable.transport.errors import TransportError
from servable.transport.exchange import RequestHead
from servable.transport.limits import MIB, Limits
from servable.transport.reply import Reply


class Pair:
    """A client and a server whose bytes travel in pieces that the test chooses."""

    def __init__(self, client: Limits, server: Limits, sizes: list[int]) -> None:
        self.session = Session(server)
        self.caller = Caller(client)
        self.sizes = sizes
        self.turns = 0

    def _pass_on(self, source: FakeTransport, target: Any) -> bool:
        data = source.take()
        position = 0
        while position < len(data):
            size = self.sizes[self.turns % len(self.sizes)]
            self.turns += 1
            target.data_received(data[position : position + size])
            self.session.loop.turn()
            self.caller.loop.turn()
            position += size
        return bool(data)

    def run(self) -> None:
        busy = True
        while busy:
            self.caller.loop.turn()
            self.session.loop.turn()
            busy = self._pass_on(self.caller.transport, self.session.connection)
            busy = self._pass_on(self.session.transport, self.caller.connection) or busy


limits = st.builds(
    Limits,
    initial_window=st.sampled_from([1, 50, 1000, 65535, MIB]),
    connection_window=st.sampled_from([65535, MIB]),
    max_frame=st.sampled_from([16384, MIB]),
    max_concurrent_streams=st.sampled_from([1, 3, 256]),
)
requests = st.lists(
    st.tuples(
        st.sampled_from([b"/echo", b"/plain", b"/measured", b"/early", b"/big/30000", b"/empty", b"/raises"]),
        st.sampled_from([0, 1, 5, 99, 1000, 20_000]),
    ),
    min_size=1,
    max_size=6,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(limits, limits, requests, st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_both_roles_understand_each_other(
    client: Limits, server: Limits, wanted: list[tuple[bytes, int]], sizes: list[int]
) -> None:
    window = min(client.initial_window, server.initial_window)
    if window <= 50:  # replies in more than 1000 crumbs would be taken for an attack
        wanted = [(path, min(size, 99 * window)) for path, size in wanted if path != b"/big/30000"]
    pair = Pair(client, server, sizes)
    pair.run()
    results: dict[int, Reply | TransportError] = {}
    for number, (path, size) in enumerate(wanted):
        body = b"\0" + size.to_bytes(4, "big") + pattern(size)
        head = RequestHead(b"POST", path, authority=b"a")
        pair.caller.connection.request(head, body, lambda outcome, number=number: results.update({number: outcome}))  # type: ignore[misc]
    pair.run()
    for number, (path, size) in enumerate(wanted):
        outcome = results[number]
        if path == b"/raises":
            assert isinstance(outcome, TransportError)
            continue
        assert isinstance(outcome, Reply), f"{path!r}: {outcome}"
        body = b"\0" + size.to_bytes(4, "big") + pattern(size)
        expected = {b"/early": b"", b"/empty": b"", b"/big/30000": pattern(30000)}.get(path, body)
        assert outcome.body == expected
    pair.session.assert_clean()
    pair.caller.assert_clean()
    pair.session.connection.drain()
    pair.run()
    assert not pair.caller.connection.ready


@pytest.mark.parametrize("size", [16 * MIB])
def test_a_large_body_both_ways(size: int) -> None:
    pair = Pair(Limits(), Limits(), [256 * 1024])
    pair.caller.call(pattern(size), RequestHead(b"POST", b"/echo"))
    pair.run()
    assert pair.caller.reply().body == pattern(size)
    pair.session.assert_clean()
    pair.caller.assert_clean()


def test_work_that_ends_later() -> None:
    pair = Pair(Limits(), Limits(), [1000])
    for _ in range(5):
        pair.caller.call(head=RequestHead(b"POST", b"/hold"))
    pair.run()
    assert pair.session.connection.active == 5
    for exchange in pair.session.application.held:
        exchange.respond(*REPLY)
    pair.run()
    assert [type(outcome) for outcome in pair.caller.outcomes] == [Reply] * 5
    pair.session.assert_clean()
