from __future__ import annotations

import pytest

from servable.cli import serve
from servable.cli.serve import cpu_plan
from servable.engines.machine import Cpus
from servable.settings import ServeSettings


@pytest.mark.parametrize(
    ("threads", "models", "expected"),
    [
        (0, 1, "3 of 8 CPUs, quota 2.5: 2 threads for an operation"),
        (0, 3, "3 of 8 CPUs, quota 2.5: 2 threads for an operation, shared by 3 models"),
        (1, 2, "3 of 8 CPUs, quota 2.5: 1 thread for an operation, shared by 2 models"),
    ],
)
def test_how_models_share_the_cpus(monkeypatch: pytest.MonkeyPatch, threads: int, models: int, expected: str) -> None:
    monkeypatch.setattr(serve, "cpus", lambda: Cpus(8, (0, 1, 2), 2.5))
    assert cpu_plan(ServeSettings(tensorflow_intra_op_parallelism=threads), models) == expected
