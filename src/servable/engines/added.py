"""A model with further signatures, which compute by means of its own: what stands in a ``servable.toml`` beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol, TypeAlias

from servable.core.signatures import Signature
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines.base import Caller, Model

Compute: TypeAlias = Callable[[str, Mapping[str, Array], Sequence[str]], dict[str, Array]]
"""A model's own ``run``."""


class Added(Protocol):
    """A signature that is not the model's own."""

    @property
    def signature(self) -> Signature:
        """As clients call it."""

    def run(self, compute: Compute, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs."""


class ExtendedModel(Model):
    """A model with further signatures; takes the model over."""

    def __init__(self, model: Model, added: Mapping[str, Added]) -> None:
        self.engine = model.engine
        self.precision = model.precision
        self.concurrent = model.concurrent
        self.uses = model.uses
        self.signatures = {**model.signatures, **{name: each.signature for name, each in added.items()}}
        self._model = model
        self._added = added

    def calling(self, caller: Caller) -> Model:
        """Let the model call others."""
        return ExtendedModel(self._model.calling(caller), self._added)

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute by the model, or by what was added."""
        added = self._added.get(signature)
        if added is None:
            return self._model.run(signature, inputs, outputs)
        return added.run(self._model.run, inputs, outputs)

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        """Compute in parts where the model does."""
        if signature in self._added:
            yield self.run(signature, inputs, outputs)
        else:
            yield from self._model.stream(signature, inputs, outputs)

    def begin_profile(self) -> bool:
        """Let the model begin."""
        return self._model.begin_profile()

    def end_profile(self) -> list[Span]:
        """Return what the model noted."""
        return self._model.end_profile()

    def begin_serving(self) -> None:
        """Tell the model: one in a process of its own was loaded at a lower priority."""
        self._model.begin_serving()

    def close(self) -> None:
        """Close the model."""
        self._model.close()
