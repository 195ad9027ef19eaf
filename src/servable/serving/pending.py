"""A request between its acceptance and its reply."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from servable.core.messages import Reply
from servable.core.tensors import Array
from servable.lifecycle.manager import LoadedVersion


class Pending:
    """What the queue, the engine and the deadline watch must know of a request; and how its sender gives up on it.

    ``reply`` becomes ``None`` when it has been called.
    """

    __slots__ = (
        "abandoned",
        "added",
        "deadline",
        "inline_rows",
        "inputs",
        "key",
        "loaded",
        "outputs",
        "reply",
        "rows",
        "signature",
    )

    def __init__(
        self,
        loaded: LoadedVersion,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        reply: Reply | None,
        deadline: float | None,
    ) -> None:
        self.loaded = loaded
        self.signature = signature
        self.inputs = inputs
        self.outputs = outputs
        self.reply = reply
        self.deadline = deadline
        self.key: Hashable | None = None
        self.rows = 1
        self.inline_rows = 0
        self.added = 0.0
        self.abandoned = False

    def cancel(self) -> None:
        """Give up: if still queued it is never computed; the reply is then called with an error that nobody reads."""
        self.abandoned = True
