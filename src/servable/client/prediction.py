"""What a call returns: arrays by name, as attributes and as items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servable.core.messages import ModelRef
from servable.core.tensors import Array


class Prediction(Mapping[str, Array]):
    """The outputs of one call: ``r.probs`` or ``r["probs"]``. ``model`` names the version that answered, if told."""

    __slots__ = ("model", "outputs")

    def __init__(self, model: ModelRef, outputs: Mapping[str, Array]) -> None:
        self.model = model
        self.outputs = outputs

    def __getattr__(self, name: str) -> Array:
        """Return an output."""
        try:
            return self.outputs[name]
        except KeyError:
            raise AttributeError(f"no output is called {name!r}; there are {', '.join(self.outputs)}") from None

    def __getitem__(self, name: str) -> Array:
        """Return an output, also one whose name is no identifier."""
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.outputs)

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(self.outputs)

    def __repr__(self) -> str:
        """Return names, types and shapes."""
        outputs = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.outputs.items())
        version = "" if self.model.version is None else f"/{self.model.version}"
        return f"<Prediction of {self.model.name}{version}: {outputs}>"
