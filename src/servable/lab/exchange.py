"""One question and what became of it: the words that senders, wires and recordings share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from servable.core.tensors import Array
from servable.transport.exchange import RequestHead
from servable.transport.reply import Reply

Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Sample:
    """The tensors of one request and, if known, the right answer."""

    inputs: Tensors
    expected: Tensors | None = None

    @property
    def rows(self) -> int:
        """Return the size of the first dimension, which the inputs share; 1 where there is none."""
        sizes = [array.shape[0] for array in self.inputs.values() if array.ndim]
        return sizes[0] if sizes else 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as bytes, ready to be sent many times, and what its answer must be."""

    head: RequestHead
    body: bytes
    rows: int = 1
    expected: Tensors | bytes | None = None
    encode_ns: int = 0


class Fault(NamedTuple):
    """Why an answer does not count: a code for reports to count by, and the text of the one that came first."""

    code: str
    message: str


class Told(NamedTuple):
    """What a server said of the time it took, in ns; -1 where it said nothing."""

    queue_ns: int = -1
    compute_ns: int = -1


class Wire(Protocol):
    """How one protocol asks, and what its replies mean. Knows no socket; travels to client processes."""

    @property
    def multiplexed(self) -> bool:
        """Whether many requests share a connection (HTTP/2)."""

    def prepare(self, sample: Sample) -> Prepared:
        """Return the bytes of a request."""

    def fault(self, reply: Reply) -> Fault | None:
        """Return the error that a reply is, wherever the protocol hides it; ``None`` for success."""

    def outputs(self, reply: Reply) -> Tensors | bytes:
        """Return the answer in a successful reply; ``ServingError`` if it cannot be read."""


def mean_size(prepared: Sequence[Prepared]) -> float:
    """Return the mean size of the bodies in bytes."""
    return sum(len(one.body) for one in prepared) / max(1, len(prepared))
