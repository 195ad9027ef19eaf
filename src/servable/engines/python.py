"""Python as an engine: ``model.py`` with a class that has ``predict`` and, if it likes, ``load``. Runs in a child.

from servable import Tensor

class Doubler:
    def predict(self, x: Tensor["float32", "n"]) -> Tensor["float32", "n"]:
        return 2 * x
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from servable.core.errors import failed_precondition, unavailable
from servable.core.signatures import DEFAULT_SIGNATURE, Signature
from servable.core.tensors import Array
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.python_code import declared_uses, import_file, incomplete, load_failure
from servable.engines.python_function import Function
from servable.engines.python_hints import read_form
from servable.engines.python_models import Models, Turns


class PythonModel(Model):
    """An object of the user's class."""

    engine = "python"

    def __init__(self, served: Any, predict: Function, uses: tuple[str, ...] = ()) -> None:
        self.uses = uses
        self._served = served
        self._predict: Function | None = predict
        form = predict.form
        self.signatures = {
            DEFAULT_SIGNATURE: Signature(
                DEFAULT_SIGNATURE,
                form.input_specs(),
                form.output_specs(),
                defaults=form.defaults,
                streamed=form.streamed,
            )
        }

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Call ``predict`` and return what was asked for of its outputs."""
        results = self._open(signature)(inputs)
        return {name: results[name] for name in outputs}

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        """Call ``predict`` and pass on what it yields."""
        predict = self._open(signature)
        if not predict.form.streamed:
            yield self.run(signature, inputs, outputs)
            return
        parts = predict.parts(inputs)
        try:
            for part in parts:
                yield {name: part[name] for name in outputs}
        finally:
            parts.close()

    def _open(self, signature: str) -> Function:
        if self._predict is None:
            raise unavailable(f"the model is closed; {signature} cannot be called")
        return self._predict

    def close(self) -> None:
        """Let go of the object."""
        if self._predict is not None:
            self._predict.close()
        self._predict = None
        self._served = None


class PythonEngine(Engine):
    """Runs the one class of a ``model.py``."""

    name = "python"
    kinds = frozenset({"python"})
    isolated = True

    @classmethod
    def installed(cls) -> bool:
        """Python is always there."""
        return True

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """A file that parses may be whole; nothing proves more."""
        return incomplete(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Import the file, make an object of its class and call its ``load``, if it has one."""
        if options.precision != "f32":
            raise failed_precondition(f"Python computes as it is written; it has no precision {options.precision!r}")
        path = artifact.path.absolute()
        served_class = find_class(import_file(path), path)
        title = f"predict of {served_class.__name__}"
        try:
            served = served_class()
        except BaseException as error:  # noqa: BLE001  # the user's code
            raise load_failure(f"{served_class.__name__}() in {path} failed", error) from None
        form = read_form(served.predict, title, may_yield=True)
        turns = Turns()
        uses = _uses(served_class, path)
        if uses:
            served.models = Models(served_class.__name__, uses, options.link, turns)
        _call_load(served, path)
        return PythonModel(served, Function(served.predict, form, turns=turns), uses)


def find_class(module: ModuleType, path: Path) -> type[Any]:
    """Return the one class with ``predict`` that a file defines; names that begin with ``_`` do not count."""
    found = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and callable(getattr(value, "predict", None))
    ]
    found = list(dict.fromkeys(found))
    if not found:
        raise failed_precondition(f"{path} defines no class with a method predict")
    if len(found) > 1:
        names = " and ".join(each.__name__ for each in found)
        raise failed_precondition(
            f"{path} defines several classes with a method predict, {names}: "
            "one file is one model; begin the names of the others with an underscore"
        )
    return found[0]


def _uses(served_class: type[Any], path: Path) -> tuple[str, ...]:
    """Return the models that a class says it calls; what the server read before it ran the file must be the same."""
    uses = declared_uses(path)
    if sorted(set(getattr(served_class, "uses", ()))) != sorted(uses):
        raise failed_precondition(
            f"uses of {served_class.__name__} in {path} is not what its class body says; "
            'write the names of the models out there, as in uses = ["lstm"]'
        )
    return uses


def _call_load(served: Any, path: Path) -> None:
    load = getattr(served, "load", None)
    if load is None:
        return
    title = f"load of {type(served).__name__} in {path}"
    if inspect.iscoroutinefunction(load):
        raise failed_precondition(f"{title} is a coroutine; expected a plain method")
    arguments = [path.parent] if inspect.signature(load).parameters else []
    try:
        load(*arguments)
    except BaseException as error:  # noqa: BLE001  # the user's code
        raise load_failure(f"{title} failed", error) from None
