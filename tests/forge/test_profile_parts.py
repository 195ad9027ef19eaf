"""From spans to tables and traces, and what a process takes meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from servable.core.spans import Span
from servable.engines.onnxruntime_profile import spans_of as onnxruntime_spans
from servable.forge.profiling.operations import by_kind, operations
from servable.forge.profiling.resources import Gpu, Phase, Sampler, Usage, ask_gpu, read_gpu, summarize
from servable.forge.profiling.trace import CALLS, PHASES, trace

SPANS = [
    Span(CALLS, "run 1", 10.0, 1.0),
    Span("a", "SessionRun", 10.0, 1.0),
    Span("a", "conv1:Conv", 10.0, 0.5),
    Span("a", "conv2:Conv", 10.5, 0.2),
    Span("b", "mm:MatMul", 10.1, 0.25),
    Span("a", "ExecutorState::Process", 10.5, 0.3),
    Span("a", "conv1:Conv", 11.0, 0.05),
]


def test_operations_are_added_up_by_node_and_by_type() -> None:
    profiled = operations(SPANS)
    assert profiled.seconds == pytest.approx(1.0)
    assert [(one.name, one.kind, one.calls) for one in profiled.operations] == [
        ("conv1", "Conv", 2), ("mm", "MatMul", 1), ("conv2", "Conv", 1),
    ]  # fmt: skip
    assert [one.share for one in profiled.operations] == pytest.approx([0.55, 0.25, 0.2])
    kinds = by_kind(profiled).operations
    assert [(one.name, one.kind, one.calls) for one in kinds] == [("2 nodes", "Conv", 3), ("1 node", "MatMul", 1)]
    assert sum(one.share for one in kinds) == pytest.approx(1)


def test_time_within_a_loop_counts_once() -> None:
    nested = [Span("a", "loop:While", 0.0, 1.0), Span("a", "x:Mul", 0.1, 0.2), Span("a", "y:Add", 0.4, 0.3)]
    nested += [Span("b", "z:Add", 0.1, 0.5), Span("a", "after:Add", 1.0, 0.5)]
    found = {one.name: one.seconds for one in operations(nested).operations}
    assert found == pytest.approx({"loop": 0.5, "x": 0.2, "y": 0.3, "z": 0.5, "after": 0.5})


def test_nothing_is_no_operation() -> None:
    assert operations([]).operations == ()
    assert operations([Span("a", "a frame", 0, 1)]).seconds == 0


def well_formed(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Hold a document to the Trace Event format as Perfetto reads it; return its slices by thread."""
    json.loads(json.dumps(document), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    threads: dict[int, str] = {}
    slices: dict[str, list[dict[str, Any]]] = {}
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name", "thread_sort_index"}
            if event["name"] == "thread_name":
                threads[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "C":
            assert all(isinstance(value, float | int) for value in event["args"].values())
        else:
            assert event["ph"] == "X"
            assert event["dur"] >= 0
            slices.setdefault(threads[event["tid"]], []).append(event)
    for mine in slices.values():
        assert [event["ts"] for event in mine] == sorted(event["ts"] for event in mine)
    return slices


def test_a_trace_is_what_perfetto_reads() -> None:
    samples = [Usage(10.2, 1.5, 2**20, 4), Usage(10.4, 0.5, 2**21, 4, Gpu(0.5, 2**30))]
    document = trace("a model", SPANS, [Phase("load", 9.0, 10.0), Phase("runs", 10.0, 11.5)], samples)
    slices = well_formed(document)
    assert list(slices) == [PHASES, CALLS, "a", "b"]
    conv = slices["a"][1]
    assert (conv["name"], conv["ts"], conv["dur"], conv["cat"]) == ("conv1:Conv", 1e6, 5e5, "operation")
    assert slices["a"][0]["name"] == "SessionRun", "what contains others comes first"
    counters = [(event["name"], event["args"]["value"]) for event in document["traceEvents"] if event["ph"] == "C"]
    assert ("CPU (cores)", 1.5) in counters
    assert ("memory (MiB)", 2.0) in counters
    assert ("GPU (%)", 50.0) in counters


def test_onnxruntime_tells_kernels_and_runs() -> None:
    node = {
        "cat": "Node",
        "ph": "X",
        "tid": 7,
        "name": "conv_kernel_time",
        "ts": 5,
        "dur": 20,
        "args": {"op_name": "Conv"},
    }
    fence = {**node, "name": "conv_fence_before"}
    run = {"cat": "Session", "ph": "X", "tid": 7, "name": "model_run", "ts": 0, "dur": 30, "args": {}}
    spans = list(onnxruntime_spans([node, fence, run], 100.0))
    assert [(span.thread, span.name) for span in spans] == [
        ("onnxruntime 7", "conv:Conv"), ("onnxruntime 7", "model_run"),
    ]  # fmt: skip
    assert [time_s for span in spans for time_s in (span.began, span.seconds)] == pytest.approx(
        [100.000005, 2e-5, 100.0, 3e-5], abs=1e-9
    )


def test_phases_have_the_samples_that_fall_into_them() -> None:
    samples = [Usage(at, cores, rss, 3) for at, cores, rss in ((1.0, 1.0, 10), (2.0, 2.0, 30), (3.0, 0.5, 20))]
    first, second = summarize([Phase("load", 0.5, 2.2), Phase("runs", 2.2, 3.0)], samples)
    assert (first.samples, first.cores, first.rss_mean, first.rss_most) == (2, 1.5, 20, 30)
    assert (second.samples, second.cores, second.threads) == (1, 0.5, 3)
    (none,) = summarize([Phase("short", 5.0, 5.1)], samples)
    assert (none.samples, none.cores, none.gpu_busy) == (0, None, None)


def test_a_process_and_its_children_are_sampled() -> None:
    sampler = Sampler(0.01)
    sampler.start()
    with sampler.phase("busy"):
        began = time.process_time()
        for _ in itertools.takewhile(lambda _: time.process_time() < began + 0.15, itertools.count()):
            pass
    code = "import sys\nheld = bytearray(64 << 20)\nprint(len(held), flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        sampler.stop()
        child.communicate()
    assert sum(one.cores for one in sampler.samples) > 0
    assert sampler.samples[-1].rss_bytes > 64 << 20
    assert sampler.samples[-1].rss_bytes - sampler.samples[0].rss_bytes > 60 << 20
    assert [phase.name for phase in sampler.phases] == ["busy"]


def test_what_nvidia_smi_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_gpu("40, 1024\n60, 2048\n") == Gpu(0.5, 3 << 30)
    assert read_gpu("[N/A], 12\n") is None
    assert read_gpu("") is None
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=utilization.gpu,memory.used ] && echo "25, 512"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert ask_gpu() == Gpu(0.25, 512 << 20)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert ask_gpu() is None
