"""ONNX models in ONNX Runtime, on the CPU, at the precision that the file has."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition, internal, invalid_argument, unavailable
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.spans import Span
from servable.core.tensors import STRING, Array, DType
from servable.engines import onnx_model
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.onnxruntime_profile import SessionProfile
from servable.engines.plan import cpu_threads
from servable.engines.streams import threads_of_each

_FATAL = 4
_UNFED = frozenset({"int4", "uint4", "complex64", "complex128"})
"""Element types that ONNX Runtime does not take from, or give to, numpy in any way."""
_BIT_PATTERNS: dict[str, tuple[int, Any]] = {
    "bfloat16": (16, np.uint16), "float8_e4m3fn": (17, np.uint8), "float8_e5m2": (19, np.uint8),
}  # fmt: skip
"""Element types that it takes as bit patterns only: their ONNX number, and the numpy type of the patterns."""

_DIES_OF_NOTHING = frozenset({"LSTM", "GRU", "RNN"})
"""Operations whose kernels end the whole process when they get no rows (ONNX Runtime 1.31)."""


class OnnxRuntimeEngine(Engine):
    """Runs ``.onnx`` files."""

    name = "onnxruntime"
    kinds = frozenset({"onnx"})

    @classmethod
    def installed(cls) -> bool:
        """Return whether ONNX Runtime is here."""
        return importlib.util.find_spec("onnxruntime") is not None

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Prove the file by parsing it, and its external data by the lengths it states."""
        return onnx_model.missing(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Create a session. Threads do not spin while they wait: they would take the CPU from the network's."""
        if options.precision != "f32":
            raise failed_precondition(f"onnxruntime runs models at their own precision, not at {options.precision}")
        model = onnx_model.read(artifact.path)
        signature = onnx_model.signature(model)
        for spec in (*signature.inputs.values(), *signature.outputs.values()):
            if spec.dtype.name in _UNFED:
                raise failed_precondition(f"onnxruntime cannot be fed {spec.dtype} ({spec.name!r} of {artifact.path})")
        import onnxruntime

        onnxruntime.set_default_logger_severity(_FATAL)  # what goes wrong comes as an exception
        chosen = _session_options(onnxruntime, options)
        profile = SessionProfile(chosen) if options.profile else None
        try:
            session = onnxruntime.InferenceSession(str(artifact.path), chosen, providers=["CPUExecutionProvider"])
        except Exception as error:
            if profile is not None:
                profile.close()
            raise failed_precondition(f"onnxruntime cannot load {artifact.path}: {_useful(error)}") from error
        never_empty = _DIES_OF_NOTHING.intersection(node.op_type for node in model.graph.node)
        return OnnxRuntimeModel(session, signature, _runner(session, signature), min(never_empty, default=""), profile)


class OnnxRuntimeModel(Model):
    """One session."""

    engine = "onnxruntime"
    concurrent = True

    def __init__(
        self,
        session: Any,
        signature: Signature,
        run: Callable[..., list[Any]],
        never_empty: str = "",
        profile: SessionProfile | None = None,
    ) -> None:
        self.signatures = MappingProxyType({signature.name: signature})
        self._session = session
        self._run = run
        self._profile = profile
        self._never_empty = never_empty
        self._string_inputs = [name for name, spec in signature.inputs.items() if spec.dtype is STRING]
        self._strings_out = frozenset(name for name, spec in signature.outputs.items() if spec.dtype is STRING)

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the outputs; those not asked for are not computed."""
        if signature != DEFAULT_SIGNATURE:
            raise invalid_argument(f"there is no signature {signature!r}; an ONNX model has {DEFAULT_SIGNATURE!r} only")
        if self._string_inputs:
            inputs = {**inputs, **{name: _as_text(name, inputs[name]) for name in self._string_inputs}}
        if self._never_empty and any(array.size == 0 for array in inputs.values()):
            raise invalid_argument(f"the operation {self._never_empty} of this model needs at least one row")
        try:
            results = self._run(outputs, inputs)
        except Exception as error:
            raise self._translate(error) from error
        named = dict(zip(outputs, results, strict=True))
        if self._strings_out:
            for name in self._strings_out.intersection(named):
                named[name] = _as_bytes(named[name])
        return named

    def begin_profile(self) -> bool:
        """Begin to note operations, if the session was created to be profiled. It tells once."""
        return self._profile is not None and self._profile.begin()

    def end_profile(self) -> list[Span]:
        """Return the operations and runs since."""
        return [] if self._profile is None else self._profile.end(self._session)

    def close(self) -> None:
        """Free the session."""
        self._session = None
        self._run = _closed
        if self._profile is not None:
            self._profile.close()

    def _translate(self, error: Exception) -> ServingError:
        if isinstance(error, ServingError):
            return error
        message = _useful(error)
        if type(error).__name__ == "InvalidArgument":
            return invalid_argument(f"{message} ({self.signatures[DEFAULT_SIGNATURE]})")
        if _MEMORY.search(message):
            return ServingError(Code.RESOURCE_EXHAUSTED, message)
        if _SHAPES.search(message):  # operators find shapes that do not fit each other; the client chose them
            return invalid_argument(f"{message} ({self.signatures[DEFAULT_SIGNATURE]})")
        return internal(message)


def _session_options(onnxruntime: Any, options: EngineOptions) -> Any:
    chosen = onnxruntime.SessionOptions()
    threads = options.intra_op_threads or cpu_threads()
    chosen.intra_op_num_threads = threads_of_each(threads, options.streams)
    chosen.inter_op_num_threads = options.inter_op_threads or 1
    if options.inter_op_threads > 1:
        chosen.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.add_session_config_entry("session.inter_op.allow_spinning", "0")
    chosen.log_severity_level = _FATAL
    return chosen


def _runner(session: Any, signature: Signature) -> Callable[..., list[Any]]:
    """Return ``session.run``, or what does the same for a signature with types that ``run`` does not know."""
    specs = (*signature.inputs.values(), *signature.outputs.values())
    if not any(spec.dtype.name in _BIT_PATTERNS for spec in specs):
        return cast("Callable[..., list[Any]]", session.run)
    if any(spec.dtype is STRING for spec in specs):
        raise failed_precondition(f"onnxruntime cannot be fed strings together with bfloat16 or float8: {signature}")
    return functools.partial(_run_with_patterns, session, signature)


def _run_with_patterns(session: Any, signature: Signature, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Any:
    from onnxruntime import OrtValue

    feed = {}
    for name, array in inputs.items():
        number, pattern = _BIT_PATTERNS.get(signature.inputs[name].dtype.name, (None, None))
        contiguous = np.array(array, order="C", copy=None)
        feed[name] = (
            OrtValue.ortvalue_from_numpy(contiguous)
            if number is None
            else OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous.view(pattern), number)
        )
    values = session.run_with_ort_values(outputs, feed)
    return [_array(value, signature.outputs[name].dtype) for name, value in zip(outputs, values, strict=True)]


def _array(value: Any, dtype: DType) -> Array:
    if dtype.name not in _BIT_PATTERNS:
        return cast("Array", value.numpy())
    shape = tuple(value.shape())
    copied = ctypes.string_at(value.data_ptr(), math.prod(shape) * dtype.itemsize)
    return np.frombuffer(copied, dtype.numpy).reshape(shape)


def _closed(*_: Any) -> Any:
    raise unavailable("the model has been unloaded")


def _as_text(name: str, strings: Array) -> Array:
    """Return bytes as text: ONNX strings are UTF-8."""
    texts = np.empty(strings.shape, dtype=object)
    try:
        texts.reshape(-1)[:] = [item.decode() if isinstance(item, bytes) else item for item in strings.reshape(-1)]
    except UnicodeDecodeError as error:
        raise invalid_argument(f"input {name!r} holds a string that is not UTF-8: {error.reason}") from error
    return texts


def _as_bytes(texts: Array) -> Array:
    strings = np.empty(texts.shape, dtype=object)
    strings.reshape(-1)[:] = [item.encode() if isinstance(item, str) else item for item in texts.reshape(-1)]
    return strings


_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ")
_PLACE = re.compile(r"\S+\.(?:cc|h):\d+ (?:[^()]*onnxruntime::[^()]*\([^()]*\)(?: const)? )?")
_ADVICE = re.compile(r"\s*Please fix either the inputs/outputs or the model\.\s*$")
_MEMORY = re.compile(r"Failed to allocate memory|bad_alloc|storage size overflowed", re.IGNORECASE)
_SHAPES = re.compile(
    r"dimension|shape|broadcast|out of (data )?bounds|must be within|incompatible|cannot be reshaped", re.IGNORECASE
)


def _useful(error: Exception) -> str:
    """Return the part of an ONNX Runtime message that says what is wrong, on one line."""
    text = _ADVICE.sub("", _PREFIX.sub("", str(error)))
    text = _NODE.sub(lambda node: f"{node[1]} {node[2]}".rstrip() + ": ", text)
    return " ".join(_PLACE.sub("", text).split()) or type(error).__name__
