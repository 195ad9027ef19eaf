"""SavedModels and frozen graphs in TensorFlow itself: exact semantics, in a child process.

Runs the v1 session of the loader that TensorFlow Serving uses, by callables of the session's C interface: every shape
and type gets as far as the operations, whose error texts clients see. The public ``Session.make_callable`` checks
shapes and converts types in Python, and costs 95 µs a call of a trivial model instead of 16.

Operations run in the calling thread: 6 µs instead of 16, and 0.20 ms instead of 0.35 for a small CNN. TensorFlow's own
pool for independent operations is used when ``inter_op_threads`` asks for it. What a single operation splits goes to
``intra_op_threads`` in either case.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, unimplemented
from servable.core.signatures import Signature, TensorSpec
from servable.core.spans import Span
from servable.core.tensors import DTYPES_BY_NAME, Array
from servable.engines import frozen_graph, savedmodel
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.plan import cpu_threads
from servable.engines.streams import threads_of_each

_CALLABLES_KEPT = 64
MOST_SPANS = 200_000
"""Events that are kept of one profile."""
_IN_CALLING_THREAD = -1
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # errors; warnings would let one client fill the log
    "CUDA_VISIBLE_DEVICES": "-1",
}


class TensorFlowEngine(Engine):
    """Loads SavedModels and frozen graphs; the reference for what they mean."""

    name = "tensorflow"
    kinds = frozenset({"saved_model", "graph_def"})
    isolated = True

    @classmethod
    def installed(cls) -> bool:
        """Return whether there is a TensorFlow to import."""
        return importlib.util.find_spec("tensorflow") is not None

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Judge by the lengths in ``variables.index`` and the names of assets; a graph by its nodes."""
        if artifact.kind == "graph_def":
            return frozen_graph.missing(artifact.path)
        return savedmodel.missing(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Load a meta graph with the options' tags (restore variables, run its initializer) or a frozen graph.

        CPU only.
        """
        if options.precision != "f32":
            raise unimplemented(f"tensorflow computes as the model says; it cannot be asked for {options.precision}")
        # First, because it is quick and its errors are TensorFlow Serving's.
        read = _read_frozen(artifact) if artifact.kind == "graph_def" else _read_saved_model(artifact, options)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options.report("importing tensorflow")
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        options.report(f"loading {artifact.path}")
        threads = options.intra_op_threads or cpu_threads()
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads_of_each(threads, options.streams),
            inter_op_parallelism_threads=options.inter_op_threads or 1,
            device_count={"GPU": 0},
        )
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                signatures = read(tf, session)
        except ServingError:
            session.close()
            raise
        except (tf.errors.OpError, ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
            session.close()
            if (refusal := refused(error)) is not None:
                raise refusal from error
            raise failed_precondition(f"tensorflow cannot load {artifact.path}: {error}") from error
        model = TensorFlowModel(session, signatures, pooled=options.inter_op_threads > 1)
        model.concurrent = options.streams > 1
        return model


_Read = Callable[[Any, Any], Mapping[str, Signature]]


def _read_saved_model(artifact: Artifact, options: EngineOptions) -> _Read:
    """Read what needs no TensorFlow; return what does the rest, in a session."""
    signatures = savedmodel.read(artifact.path, options.saved_model_tags).signatures

    def read(tf: Any, session: Any) -> Mapping[str, Signature]:
        tf.compat.v1.saved_model.loader.load(session, list(options.saved_model_tags), str(artifact.path))
        return signatures

    return read


def _read_frozen(artifact: Artifact) -> _Read:
    """Do the same for a frozen graph."""
    graph = frozen_graph.read(artifact.path)
    frozen_graph.check_frozen(graph, artifact.path)
    content = graph.SerializeToString()

    def read(tf: Any, session: Any) -> Mapping[str, Signature]:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(content), name="")
        return frozen_graph.signatures(session.graph, artifact.path, artifact.settings)

    return read


class TensorFlowModel(Model):
    """A session with callables, one for each signature and choice of outputs that was asked for."""

    engine = "tensorflow"

    def __init__(self, session: Any, signatures: Mapping[str, Signature], *, pooled: bool) -> None:
        self.signatures = signatures
        self._session: Any = session
        self._pool = 0 if pooled else _IN_CALLING_THREAD
        self._profile: tuple[Any, float] | None = None
        self._calls: OrderedDict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = OrderedDict()

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Feed and fetch by the signature's node names. Shapes are the operations' business."""
        try:
            call = self._call(signature, tuple(outputs))
            results = call(*[inputs[name] for name in self.signatures[signature].inputs])
        except ServingError:
            raise
        except Exception as error:
            if (refusal := refused(error)) is not None:
                raise refusal from error
            raise
        return {name: _as_array(result) for name, result in zip(outputs, results, strict=True)}

    def _call(self, name: str, outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        key = (name, outputs)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._new_call(self.signatures[name], outputs)
            if len(self._calls) > _CALLABLES_KEPT:
                self._calls.popitem(last=False)
        else:
            self._calls.move_to_end(key)
        return call

    def _new_call(self, signature: Signature, outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        from tensorflow.core.protobuf import config_pb2

        fetched = [signature.outputs[name] for name in outputs]
        for spec in (*signature.inputs.values(), *fetched):
            _check_callable(signature, spec)
        options = config_pb2.CallableOptions(
            feed=[spec.node for spec in signature.inputs.values()],
            fetch=[spec.node for spec in fetched],
            run_options=config_pb2.RunOptions(inter_op_thread_pool=self._pool),
        )
        call: Callable[..., list[Any]] = self._session._make_callable_from_options(options)  # noqa: SLF001  # see above
        return call

    def begin_profile(self) -> bool:
        """Let TensorFlow's profiler look at this process. It serves one who looks at a time."""
        from tensorflow.python.profiler.internal import _pywrap_profiler

        profiler = _pywrap_profiler.ProfilerSession()
        began = time.monotonic()
        try:
            profiler.start("", {"host_tracer_level": 2, "device_tracer_level": 0, "python_tracer_level": 0})
        except Exception:  # noqa: BLE001  # of a kind of TensorFlow's own; somebody looks already
            return False
        self._profile = (profiler, began)
        return True

    def end_profile(self) -> list[Span]:
        """Return its events, the operations among them."""
        from tensorflow.tsl.profiler.protobuf import trace_events_pb2

        if self._profile is None:
            return []
        (profiler, began), self._profile = self._profile, None
        trace = trace_events_pb2.Trace.FromString(profiler.stop())
        threads = {
            (device_id, resource_id): resource.name
            for device_id, device in trace.devices.items()
            for resource_id, resource in device.resources.items()
        }
        return [
            Span(
                threads.get((event.device_id, event.resource_id)) or str(event.resource_id),
                # "name of the node:operation", by which tools know an operation.
                event.args.get("long_name") or event.name,
                began + event.timestamp_ps * 1e-12,
                event.duration_ps * 1e-12,
            )
            for event in islice(trace.trace_events, MOST_SPANS)
        ]

    def close(self) -> None:
        """Close the session."""
        self._calls.clear()
        self._session.close()


def refused(error: Exception) -> ServingError | None:
    """Return TensorFlow's own error as ours, code and text; ``None`` if it is not one of TensorFlow's.

    In Python, TensorFlow wraps the text that its C++ (and TensorFlow Serving) shows: the original is the context.
    """
    for origin in (error.__context__, error):
        code, message = getattr(origin, "error_code", None), getattr(origin, "message", None)
        if isinstance(code, int) and isinstance(message, str):
            return ServingError(Code(code), message)
    return None


def _check_callable(signature: Signature, spec: TensorSpec) -> None:
    if spec.dtype.name not in DTYPES_BY_NAME:
        raise invalid_argument(
            f"signature {signature.name!r} cannot be called: {spec.name!r} is of type {spec.dtype}, which is no tensor"
        )


def _as_array(result: Any) -> Array:
    """Return a result as an array: scalars come as numpy scalars, a single string as ``bytes``."""
    if isinstance(result, np.ndarray):
        return result
    if isinstance(result, bytes):
        array = np.empty((), dtype=object)
        array[()] = result
        return array
    return np.asarray(result)
