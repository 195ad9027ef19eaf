"""TFLite files in LiteRT, on the CPU, at the precision that the file has.

An interpreter is prepared for one set of shapes at a time; those of the last call stay, and others are prepared anew.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition, internal, invalid_argument, unavailable
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import STRING, Array
from servable.engines import tflite_file
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.fitting import Fitted, check_servable, fitted
from servable.engines.litert_rows import RowBlocks, blocks_of
from servable.engines.misfit import check_shapes, misfit, ranges
from servable.engines.plan import cpu_threads

_FLEX: Final = "Flex"
"""What the names of TensorFlow's own operations begin with in a TFLite file."""
_UNFED = frozenset({"int4", "uint4"})
"""Element types that LiteRT does not take from, or give to, numpy."""


class LiteRtEngine(Engine):
    """Runs ``.tflite`` files."""

    name = "litert"
    kinds = frozenset({"tflite"})

    @classmethod
    def installed(cls) -> bool:
        """Return whether LiteRT is here."""
        return importlib.util.find_spec("ai_edge_litert") is not None

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Prove the file by following all of its offsets."""
        return tflite_file.missing(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Make an interpreter. FAILED_PRECONDITION names an operation that LiteRT does not know."""
        if options.precision != "f32":
            raise failed_precondition(f"litert runs models at their own precision, not at {options.precision}")
        file = tflite_file.read(artifact.path)
        fits = fitted(file.signatures, artifact.settings, free_rows=True)
        check_servable(fits, artifact.path)
        _check_fed(fits, artifact.path)
        flex = ", ".join(sorted(name for name in file.custom if name.startswith(_FLEX)))
        if flex:
            raise failed_precondition(
                f"litert cannot run {flex} of {artifact.path}, which are operations of TensorFlow's: convert "
                "the model without SELECT_TF_OPS, or serve the SavedModel that it was made from"
            )
        interpreter = _Interpreter(artifact.path, file, options.intra_op_threads or cpu_threads())
        interpreter.prove()
        return LiteRtModel(interpreter, fits)


class LiteRtModel(Model):
    """One interpreter, which computes one call at a time."""

    engine = "litert"

    def __init__(self, interpreter: _Interpreter, fits: Mapping[str, Fitted]) -> None:
        self.signatures = MappingProxyType({name: fit.signature for name, fit in fits.items()})
        self._interpreter: _Interpreter | None = interpreter
        self._runs: dict[str, _Run] = {}
        for name, fit in fits.items():
            run = _Direct(interpreter, fit)
            blocks = blocks_of(fit)
            self._runs[name] = run if blocks is None else _Blocked(run, blocks, fit.signature)

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute a signature. All outputs are computed; those asked for are copied."""
        if self._interpreter is None:
            raise unavailable("the model has been unloaded")
        if signature not in self._runs:
            raise invalid_argument(f"there is no signature {signature!r}; there are {', '.join(self.signatures)}")
        check_shapes(self.signatures[signature], inputs)
        return self._runs[signature].run(inputs, outputs)

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = None
        self._runs = {}


class _Run(Protocol):
    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]: ...


class _Direct:
    """A signature that computes what it is given."""

    def __init__(self, interpreter: _Interpreter, fit: Fitted) -> None:
        self._interpreter = interpreter
        self._signature = fit.signature
        place = interpreter.file.places[fit.own.name]
        self._subgraph = place.subgraph
        self._fed = {name: place.inputs[own] for name, own in fit.inputs.items()}
        self._fetched = {name: place.outputs[own] for name, own in fit.outputs.items()}
        self._gives_rows = all(map(_has_rows, fit.signature.outputs.values()))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if any(array.size == 0 for array in inputs.values()):
            return self._run_empty(inputs, outputs)
        shapes = tuple(inputs[name].shape for name in self._fed)
        try:
            self._interpreter.prepare(self._subgraph, tuple(self._fed.values()), shapes)
        except ServingError:
            raise
        except Exception as error:
            raise misfit(self._signature, inputs, useful(error)) from error
        try:
            arrays = {number: inputs[name] for name, number in self._fed.items()}
            found = self._interpreter.compute(self._subgraph, arrays, [self._fetched[name] for name in outputs])
        except Exception as error:
            raise self._translate(error, inputs) from error
        return dict(zip(outputs, found, strict=True))

    def _run_empty(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Answer no rows with no rows: LiteRT's operations are not made for tensors without elements."""
        one = dict(inputs)
        for name, spec in self._signature.inputs.items():
            array = inputs[name]
            if not _has_rows(spec):
                continue
            if len(array) or 0 in array.shape[1:]:
                raise misfit(self._signature, inputs, "some have no rows, or rows without elements")
            one[name] = _zeros((1, *array.shape[1:]), array)
        if not self._gives_rows or any(array.size == 0 for array in one.values()):
            raise misfit(self._signature, inputs, "LiteRT needs at least one element of each")
        return {name: array[:0] for name, array in self.run(one, outputs).items()}

    def _translate(self, error: Exception, inputs: Mapping[str, Array]) -> ServingError:
        message = useful(error)
        if _MEMORY.search(message):
            return ServingError(Code.RESOURCE_EXHAUSTED, message)
        if _INPUTS.search(message):
            found = ranges(inputs)
            return invalid_argument(f"{message} ({self._signature}{'; ' + found if found else ''})")
        return internal(message)


class _Blocked:
    """A signature of a fixed number of rows, which takes any: in blocks of that number, the last one filled up."""

    def __init__(self, run: _Direct, blocks: RowBlocks, signature: Signature) -> None:
        self._run = run
        self._blocks = blocks
        self._signature = signature

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        counts = {len(inputs[name]) for name in self._blocks.inputs}
        if len(counts) != 1:
            raise misfit(self._signature, inputs, "they differ in rows")
        rows = counts.pop()
        parts = [self._run.run(block, outputs) for block in self._blocks.split(inputs, rows)]
        return {name: self._blocks.join([part[name] for part in parts], rows) for name in outputs}


class _Interpreter:
    """LiteRT's interpreter, prepared for some shapes of each of its graphs.

    Its Python class runs graphs other than the first by a runner that prepares them at every call; what that calls is
    called here.
    """

    def __init__(self, path: Path, file: tflite_file.TfliteFile, threads: int) -> None:
        self.file = file
        self._path = path
        self._threads = threads
        self._prepared: dict[int, tuple[tuple[int, ...], ...]] = {}
        self._native: Any = None
        self._open()

    def _open(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._prepared.clear()
        try:
            self._owner = Interpreter(model_path=str(self._path), num_threads=self._threads)
        except Exception as error:
            raise failed_precondition(f"litert cannot load {self._path}: {useful(error)}") from error
        self._native = self._owner._interpreter  # noqa: SLF001  # see above

    def prove(self) -> None:
        """Prepare every graph for the shapes that it was made with. FAILED_PRECONDITION names what LiteRT lacks."""
        try:
            for subgraph in {place.subgraph for place in self.file.places.values()}:
                self._native.AllocateTensors(subgraph)
        except Exception as error:
            raise failed_precondition(f"litert cannot run {self._path}: {useful(error)}") from error

    def prepare(self, subgraph: int, inputs: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> None:
        """Make room for inputs of these shapes. Raises what LiteRT raises if its operations cannot take them."""
        if self._native is None:
            self._open()
        if self._prepared.get(subgraph) == shapes:
            return
        self._prepared.pop(subgraph, None)
        try:
            for number, shape in zip(inputs, shapes, strict=True):
                self._native.ResizeInputTensor(number, np.array(shape, np.int32), False, subgraph)
            self._native.AllocateTensors(subgraph)
        except Exception:
            self._native = self._owner = None  # half prepared: the next call begins with a new one
            raise
        self._prepared[subgraph] = shapes

    def compute(self, subgraph: int, inputs: Mapping[int, Array], outputs: Sequence[int]) -> list[Array]:
        """Compute in a graph that is prepared, and return copies of its outputs."""
        native = self._native
        if self.file.stateful:
            native.ResetVariableTensors()  # what one client sent is none of the next one's business
        for number, array in inputs.items():
            native.SetTensor(number, array, subgraph)
        native.Invoke(subgraph)
        return [native.GetTensor(number, subgraph) for number in outputs]


def _check_fed(fits: Mapping[str, Fitted], path: Path) -> None:
    for fit in fits.values():
        for spec in (*fit.signature.inputs.values(), *fit.signature.outputs.values()):
            if spec.dtype.name in _UNFED:
                raise failed_precondition(f"litert cannot be fed {spec.dtype} ({spec.name!r} of {path})")


def _has_rows(spec: TensorSpec) -> bool:
    return spec.shape is not None and spec.shape[:1] == (None,)


def _zeros(shape: tuple[int, ...], like: Array) -> Array:
    return np.full(shape, b"", dtype=object) if like.dtype == STRING.numpy else np.zeros(shape, like.dtype)


_PLACE = re.compile(r"\S+\.(?:cc|h):\d+ ")
_NODE = re.compile(r"Node number (\d+) \((\w+)\) failed to (prepare|invoke)\.")
_MEMORY = re.compile(r"failed to allocate|bad_alloc|out of memory", re.IGNORECASE)
_INPUTS = re.compile(
    r"out of (?:data )?(?:bounds|range)|index|dimension|shape|broadcast|negative|failed to invoke", re.I
)


def useful(error: Exception) -> str:
    """Return the part of a LiteRT message that says what is wrong, on one line."""
    text = _PLACE.sub("", str(error))
    if node := _NODE.search(text):
        text = f"{node[2]} (operation {node[1]}) failed to {node[3]}: {_NODE.sub('', text)}"
    return " ".join(text.split())[:500] or type(error).__name__
