"""The process that holds one artifact under one configuration while it is measured; ``probe`` is its parent.

Orders come as lines of JSON on standard input, answers go as lines on what was standard output. What frameworks print
goes to standard error. Nothing here is imported beyond what a server imports to load a model: it would be counted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import invalid_argument
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.engines import plan
from servable.engines.base import Artifact, EngineOptions, Model, engine_class
from servable.forge.apart import answering, failure

_PATIENCE: Final = 4
"""How many times its budget a batch may take until ``least`` runs are done; then one run must do."""
_OFFSETS: Final = 4
"""How many different batches of one size are run in turn."""


class Subject:
    """The model, and what is asked of it. Each method is an order; it returns JSON."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._signature: Signature | None = None
        self._rows: Mapping[str, Array] = {}
        self._last_s: dict[int, float] = {}

    def load(self, artifact: list[Any], options: dict[str, Any], choice: list[Any], *, as_served: bool) -> Any:
        """Load it, and say what that took. ``choice`` is engine and precision."""
        kind, path, settings = artifact
        found = Artifact(kind, Path(path), settings=Path(settings) if settings else None)
        engine, precision = choice
        wanted = EngineOptions(**options, precision=precision, allow_python=True)
        maker = engine_class(engine)
        baseline = _own_bytes()
        before, began = os.times(), time.perf_counter()
        if not as_served:
            chosen = plan.Choice(engine, precision, isolated=False, reason="measured")
        else:
            chosen = plan.Choice(engine, precision, isolated=maker.isolated, reason="measured")
        self._model = plan.load(chosen, found, wanted)
        load_s, after = time.perf_counter() - began, os.times()
        self._signature = main_signature(self._model.signatures)
        return {
            "engine": self._model.engine,
            "load_s": load_s,
            "user_s": after.user - before.user + after.children_user - before.children_user,
            "system_s": after.system - before.system + after.children_system - before.children_system,
            "baseline_bytes": baseline,
            "signatures": [_described(one) for one in self._model.signatures.values()],
        }

    def feed(self, path: str, signature: str) -> Any:
        """Take the rows of a file, or make some up; for that signature, or the main one."""
        model = self._loaded()
        if signature:
            if signature not in model.signatures:
                raise invalid_argument(f"there is no signature {signature!r}; there are {', '.join(model.signatures)}")
            self._signature = model.signatures[signature]
        found = self._main()
        if path:
            from servable.forge.arrays import load

            (rows,) = load(Path(path))
        else:
            from servable.forge.samples import made_up

            rows = dict(made_up(found, 32).rows)
        self._rows = {name: spec.taken(rows[name]) for name, spec in found.inputs.items() if name in rows}
        return {"signature": found.name}

    def first(self, rows: int) -> Any:
        """Run one batch, once, and say how long it took."""
        batch = self._batch(rows, 0)
        began = time.perf_counter()
        self._run(batch)
        return {"seconds": time.perf_counter() - began}

    def time(self, rows: int, budget_s: float, least: int, most: int) -> Any:
        """Run batches of so many rows until the budget is spent; return the seconds of each."""
        batches = [self._batch(rows, offset * rows) for offset in range(_OFFSETS)]
        clock, run = time.perf_counter, self._run
        if self._last_s.get(rows, 0.0) < budget_s:
            run(batches[-1])  # what an engine prepares for a new shape, and what others left in the caches
        seconds: list[float] = []
        began = clock()
        while len(seconds) < most:
            start = clock()
            run(batches[len(seconds) % _OFFSETS])
            end = clock()
            seconds.append(end - start)
            spent = end - began
            if spent >= budget_s and (len(seconds) >= least or spent >= _PATIENCE * budget_s):
                break
        self._last_s[rows] = min(seconds)
        return {"seconds": seconds}

    def answer(self, asked: str, signatures: list[str], answered: str, probes: list[bool]) -> Any:
        """Answer the questions in one file into another."""
        from servable.forge.arrays import load, save
        from servable.forge.verify import Question, answers

        questions = [
            Question(name, 0, inputs, probe)
            for name, inputs, probe in zip(signatures, load(Path(asked)), probes, strict=True)
        ]
        save(Path(answered), answers(self._loaded(), questions))
        return {}

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()

    def _loaded(self) -> Model:
        assert self._model is not None, "nothing was loaded"
        return self._model

    def _main(self) -> Signature:
        if self._signature is None:
            raise invalid_argument("the model has no signature that takes inputs and gives outputs")
        return self._signature

    def _run(self, batch: Mapping[str, Array]) -> None:
        found = self._main()
        self._loaded().run(found.name, batch, tuple(found.outputs))

    def _batch(self, rows: int, start: int) -> dict[str, Array]:
        for spec in self._main().inputs.values():
            if spec.shape and spec.shape[0] is not None and spec.shape[0] != rows:
                raise invalid_argument(f"the model takes batches of {spec.shape[0]}, not of {rows}")
        batch = dict(self._main().defaults)
        for name, array in self._rows.items():
            whole = array.ndim == 0
            batch[name] = array if whole else np.ascontiguousarray(array[np.arange(start, start + rows) % len(array)])
        return batch


def _described(signature: Signature) -> list[Any]:
    sides = [
        [[spec.name, spec.dtype.name, spec.shape, spec.node] for spec in specs.values()]
        for specs in (signature.inputs, signature.outputs)
    ]
    return [signature.name, *sides, sorted(signature.defaults), signature.streamed]


def main_signature(signatures: Mapping[str, Signature]) -> Signature | None:
    """Return the signature that requests mean which name none; else the first that takes and gives something."""
    able = {name: one for name, one in signatures.items() if one.inputs and one.outputs}
    return able.get(DEFAULT_SIGNATURE) or next(iter(able.values()), None)


def _own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Obey until there is nobody to obey."""
    answers = answering(int(sys.argv[1]))
    if answers is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    subject = Subject()
    for line in sys.stdin:
        order = json.loads(line)
        method: Callable[..., Any] = getattr(subject, order.pop("order"))
        try:
            answer = {"ok": method(**order)}
        except Exception as error:  # noqa: BLE001  # frameworks raise what they like
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")
    subject.close()
    answers.flush()
    os._exit(0)  # tearing frameworks down takes time and may crash


if __name__ == "__main__":
    main()
