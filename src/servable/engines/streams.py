"""A batch computed in parts side by side: for networks whose own threads do not fill the processors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from servable.core.errors import failed_precondition
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import Array
from servable.engines.base import Caller, Model


class StreamedModel(Model):
    """Cuts a batch into as many parts as there are streams. Takes the model over, which must be ``concurrent``.

    Only where every input and output begins with a free dimension; and only for models whose rows were shown to be
    independent, since a part knows nothing of the others.
    """

    def __init__(self, model: Model, streams: int) -> None:
        self.engine = model.engine
        self.precision = model.precision
        self.signatures = model.signatures
        self.uses = model.uses
        self._model = model
        self._streams = streams
        self._cut = frozenset(name for name, one in model.signatures.items() if _has_rows(one))
        self._pool = ThreadPoolExecutor(streams - 1, thread_name_prefix="stream")

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the parts, the first in this thread. If the rows do not add up, compute the whole once more."""
        rows = _rows(inputs) if signature in self._cut else 0
        parts = min(self._streams, rows)
        if parts < 2:
            return self._model.run(signature, inputs, outputs)
        ends = [rows * number // parts for number in range(parts + 1)]
        cuts = [{name: array[begin:end] for name, array in inputs.items()} for begin, end in itertools.pairwise(ends)]
        others = [self._pool.submit(self._model.run, signature, cut, outputs) for cut in cuts[1:]]
        try:
            results = [self._model.run(signature, cuts[0], outputs)]
        finally:
            for other in others:
                other.exception()  # nobody may compute any more when this returns
        results += [other.result() for other in others]
        for result, begin, end in zip(results, ends[:-1], ends[1:], strict=True):
            if any(array.ndim == 0 or len(array) != end - begin for array in result.values()):
                return self._model.run(signature, inputs, outputs)
        return {name: np.concatenate([result[name] for result in results]) for name in outputs}

    def calling(self, caller: Caller) -> Model:
        """Refuse nothing: a model that calls others is never cut."""
        return self._model.calling(caller) if self.uses else self

    def begin_serving(self) -> None:
        """Tell the model."""
        self._model.begin_serving()

    def close(self) -> None:
        """End the threads and close the model."""
        self._pool.shutdown()
        self._model.close()


def in_streams(model: Model, streams: int) -> Model:
    """Return the model as one that computes in so many streams; FAILED_PRECONDITION if it cannot."""
    if streams < 2:
        return model
    if not model.concurrent:
        model.close()
        raise failed_precondition(f"{model.engine} computes one batch at a time: it has no {streams} streams")
    return StreamedModel(model, streams)


def threads_of_each(threads: int, streams: int) -> int:
    """Return how many threads one call may use so that all streams together use ``threads``.

    For an engine whose calls compute in the calling thread and in one pool that they share.
    """
    return max(1, threads - max(1, streams) + 1)


def _has_rows(signature: Signature) -> bool:
    specs = (*signature.inputs.values(), *signature.outputs.values())
    return bool(signature.inputs) and not signature.streamed and all(_is_free(spec) for spec in specs)


def _is_free(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape is not None and spec.shape[0] is None


def _rows(inputs: Mapping[str, Array]) -> int:
    """Return the number of rows that all inputs have, 0 if they have not the same."""
    counts = {len(array) if array.ndim else -1 for array in inputs.values()}
    return max(0, counts.pop()) if len(counts) == 1 else 0
