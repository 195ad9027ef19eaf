"""A request between its acceptance and its reply, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import numpy as np

from servable.core.errors import ServingError
from servable.core.messages import Reply
from servable.core.tensors import Array
from servable.lifecycle.manager import LoadedVersion
from servable.serving.execution import Outcome


class Pending:
    """What the queue, the engine and the deadline watch must know of a request; and how its sender gives up on it.

    ``reply`` becomes ``None`` when it has been called. ``callers`` are the models on whose behalf it was made.
    ``on_give_up``, if set, is called when its sender gives up: what is being computed for it may stop.
    """

    __slots__ = (
        "abandoned",
        "added",
        "callers",
        "deadline",
        "inline_rows",
        "inputs",
        "key",
        "loaded",
        "on_give_up",
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
        self.callers: tuple[str, ...] = ()
        self.on_give_up: Callable[[], None] | None = None

    @property
    def request(self) -> Pending:
        """Return the whole request."""
        return self

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.abandoned

    def cancel(self) -> None:
        """Give up: if still queued it is never computed; the reply is then called with an error that nobody reads."""
        if not self.abandoned:
            self.abandoned = True
            self.told_to_give_up()

    def told_to_give_up(self) -> None:
        """Let what is computed for it know."""
        told, self.on_give_up = self.on_give_up, None
        if told is not None:
            told()

    def cut(self, sizes: list[int]) -> list[Pending | Part]:
        """Return parts of so many rows each. The request is answered when the last of them is."""
        parts = Parts(self, len(sizes))
        begins = np.cumsum([0, *sizes[:-1]]).tolist()
        return [Part(parts, index, begin, size) for index, (begin, size) in enumerate(zip(begins, sizes, strict=True))]


class Part:
    """Some rows of a request that was cut."""

    __slots__ = ("_parts", "added", "index", "inline_rows", "inputs", "key", "outputs", "rows", "signature")

    def __init__(self, parts: Parts, index: int, begin: int, rows: int) -> None:
        whole = parts.whole
        self._parts = parts
        self.index = index
        self.signature = whole.signature
        self.inputs = {name: array[begin : begin + rows] for name, array in whole.inputs.items()}
        self.outputs = whole.outputs
        self.rows = rows
        self.key = whole.key
        self.inline_rows = whole.inline_rows
        self.added = whole.added

    @property
    def request(self) -> Pending:
        """Return the whole request."""
        return self._parts.whole

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the whole any more."""
        return self._parts.whole.abandoned

    def cut(self, sizes: list[int]) -> list[Pending | Part]:
        """Parts are never cut again."""
        raise NotImplementedError

    def settle(self, outcome: Outcome, began: float, seconds: float) -> Settled | None:
        """Take this part's outcome; return the request with its own once all parts have theirs."""
        return self._parts.settle(self.index, outcome, began, seconds)


class Parts:
    """What is known of the parts of one request: their outcomes are joined in order, the first error wins."""

    __slots__ = ("_began", "_left", "_outcomes", "_seconds", "whole")

    def __init__(self, whole: Pending, count: int) -> None:
        self.whole = whole
        self._outcomes: list[Outcome | None] = [None] * count
        self._left = count
        self._began = float("inf")
        self._seconds = 0.0

    def settle(self, index: int, outcome: Outcome, began: float, seconds: float) -> Settled | None:
        """See ``Part.settle``. The request began with its first part and computed for as long as all together."""
        self._outcomes[index] = outcome
        self._began = min(self._began, began)
        self._seconds += seconds
        self._left -= 1
        if self._left:
            return None
        return self.whole, self._joined(), self._began, self._seconds

    def _joined(self) -> Outcome:
        results: list[Mapping[str, Array]] = []
        for outcome in self._outcomes:
            if isinstance(outcome, ServingError):
                return outcome
            assert outcome is not None
            results.append(outcome)
        return {name: np.concatenate([part[name] for part in results]) for name in self.whole.outputs}


Work = Pending | Part
"""What is queued and computed."""
Settled = tuple[Pending, Outcome, float, float]
"""A request whose work has ended: its outcome, when its first batch began, and how long it was computed."""
