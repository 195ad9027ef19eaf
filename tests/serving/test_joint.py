"""Several requests with one reply: all answers in order, or the first error, once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import ServingError, internal
from servable.core.messages import InferRequest, InferResponse, ModelRef, Reply
from servable.serving.joint import Answers, submit_all


class Part:
    """A request in work."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Path:
    """A request path that keeps what it is given until it is told to answer. ``at_once`` are refused by ``submit``."""

    def __init__(self, at_once: frozenset[int] = frozenset()) -> None:
        self.replies: list[Reply] = []
        self.parts: list[Part] = []
        self._at_once = at_once

    def submit(self, request: InferRequest, reply: Reply) -> Part | None:
        index = len(self.replies)
        self.replies.append(reply)
        self.parts.append(Part())
        if index in self._at_once:
            reply(internal(f"error {index}"))
            return None
        return self.parts[index]


def requests(count: int) -> list[InferRequest]:
    return [InferRequest(ModelRef("m", 1), {}, str(index)) for index in range(count)]


def response(index: int) -> InferResponse:
    return InferResponse(ModelRef("m", 1), str(index), {})


@given(st.data())
def test_one_reply_whatever_comes_in_whatever_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    order = data.draw(st.permutations(range(count)))
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    path = Path()
    given_replies: list[Answers | ServingError] = []
    submit_all(path, requests(count), given_replies.append)
    for index in order:
        path.replies[index](internal(f"error {index}") if index in bad else response(index))
    (outcome,) = given_replies
    first_bad = next((index for index in order if index in bad), None)
    if first_bad is None:
        assert not isinstance(outcome, ServingError)
        assert [answer.signature for answer in outcome] == [str(index) for index in range(count)]
    else:
        assert isinstance(outcome, ServingError)
        assert outcome.message == f"error {first_bad}"
        assert all(part.cancelled for part in path.parts)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_what_follows_a_request_that_is_refused_at_once_is_given_up(refused: int) -> None:
    path = Path(frozenset({refused}))
    outcomes: list[Answers | ServingError] = []
    submit_all(path, requests(3), outcomes.append)
    assert [str(outcome) for outcome in outcomes] == [f"INTERNAL: error {refused}"]
    assert all(part.cancelled for index, part in enumerate(path.parts) if index != refused)


def test_its_sender_gives_up_on_all() -> None:
    path = Path()
    outcomes: list[Any] = []
    submit_all(path, requests(3), outcomes.append).cancel()
    assert all(part.cancelled for part in path.parts)
    assert outcomes == []
