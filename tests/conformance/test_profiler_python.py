"""ProfilerService by grpcio: what ends a profile, and what is refused. What is in one: tfserving/test_profiler.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess, wait_until

from servable import protos

pytestmark = pytest.mark.conformance

MINUTE_MS = 60_000


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def method(channel: grpc.Channel, name: str) -> Any:
    return channel.unary_unary(f"/tensorflow.ProfilerService/{name}")


def request(milliseconds: int, session: str = "") -> bytes:
    made: bytes = protos.tensorflow.ProfileRequest(duration_ms=milliseconds, session_id=session).SerializeToString()
    return made


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    found: grpc.StatusCode = error.code()
    return found


def is_busy(channel: grpc.Channel) -> bool:
    """Return whether a profile is being made."""
    try:
        method(channel, "Profile")(request(1), timeout=10)
    except grpc.RpcError as error:
        found: Any = error
        assert found.code() is grpc.StatusCode.UNAVAILABLE
        return True
    return False


def begun(channel: grpc.Channel, session: str = "") -> Any:
    """Return a profile that is being made. It may meet the one that asks whether it has begun: then another one."""
    while True:
        future = method(channel, "Profile").future(request(MINUTE_MS, session), timeout=30)
        wait_until(lambda: future.done() or is_busy(channel), "it has begun")  # noqa: B023  # it is called here
        if not future.done():
            return future


def test_one_profile_at_a_time_until_it_is_terminated(channel: grpc.Channel) -> None:
    terminate = method(channel, "Terminate")
    first = begun(channel, "mine")
    other = protos.tensorflow.TerminateRequest(session_id="another").SerializeToString()
    assert terminate(other, timeout=10) == b""
    assert is_busy(channel), "somebody else's was not ended"
    terminate(protos.tensorflow.TerminateRequest(session_id="mine").SerializeToString(), timeout=10)
    response = protos.tensorflow.ProfileResponse.FromString(first.result(timeout=10))
    assert response.empty_trace
    assert not is_busy(channel)


def test_a_client_that_goes_away_ends_its_profile(channel: grpc.Channel) -> None:
    gone = begun(channel)
    gone.cancel()
    wait_until(lambda: not is_busy(channel), "it has ended")


def test_what_is_refused(channel: grpc.Channel, serve: Callable[..., ServerProcess], models: LiveModels) -> None:
    profile, monitor = method(channel, "Profile"), method(channel, "Monitor")
    assert code_of(lambda: profile(request(3_600_000), timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: profile(b"\xff", timeout=10)) is grpc.StatusCode.INTERNAL
    hours = protos.tensorflow.MonitorRequest(duration_ms=3_600_000).SerializeToString()
    assert code_of(lambda: monitor(hours, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT
    unknown = method(channel, "GetSnapshot")
    assert code_of(lambda: unknown(b"", timeout=10)) is grpc.StatusCode.UNIMPLEMENTED
    without = serve(models.onnx("half_plus_two"), "--enable_profiler=false").ready()
    with grpc.insecure_channel(without.address) as other:
        assert code_of(lambda: method(other, "Profile")(request(1), timeout=10)) is grpc.StatusCode.UNIMPLEMENTED
