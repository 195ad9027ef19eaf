"""What is measured in a child, and that what goes wrong there is a result."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.forge.pipeline_steps import write_network

from servable.core.errors import ServingError
from servable.engines.base import Artifact
from servable.engines.plan import find_artifact
from servable.engines.tuned_plan import Setting
from servable.forge.measure import Candidate, Measured, alternate, begin, compared, measure, times
from servable.forge.probe import Probe
from servable.forge.samples import Samples

FIXED = """
from servable import Tensor


class Doubles:
    def predict(self, x: Tensor["float32", 2]) -> Tensor["float32", 2]:
        return 2 * x
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return find_artifact(write_network(tmp_path_factory.mktemp("measured") / "1"))


def rows(count: int) -> Samples:
    return Samples({"x": np.ones((count, 3, 6, 6), np.float32)}, "a test")


def test_a_measurement_has_all_its_figures_and_survives_json(network: Artifact) -> None:
    found = measure(network, Setting("onnxruntime", intra_op_threads=1), batches=(1, 4), budget_s=0.02)
    assert found.ok, found.reason
    assert found.engine == "onnxruntime"
    assert found.disk_bytes == network.path.stat().st_size
    assert found.first_run_s > 0
    assert found.load_s > 0
    assert found.user_s >= 0
    assert found.peak_bytes >= found.resident_bytes > found.baseline_bytes > 10_000_000
    assert [one.rows for one in found.batches] == [1, 4]
    for one in found.batches:
        assert len(one.seconds) >= 3
        assert 0 < one.best_s <= one.median_s <= one.quantile_s(0.99)
        assert one.rows_per_s == pytest.approx(one.rows * len(one.seconds) / sum(one.seconds))
    again = Measured.from_json(json.loads(json.dumps(found.as_json())))
    assert again == found


def test_given_rows_are_used_again_where_they_are_too_few(network: Artifact) -> None:
    found = measure(network, batches=(5,), samples=rows(2), budget_s=0.01)
    assert found.ok, found.reason
    assert found.at(5) is not None


def test_what_an_engine_refuses_is_a_result_with_its_reason(network: Artifact, tmp_path: Path) -> None:
    found = measure(network, Setting("onnxruntime", "bf16"))
    assert "not at bf16" in found.reason
    assert found.batches == ()
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no model")
    assert str(broken) in measure(Artifact("onnx", broken)).reason
    assert "no engine is called 'abacus'" in measure(network, Setting("abacus")).reason
    gone = measure(Artifact("onnx", tmp_path / "gone.onnx"))
    assert "gone.onnx" in gone.reason


def test_a_size_of_batch_that_the_model_does_not_take_costs_the_others_nothing(network: Artifact) -> None:
    found = measure(network, batches=(0, 2), samples=rows(4), budget_s=0.01)
    assert found.at(2) is not None


def test_a_process_that_is_killed_is_a_reason_and_stays_one(network: Artifact) -> None:
    with Probe(network, Setting()) as probe:
        probe.load()
        probe.feed(rows(2).rows)
        os.kill(probe.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(ServingError, match="ended by SIGKILL"):
                probe.time(1, 0.01)


def test_a_process_that_takes_too_long_is_given_up(network: Artifact) -> None:
    with Probe(network, Setting()) as probe:
        for _ in range(2):
            with pytest.raises(ServingError, match=r"took longer than 0\.001 s"):
                probe.load(timeout_s=0.001)


def test_runs_end_by_their_number_too_and_sizes_are_those_the_model_takes(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text(FIXED)
    with Probe(Artifact("python", code), Setting()) as probe:
        probe.load()
        probe.feed()
        assert len(probe.time(2, 0.2, least=1, most=4)) == 4
        with pytest.raises(ServingError, match="takes batches of 2, not of 3"):
            probe.time(3, 0.2)


def test_nothing_stays_behind(network: Artifact) -> None:
    with Probe(network, Setting()) as probe:
        probe.load()
        process = psutil.Process(probe.pid)
        assert process.is_running()
    assert not process.is_running()


def test_a_process_can_be_pinned(network: Artifact) -> None:
    cpu = min(os.sched_getaffinity(0))
    with Probe(network, Setting(), cpus={cpu}) as probe:
        probe.load()
        assert os.sched_getaffinity(probe.pid) == {cpu}


def test_candidates_in_turn_have_rounds_that_belong_together(network: Artifact) -> None:
    settings = (Setting("onnxruntime", intra_op_threads=1), Setting("openvino", "bf16"), Setting("onnxruntime", "bf16"))
    one, other, refused = alternate(
        [Candidate(network, setting) for setting in settings], batches=(1, 2), rounds=3, block_s=0.01
    )
    assert "not at bf16" in refused.reason
    for found in (one, other):
        assert found.ok, found.reason
        assert [len(times.rounds) for times in found.batches] == [3, 3]
    ratio = compared(one, other, 2)
    assert ratio is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < ratio.value < ratio.high
    assert compared(one, refused, 2) is None
    back = compared(other, one, 2)
    assert back is not None
    assert back.value == pytest.approx(1 / ratio.value)


CRASHES = """
import os
import numpy as np
from servable import Tensor


class Doubles:
    def predict(self, x: Tensor["float32", "n"]) -> Tensor["float32", "n"]:
        if len(x) == 3:
            os._exit(7)
        return 2 * x
"""


def test_a_model_of_a_process_of_its_own_is_measured_with_it_and_ends_with_it(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text(CRASHES)
    samples = Samples({"x": np.ones(4, np.float32)}, "a test")
    with Probe(Artifact("python", code), Setting(), as_served=True) as probe:
        found = begin(probe, samples, batches=(1,))
        assert found.ok, found.reason
        (child,) = psutil.Process(probe.pid).children()
        assert found.resident_bytes > child.memory_info().rss
        assert times(probe, 2, 0.01).seconds
        assert "ended with exit code 7" in times(probe, 3, 0.01).reason
        others = psutil.Process(probe.pid).children()
    _, left = psutil.wait_procs([child, *others], timeout=10)
    assert left == []
