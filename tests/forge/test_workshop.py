"""A step appears under its final name when it was verified, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import Artifact
from servable.forge.artifacts import find_source
from servable.forge.samples import Samples
from servable.forge.steps import Step, check_step
from servable.forge.verify import EXACT, Tolerance
from servable.forge.workshop import NotVerifiedError, Outcome, naming, open_model, perform
from servable.zoo import catalog as zoo


def step(function: str, **changes: object) -> Step:
    fields = {
        "name": function,
        "summary": "a step of the tests",
        "reads": frozenset({"onnx"}),
        "writes": "onnx",
        "function": f"tests.forge.seam_steps:{function}",
        **changes,
    }
    return Step(**fields)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Artifact:
    return find_source(zoo.build("half_plus_two", tmp_path / "zoo"))


def left(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir()) if folder.exists() else []


def test_a_step_publishes_the_next_version_with_its_companions(source: Artifact, tmp_path: Path) -> None:
    (source.path.parent / "labels.txt").write_text("one\n")
    lines: list[str] = []

    first = perform(step("copied"), source, tmp_path / "out", options={"a": 1}, report=lines.append)
    second = perform(step("copied"), source, tmp_path / "out")

    assert isinstance(first, Outcome)
    assert first.artifact.path == tmp_path / "out" / "1" / "model.onnx"
    assert second.artifact.path == tmp_path / "out" / "2" / "model.onnx"
    assert (tmp_path / "out" / "1" / "labels.txt").read_text() == "one\n"
    assert first.facts["options"] == {"a": 1}
    assert first.verdict.ok
    assert first.verdict.max_abs == 0
    assert {one.rows for one in first.verdict.differences} == {1, 2, 7}
    assert first.bytes_after == first.artifact.path.stat().st_size
    assert "copying with 0 samples" in lines
    assert left(tmp_path / "out") == ["1", "2"]


def test_a_model_that_looks_up_in_a_small_table_needs_no_data(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(5, 2), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["batch", 2])],
        [table],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")

    outcome = perform(step("copied", calibrated=True), find_source(tmp_path / "a.onnx"), tmp_path / "out")

    assert outcome.verdict.ok
    assert outcome.calibration == "made up from the signature (ids below 2: the model refuses more)"


def test_a_step_publishes_one_file(source: Artifact, tmp_path: Path) -> None:
    outcome = perform(step("copied"), source, tmp_path / "small.onnx")

    assert outcome.artifact.path == tmp_path / "small.onnx"
    assert left(tmp_path) == ["small.onnx", "zoo"]


def test_a_model_of_two_files_is_published_with_both_or_not_at_all(source: Artifact, tmp_path: Path) -> None:
    parts = step("in_parts", writes="openvino")
    outcome = perform(parts, source, tmp_path / "new" / "small.xml")
    assert left(tmp_path / "new") == ["small.bin", "small.xml"]
    assert outcome.bytes_after == sum(found.stat().st_size for found in (tmp_path / "new").iterdir())

    (tmp_path / "other.bin").write_text("mine")
    with pytest.raises(ServingError, match=r"other\.bin is there already"):
        perform(parts, source, tmp_path / "other.xml")
    assert (tmp_path / "other.bin").read_text() == "mine"
    assert left(tmp_path) == ["new", "other.bin", "zoo"]


def test_one_file_does_not_hold_constants_that_lie_apart(source: Artifact, tmp_path: Path) -> None:
    apart = step("constants_apart")
    with pytest.raises(ServingError, match=r"small\.onnx alone cannot hold .* give a folder"):
        perform(apart, source, tmp_path / "none" / "small.onnx")
    assert left(tmp_path) == ["zoo"], "the folder that was made for it has gone, too"
    assert perform(apart, source, tmp_path / "out").verdict.ok


def test_what_a_framework_leaves_among_temporary_files_goes_too(source: Artifact, tmp_path: Path) -> None:
    lines: list[str] = []
    perform(step("littered"), source, tmp_path / "out", report=lines.append)
    with pytest.raises(ServingError, match="SIGABRT"):
        perform(step("littered"), source, tmp_path / "out", options={"crash": True}, report=lines.append)
    littered = [Path(line.split()[1]) for line in lines if line.startswith("littered ")]
    assert len(littered) == 2
    assert not any(path.parent.exists() for path in littered)


def test_a_model_that_cannot_be_loaded_is_named_in_one_line(source: Artifact, tmp_path: Path) -> None:
    halved = tmp_path / "halved.onnx"
    halved.write_bytes(source.path.read_bytes()[:40])
    with pytest.raises(ServingError, match=r"halved\.onnx is damaged or not complete"):
        open_model(find_source(halved))
    (tmp_path / "net.xml").write_text(
        '<net name="n" version="11"><layers><layer id="0" name="c" type="Const" version="opset1">'
        '<data element_type="f32" offset="0" shape="4" size="16"/></layer></layers><edges/></net>'
    )
    (tmp_path / "net.bin").write_bytes(bytes(8))
    with pytest.raises(ServingError, match=r"net\.bin has 8 of at least 16 bytes"):
        open_model(find_source(tmp_path / "net.xml"))
    theirs = ServingError(Code.DATA_LOSS, "Checksum does not match\n\t [[{{node RestoreV2}}]]")
    ours = naming(source, theirs)
    assert ours.message == f"{source.path} cannot be loaded: Checksum does not match [[{{{{node RestoreV2}}}}]]"
    assert ours.code is Code.DATA_LOSS
    assert naming(source, ours).message == ours.message
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(ServingError, match=r"folder\.keras"):
        find_source(tmp_path / "folder.keras")


def test_names_that_lie_beside_a_file_need_a_folder(source: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"small\.py alone cannot hold the model's signatures; give a folder"):
        perform(step("with_signatures", writes="python"), source, tmp_path / "small.py")
    assert left(tmp_path) == ["zoo"]


def test_a_step_that_makes_something_else_is_refused(source: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="was to make openvino and made onnx"):
        perform(step("copied", writes="openvino"), source, tmp_path / "out")
    assert left(tmp_path) == ["zoo"]


def test_nothing_is_overwritten(source: Artifact, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_text("mine")
    lines: list[str] = []
    with pytest.raises(ServingError, match="is there already") as caught:
        perform(step("copied"), source, tmp_path / "small.onnx", report=lines.append)
    assert lines == [], "this is known before any work"
    assert caught.value.code is Code.ALREADY_EXISTS
    assert (tmp_path / "small.onnx").read_text() == "mine"


def test_what_answers_differently_is_not_kept(source: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotVerifiedError, match="spoiled: the result does not answer as its source does") as caught:
        perform(step("spoiled"), source, tmp_path / "out")
    assert not caught.value.verdict.ok
    assert caught.value.verdict.max_abs > 0.1
    assert left(tmp_path / "out") == []


def test_a_tolerance_decides(source: Artifact, tmp_path: Path) -> None:
    loose = Tolerance(rtol=None, atol=None, relative=0.9)
    outcome = perform(step("spoiled"), source, tmp_path / "out", options={"factor": 1.2}, tolerance=loose)
    assert outcome.verdict.ok
    with pytest.raises(NotVerifiedError):
        perform(step("spoiled"), source, tmp_path / "out", options={"factor": 1.2}, tolerance=EXACT)
    assert left(tmp_path / "out") == ["1"]


@pytest.mark.parametrize(
    ("function", "code", "text"),
    [
        ("refused", Code.FAILED_PRECONDITION, "DecodeJpeg stands in the way; split"),
        ("raised", Code.INTERNAL, r"raised of .*model\.onnx: ValueError: a framework's own words"),
        ("crashed", Code.INTERNAL, r"crashed of .*model\.onnx: .*SIGABRT.*the last words"),
        ("killed", Code.INTERNAL, r"killed of .*model\.onnx: .*SIGKILL, perhaps for want of memory"),
        ("full", Code.FAILED_PRECONDITION, "No space left on device"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    source: Artifact, tmp_path: Path, function: str, code: Code, text: str
) -> None:
    with pytest.raises(ServingError, match=text) as caught:
        perform(step(function), source, tmp_path / "out")
    assert caught.value.code is code
    assert "\n" not in caught.value.message
    assert left(tmp_path / "out") == []


HANG = """
import sys
from pathlib import Path
from servable.forge.artifacts import find_source
from servable.forge.steps import Step
from servable.forge.workshop import perform
hung = Step("hung", "hangs", frozenset({"onnx"}), "onnx", "tests.forge.seam_steps:hung")
try:
    perform(hung, find_source(Path(sys.argv[1])), Path(sys.argv[2]), report=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_from_outside_leaves_no_artifact_and_no_process(
    source: Artifact, tmp_path: Path, ending: signal.Signals
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HANG, str(source.path), str(out)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        line = next(line for line in running.stdout if line.startswith("hangs"))
        pids = [int(word) for word in line.split()[1:]]
        running.send_signal(ending)
        said = running.stdout.read()
        running.wait()
    assert ("interrupted" in said) == (ending is not signal.SIGKILL)
    assert "1" not in left(out)
    worker, grandchild = pids
    deadline = os.times().elapsed + 10
    while not gone(worker) and os.times().elapsed < deadline:
        pass
    assert gone(worker)
    if ending is signal.SIGKILL:  # the kernel tells the worker of it, and nobody the worker's own children
        os.kill(grandchild, signal.SIGKILL)
        perform(step("copied"), source, out)  # sweeps what was left
        assert left(out) == ["1"]
    else:
        while not gone(grandchild) and os.times().elapsed < deadline:
            pass
        assert gone(grandchild)
        assert left(out) == []


def test_calibration_takes_the_data_or_says_loudly_that_it_is_made_up(source: Artifact, tmp_path: Path) -> None:
    lines: list[str] = []
    made = perform(step("copied", calibrated=True), source, tmp_path / "out", report=lines.append)
    assert made.calibration == "made up from the signature"
    assert any("NO DATA WAS GIVEN" in line for line in lines)

    rows = {"x": np.linspace(-3, 3, 20, dtype=np.float32)[:, None]}
    lines.clear()
    given = perform(
        step("copied", calibrated=True), source, tmp_path / "out", data=Samples(rows, "rows.npz"), report=lines.append
    )
    assert given.calibration == "rows.npz"
    assert given.facts["rows"] == 20
    assert not any("NO DATA" in line for line in lines)


def test_a_source_that_no_engine_loads_is_compared_by_its_reference(tmp_path: Path) -> None:
    source = Artifact("keras", tmp_path / "model.keras")
    source.path.write_bytes(b"layers")
    double = step("double", reads=frozenset({"keras"}), reference="tests.forge.seam_steps:doubled")

    assert perform(double, source, tmp_path / "out").verdict.ok
    with pytest.raises(NotVerifiedError):
        perform(double, source, tmp_path / "out", options={"factor": 3})


def test_a_step_of_another_kind_or_without_its_package_is_refused(source: Artifact) -> None:
    with pytest.raises(ServingError, match=r"copied does not read onnx .*; it reads openvino"):
        check_step(step("copied", reads=frozenset({"openvino"})), source)
    with pytest.raises(ServingError, match=r"copied needs no_such_package: pip install 'servable\[forge\]'"):
        check_step(step("copied", needs={"no_such_package": "servable[forge]"}), source)
