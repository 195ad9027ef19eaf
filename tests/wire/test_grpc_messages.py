"""The messages of a stream: found however their bytes are cut, compressed where that pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.wire.grpc import decompress, wrap_message
from servable.wire.grpc_messages import LEAST_COMPRESSED, MessageBuffer, pack_message


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans())), st.data())
def test_any_cut_gives_the_same_messages(messages: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    stream = b"".join(bytes((flag,)) + wrap_message(message)[1:] for message, flag in messages)
    buffer = MessageBuffer()
    found = []
    position = 0
    while position < len(stream):
        end = data.draw(st.integers(position + 1, len(stream)))
        buffer.add(stream[position:end])
        position = end
        while not buffer.missing():
            found.append(buffer.take())
        assert position + buffer.missing() <= len(stream) or buffer.empty, "what is missing is never more than comes"
    assert found == messages
    assert buffer.empty
    buffer.check_end()


def test_what_is_missing() -> None:
    buffer = MessageBuffer()
    for part, missing in ((b"", 5), (b"\0\0\0", 2), (b"\0\7", 7), (b"1234", 3), (b"567\1", 0)):
        buffer.add(part)
        assert buffer.missing() == missing
    assert buffer.take() == (b"1234567", False)
    assert buffer.missing() == 4


@pytest.mark.parametrize(
    ("prefix", "code", "text"),
    [
        (b"\0\0\0\0\x0b", Code.RESOURCE_EXHAUSTED, "(11 vs. 10)"),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED, "(4294967295 vs. 10)"),
        (b"\x02\0\0\0\1", Code.INTERNAL, "payload format 2"),
    ],
)
def test_a_prefix_is_judged_before_its_message_comes(prefix: bytes, code: Code, text: str) -> None:
    buffer = MessageBuffer(10)
    buffer.add(wrap_message(bytes(10)))
    assert buffer.missing() == 0, "the limit itself is allowed"
    buffer.take()
    buffer.add(prefix)
    for _ in range(2):
        with pytest.raises(ServingError) as failure:
            buffer.missing()
        assert failure.value.code is code
        assert text in failure.value.message


@pytest.mark.parametrize(("rest", "text"), [(b"\0\0", "2 bytes came of a 5-byte prefix"), (b"\0\0\0\0\3ab", "2 bytes")])
def test_an_end_inside_a_message(rest: bytes, text: str) -> None:
    buffer = MessageBuffer()
    buffer.add(wrap_message(b"whole") + rest)
    assert not buffer.missing()
    buffer.take()
    assert buffer.missing()
    with pytest.raises(ServingError, match=text) as failure:
        buffer.check_end()
    assert failure.value.code is Code.INTERNAL


@given(st.binary(max_size=300), st.integers(1, 400), st.sampled_from([b"gzip", b"deflate"]))
def test_packed_messages_are_the_same_and_never_larger(seed: bytes, times: int, encoding: bytes) -> None:
    message = seed * times
    packed = pack_message(message, encoding)
    content = decompress(packed[5:], encoding) if packed[0] else packed[5:]
    assert content == message
    assert len(packed) <= len(message) + 5
    assert packed[0] == 0 or len(message) >= LEAST_COMPRESSED
