"""grpcio asks a live server for its health, as load balancers do."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from tests.e2e.live_models import LiveModels
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.conformance

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
HEALTH = "/grpc.health.v1.Health/"


@pytest.mark.rule("service-4", "better-3")
def test_health_of_a_live_server_until_it_stops(models: LiveModels, serve: Callable[..., ServerProcess]) -> None:
    server = serve(models.onnx("half_plus_two")).ready()
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(HEALTH + "Check")
        assert check(b"", timeout=10) == SERVING
        assert check(b"\x0a\x24tensorflow.serving.PredictionService", timeout=10) == SERVING
        assert check(b"\x0a\x11PredictionService", timeout=10) == SERVING, "the name that TensorFlow Serving gives it"
        assert check(b"\x0a\x0cModelService", timeout=10) == SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            check(b"\x0a\x04what", timeout=10)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert b"tensorflow.serving.ModelService" in channel.unary_unary(HEALTH + "List")(b"", timeout=10)
        watching = channel.unary_stream(HEALTH + "Watch")(b"", timeout=30)
        assert next(watching) == SERVING
        server.process.terminate()
        assert next(watching) == NOT_SERVING
        with pytest.raises(grpc.RpcError) as ended:
            next(watching)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(15) == 0
