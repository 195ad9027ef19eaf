"""What is particular to PyTorch; the rest is in the engines' contract."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.core.tensors import Array
from servable.engines import torch_archive
from servable.engines.base import EngineOptions, Model
from servable.engines.plan import artifact_of_file, choose, complete, load

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install 'servable[torch]'"
)
Load = Callable[..., Model]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    builder = Path(__file__).with_name("build_torch_cases.py")
    done = subprocess.run([sys.executable, builder, folder], check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def loaded(built: Path, tmp_path: Path) -> Iterator[Load]:
    """Return a function that loads one of the files, with settings beside it, as the server would."""
    models: list[Model] = []

    def load_file(name: str, settings: str = "", **options: object) -> Model:
        target = tmp_path / f"model{Path(name).suffix}"
        shutil.copyfile(built / name, target)
        if settings:
            (tmp_path / "servable.toml").write_text(settings)
        artifact = artifact_of_file(tmp_path)
        choice = choose(artifact, precision=str(options.get("precision", "f32")))
        models.append(load(choice, artifact, EngineOptions(allow_python=True)))
        return models[-1]

    yield load_file
    for model in models:
        model.close()


def rows(count: int, width: int = 3) -> Array:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


@needs_torch
def test_structures_are_taken_apart_and_sizes_that_a_program_was_not_made_for_are_refused(loaded: Load) -> None:
    model = loaded("structures.pt2")
    assert str(model.signatures[DEFAULT_SIGNATURE]) == (
        "serving_default(rows: float32[?,3], pair_left: float32[?,3], pair_right: float32[?,3]) -> "
        "output_0: float32[?,3], output_1_sum: float32[?,3], output_1_product: float32[?,3]"
    )
    x = rows(5)
    given = {"rows": x, "pair_left": x + 1, "pair_right": x + 2}
    names = ("output_1_product", "output_1_sum", "output_0")
    for _ in range(2):  # the second time without PyTorch's own look at the shapes
        found = model.run(DEFAULT_SIGNATURE, given, names)
        assert tuple(found) == names
        assert np.array_equal(found["output_0"], 2 * x)
        assert np.array_equal(found["output_1_sum"], x + x + 1)
        assert np.array_equal(found["output_1_product"], (x + 1) * (x + 2))
        few = {name: array[:2] for name, array in given.items()}
        for wrong, words in (({**given, "rows": rows(6)}, "do not fit"), (few, r"do not fit.*Guard failed")):
            with pytest.raises(ServingError, match=words) as failure:
                model.run(DEFAULT_SIGNATURE, wrong, names)
            assert failure.value.code is Code.INVALID_ARGUMENT


LINEAR = """
[signatures.serving_default.inputs.pixels]
dtype = "float32"
shape = [-1, 64]

[signatures.serving_default.outputs.scores]
dtype = "float32"
shape = [-1, 4]
"""
TWO = """
[signatures.both.inputs.a]
dtype = "float32"
shape = [-1, 3]
node = "first"

[signatures.both.inputs.b]
dtype = "float32"
shape = [-1, 3]
node = "second"

[signatures.both.outputs.sum]
dtype = "float32"
node = "output_1"

[signatures.both.outputs.one_more]
dtype = "float32"
node = "output_0"
"""


@needs_torch
def test_torchscript_is_named_by_its_settings_and_bf16_is_asked_for_and_said(loaded: Load) -> None:
    model = loaded("linear.pt", LINEAR, precision="bf16")
    assert str(model.signatures[DEFAULT_SIGNATURE]) == "serving_default(pixels: float32[?,64]) -> scores: float32[?,4]"
    assert model.precision == "bf16"
    given = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    exact = given @ np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 64).T
    found = model.run(DEFAULT_SIGNATURE, {"pixels": given}, ("scores",))["scores"]
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(exact - found).max() / np.abs(exact).max() < 0.05
    with pytest.raises(ServingError, match=r"do not fit; expected pixels: \['\?', 64\]") as failure:
        model.run(DEFAULT_SIGNATURE, {"pixels": rows(2)}, ("scores",))
    assert failure.value.code is Code.INVALID_ARGUMENT


@needs_torch
def test_arguments_and_outputs_are_found_by_node_and_inputs_stay_the_clients(loaded: Load) -> None:
    model = loaded("two.pt", TWO)
    given = {"a": rows(2), "b": 10 * rows(2)}
    found = model.run("both", given, ("one_more", "sum"))
    assert np.array_equal(found["one_more"], rows(2) + 1)
    assert np.array_equal(found["sum"], 11 * rows(2) + 1)
    assert np.array_equal(given["a"], rows(2))


@needs_torch
def test_torchscript_without_settings_says_what_to_write(loaded: Load) -> None:
    problem = r"is TorchScript, which does not say .*line each: signatures\.serving_default\.inputs\.x = { dtype = "
    with pytest.raises(ServingError, match=problem) as failure:
        loaded("linear.pt")
    assert failure.value.code is Code.FAILED_PRECONDITION


@needs_torch
@pytest.mark.parametrize("name", ["pickled.pt", "weights.pt"])
def test_pickles_are_refused_with_a_way_on_and_never_loaded(built: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    shutil.copyfile(built / name, path)
    artifact = artifact_of_file(path)
    assert complete(choose(artifact), artifact) is None  # nothing of it is missing: no use to wait for more
    with pytest.raises(ServingError, match=r"is a pickle \(torch\.save\).*save the module with its graph") as failure:
        load(choose(artifact), artifact, EngineOptions())
    assert failure.value.code is Code.FAILED_PRECONDITION


class Burglar:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._trace,)


@needs_torch
def test_a_pickle_inside_an_archive_is_not_followed(built: Path, tmp_path: Path) -> None:
    path, trace = tmp_path / "model.pt2", tmp_path / "trace"
    with zipfile.ZipFile(built / "structures.pt2") as honest, zipfile.ZipFile(path, "w") as archive:
        for entry in honest.infolist():
            is_inputs = "sample_inputs" in entry.filename
            archive.writestr(entry.filename, pickle.dumps(Burglar(trace)) if is_inputs else honest.read(entry))
    pickle.loads(pickle.dumps(Burglar(trace)))
    assert trace.exists()
    trace.unlink()
    artifact = artifact_of_file(path)
    with pytest.raises(ServingError, match="holds a pickle of more than tensors, which could run anything") as failure:
        load(choose(artifact), artifact, EngineOptions(allow_python=True))
    assert failure.value.code is Code.FAILED_PRECONDITION
    assert not trace.exists()


@needs_torch
def test_an_archive_under_the_name_of_the_other_kind_says_which_it_is(built: Path, tmp_path: Path) -> None:
    shutil.copyfile(built / "linear.pt", tmp_path / "model.pt2")
    with pytest.raises(ServingError, match=r"is an archive of TorchScript: its name should end in \.pt$"):
        torch_archive.check(tmp_path / "model.pt2", "torch_export")
    shutil.copyfile(built / "structures.pt2", tmp_path / "model.pt")
    with pytest.raises(ServingError, match=r"is an archive of torch\.export: its name should end in \.pt2$"):
        torch_archive.check(tmp_path / "model.pt", "torchscript")


@needs_torch
@pytest.mark.parametrize("name", ["structures.pt2", "linear.pt"])
def test_an_archive_cut_off_anywhere_is_not_complete(built: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = (built / name).read_bytes()
    path.write_bytes(whole)
    assert torch_archive.missing(path) is None
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert str(path) in (torch_archive.missing(path) or ""), length


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/beach.jpg", b"")
    with pytest.raises(ServingError, match="is an archive, but not one of PyTorch"):
        torch_archive.check(path, "torchscript")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/aotinductor/model/x.so", b"")
    with pytest.raises(ServingError, match="code that AOTInductor compiled"):
        torch_archive.check(path, "torchscript")


def test_an_archive_of_torch_export_counts_as_python(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.touch()
    artifact = artifact_of_file(path)
    with pytest.raises(ServingError, match=r"model\.pt2 may make PyTorch run Python, which runs only") as failure:
        load(choose(artifact) if importlib.util.find_spec("torch") else choose_anyway(), artifact, EngineOptions())
    assert failure.value.code is Code.PERMISSION_DENIED


def choose_anyway():
    from servable.engines.plan import Choice

    return Choice("torch", "f32", True, "")
