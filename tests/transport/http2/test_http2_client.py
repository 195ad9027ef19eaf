"""The client's side against a scripted server, byte for byte."""

from __future__ import annotations

import pytest
from tests.transport.http2.caller import HEAD, Caller
from tests.transport.http2.harness import (
    CANCEL,
    COMPRESSION,
    DATA,
    EH,
    ENHANCE,
    ES,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    INTERNAL,
    NO_ERROR,
    PING,
    PROTOCOL,
    PUSH,
    REFUSED,
    RST,
    SETTINGS,
    WU,
    Frame,
    d,
    h,
    ping,
    raw,
    rst,
    settings,
    wu,
)

from servable.transport.errors import Failure, TransportError
from servable.transport.http2.hpack import encode_block
from servable.transport.limits import MIB, Limits
from servable.transport.reply import Reply

OK_HEAD = encode_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
OK_TRAILERS = encode_block([(b"grpc-status", b"0")])
INITIAL_WINDOW = 4


def test_a_call_is_one_write_and_its_reply_one_callback() -> None:
    caller = Caller()
    caller.call(b"body")
    assert caller.outcomes == []
    frames = caller.sent()
    assert [(frame.kind, frame.flags, frame.stream) for frame in frames] == [
        (SETTINGS, 0, 0),
        (WU, 0, 0),
        (HEADERS, EH, 1),
        (DATA, ES, 1),
    ]
    assert frames[0].payload[:6] == bytes.fromhex("0002 00000000")
    caller.start()
    caller.feed(h(1, EH, OK_HEAD) + d(1, b"reply") + h(1, EH | ES, OK_TRAILERS))
    reply = caller.reply()
    assert (reply.status, reply.body, reply.trailers) == (200, b"reply", ((b"grpc-status", b"0"),))
    assert reply.get(b"content-type") == b"application/grpc"
    caller.assert_clean()


def test_blocks_seen_before_are_not_mixed_up() -> None:
    caller = Caller()
    caller.start()
    for _ in range(3):
        stream = caller.call().stream_id
        caller.feed(h(stream, EH, OK_HEAD) + d(stream, b"x") + h(stream, EH | ES, OK_TRAILERS))
    bad = caller.call().stream_id
    frames = caller.feed(h(bad, EH, OK_HEAD) + h(bad, EH | ES, OK_HEAD))
    assert frames[-1] == Frame(RST, 0, bad, PROTOCOL.to_bytes(4, "big"))
    assert [type(outcome) for outcome in caller.outcomes] == [Reply, Reply, Reply, TransportError]
    caller.assert_clean()


@pytest.mark.parametrize(
    ("frames", "status", "body"),
    [
        (h(1, EH | ES, OK_HEAD), 200, b""),
        (h(1, EH, OK_HEAD) + d(1, b"a") + d(1, b"b", ES), 200, b"ab"),
        (h(1, EH, encode_block([(b":status", b"103")])) + h(1, EH | ES, OK_HEAD), 200, b""),
        (h(1, EH, encode_block([(b":status", b"404"), (b"content-length", b"2")])) + d(1, b"no", ES), 404, b"no"),
        (h(1, 0, OK_HEAD[:5]) + raw(9, EH, 1, OK_HEAD[5:]) + d(1, b"", ES), 200, b""),
    ],
    ids=["head only", "plain", "informational", "length", "continued"],
)
def test_replies(frames: bytes, status: int, body: bytes) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(frames)
    assert (caller.reply().status, caller.reply().body) == (status, body)
    caller.assert_clean()


@pytest.mark.parametrize(
    "frames",
    [
        h(1, EH | ES, encode_block([(b"a", b"b")])),
        h(1, EH | ES, encode_block([(b":status", b"099")])),
        h(1, EH | ES, encode_block([(b":status", b"101")])),
        h(1, EH | ES, encode_block([(b":status", b"100")])),
        h(1, EH | ES, encode_block([(b":status", b"200"), (b"Upper", b"x")])),
        h(1, EH, encode_block([(b":status", b"200"), (b"content-length", b"3")])) + d(1, b"no", ES),
        h(1, EH, OK_HEAD) + h(1, EH, OK_TRAILERS),
        h(1, EH, OK_HEAD) + h(1, EH | ES, encode_block([(b":status", b"200")])),
        d(1, b"early"),
        h(1, EH, encode_block([(b":status", b"200"), (b"x", b"y" * 20000)])),
        h(1, EH, OK_HEAD) + d(1, bytes(1001)),
        h(1, EH, encode_block([(b":status", b"200"), (b"content-length", b"1001")])),
    ],
)
def test_malformed_replies_cost_one_request(frames: bytes) -> None:
    caller = Caller(Limits(max_body=1000))
    caller.start()
    caller.call()
    caller.sent()
    out = caller.feed(frames)
    assert caller.failure().failure is Failure.MALFORMED
    assert [frame for frame in out if frame.kind == RST] == [Frame(RST, 0, 1, PROTOCOL.to_bytes(4, "big"))]
    assert caller.connection.ready
    caller.assert_clean()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (raw(PUSH, EH, 1, bytes(4)), PROTOCOL),
        (h(3, EH, OK_HEAD), PROTOCOL),
        (h(2, EH, OK_HEAD), PROTOCOL),
        (d(3), PROTOCOL),
        (rst(3), PROTOCOL),
        (h(1, EH, b"\xbe"), COMPRESSION),
        (raw(DATA, 0, 1, length=2**20 + 1), FRAME_SIZE),
    ],
)
def test_servers_that_break_the_rules(frames: bytes, code: int) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.sent()
    out = caller.feed(frames)
    assert out[-1].kind == GOAWAY
    assert out[-1].payload[:8] == bytes(4) + code.to_bytes(4, "big")
    assert caller.failure().failure is Failure.LOST
    caller.loop.advance(3)
    assert caller.closed == [caller.connection]
    caller.assert_clean()


def test_the_first_frame_must_be_settings() -> None:
    caller = Caller()
    caller.call()
    caller.sent()
    assert caller.feed(ping())[-1].kind == GOAWAY
    assert caller.failure().failure is Failure.LOST


@pytest.mark.parametrize(
    ("code", "failure", "safe"),
    [(REFUSED, Failure.NOT_STARTED, True), (CANCEL, Failure.RESET, False), (ENHANCE, Failure.RESET, False)],
)
def test_resets(code: int, failure: Failure, safe: bool) -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.feed(rst(1, code))
    error = caller.failure()
    assert (error.failure, error.code, error.retry_safe) == (failure, code, safe)
    caller.assert_clean()


def test_goaway_tells_which_calls_may_be_sent_again() -> None:
    caller = Caller()
    caller.start((3, 2))
    started, unstarted, waiting = caller.call(), caller.call(), caller.call()
    assert (started.stream_id, unstarted.stream_id, waiting.stream_id) == (1, 3, 0)
    caller.feed(raw(GOAWAY, 0, 0, (1).to_bytes(4, "big") + INTERNAL.to_bytes(4, "big") + b"bye"))
    errors = [outcome for outcome in caller.outcomes if isinstance(outcome, TransportError)]
    assert [(error.failure, error.code) for error in errors] == [(Failure.NOT_STARTED, INTERNAL)] * 2
    assert "bye" in str(errors[0])
    assert not caller.connection.ready
    with pytest.raises(TransportError) as refused:
        caller.call()
    assert refused.value.retry_safe
    caller.feed(h(1, EH | ES, OK_HEAD))
    assert isinstance(caller.outcomes[-1], Reply)
    assert caller.transport.has_ended()
    caller.assert_clean()


def test_calls_above_the_servers_limit_wait_in_order() -> None:
    caller = Caller()
    caller.start((3, 1))
    streams = [caller.call() for _ in range(4)]
    assert [stream.stream_id for stream in streams] == [1, 0, 0, 0]
    streams[2].cancel()
    caller.feed(h(1, EH | ES, OK_HEAD))
    assert [stream.stream_id for stream in streams] == [1, 3, 0, 0]
    caller.feed(rst(3))
    assert [stream.stream_id for stream in streams] == [1, 3, 0, 5]
    caller.feed(h(5, EH | ES, OK_HEAD))
    assert len(caller.outcomes) == 3
    caller.assert_clean()


def test_cancel_tells_the_server_and_not_the_caller() -> None:
    caller = Caller()
    caller.start()
    stream = caller.call()
    caller.sent()
    stream.cancel()
    stream.cancel()
    assert caller.sent() == [Frame(RST, 0, 1, CANCEL.to_bytes(4, "big"))]
    caller.feed(h(1, EH, OK_HEAD) + d(1, b"late") + h(1, EH | ES, OK_TRAILERS))
    assert caller.outcomes == []
    caller.assert_clean()


def test_deadlines() -> None:
    caller = Caller()
    caller.start((3, 1))
    caller.call(timeout_s=2)
    caller.call(timeout_s=1)
    caller.call(timeout_s=60)
    caller.loop.advance(1.01)
    assert caller.failure().failure is Failure.TIMEOUT, "one that waits has its deadline too"
    caller.loop.advance(1)
    assert len(caller.outcomes) == 2
    assert Frame(RST, 0, 1, CANCEL.to_bytes(4, "big")) in caller.sent()
    caller.feed(h(3, EH | ES, OK_HEAD))
    assert isinstance(caller.outcomes[-1], Reply)
    caller.assert_clean()


def test_a_lost_connection_fails_what_was_under_way() -> None:
    caller = Caller()
    caller.start((3, 1))
    caller.call()
    caller.call()
    caller.connection.connection_lost(OSError("cable"))
    failures = [outcome.failure for outcome in caller.outcomes if isinstance(outcome, TransportError)]
    assert sorted(failures, key=str) == [Failure.LOST, Failure.NOT_STARTED]
    assert caller.closed == [caller.connection]
    assert not caller.connection.ready
    caller.assert_clean()


def test_an_early_reply_stops_the_upload() -> None:
    caller = Caller()
    caller.start()
    caller.call(bytes(MIB))
    caller.sent()
    out = caller.feed(h(1, EH | ES, OK_HEAD) + rst(1, NO_ERROR))
    assert caller.reply().status == 200
    assert out == [Frame(RST, 0, 1, NO_ERROR.to_bytes(4, "big"))]
    caller.assert_clean()


def test_a_callback_may_send_the_next_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller()
    caller.start()

    def again(outcome: Reply | TransportError) -> None:
        caller.call()
        raise RuntimeError("a defect of the caller's")

    caller.connection.request(HEAD, b"", again)
    caller.sent()
    out = caller.feed(h(1, EH | ES, OK_HEAD))
    assert [(frame.kind, frame.stream) for frame in out] == [(HEADERS, 3), (DATA, 3)]
    assert "defect of the caller" in caplog.text


def test_close_lets_calls_finish() -> None:
    caller = Caller()
    caller.start()
    caller.call()
    caller.connection.close()
    assert caller.sent()[-1].kind == GOAWAY
    assert not caller.transport.has_ended()
    caller.feed(h(1, EH | ES, OK_HEAD))
    assert caller.reply().status == 200
    assert caller.transport.has_ended()


def test_the_server_may_ping() -> None:
    caller = Caller()
    caller.start()
    caller.sent()
    assert caller.feed(ping()) == [Frame(PING, 1, 0, b"abcdefgh")]
    assert caller.feed(wu(0, 5) + settings((INITIAL_WINDOW, 100))) == [Frame(SETTINGS, 1, 0, b"")]
