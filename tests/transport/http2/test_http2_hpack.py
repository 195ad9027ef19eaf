"""Our HPACK against the ``hpack`` package: every representation, every error, the same table after every block."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st

from servable.transport.http2 import huffman
from servable.transport.http2.blocks import BlockCache, HeaderBlocks
from servable.transport.http2.errors import PeerError
from servable.transport.http2.hpack import (
    STATIC,
    Decoder,
    HeaderListTooLongError,
    HpackError,
    encode_block,
    encode_integer,
)
from servable.transport.limits import Limits

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
texts = st.one_of(st.binary(max_size=12), st.sampled_from([b"", b"a" * 126, b"b" * 127, b"c" * 128, b"d" * 1500]))


def string(text: bytes, coded: bool) -> bytes:
    text_or_code = _huffman.encode(text) if coded else text
    return encode_integer(len(text_or_code), 0x7F, 0x80 if coded else 0) + text_or_code


@st.composite
def literals(draw: st.DrawFn) -> bytes:
    prefix, flags = draw(st.sampled_from([(0x3F, 0x40), (0x0F, 0x00), (0x0F, 0x10)]))
    index = draw(st.one_of(st.just(0), st.integers(1, 70)))
    name = b"" if index else string(draw(texts), draw(st.booleans()))
    return encode_integer(index, prefix, flags) + name + string(draw(texts), draw(st.booleans()))


indexed = st.one_of(st.integers(1, 61), st.integers(62, 68)).map(lambda index: encode_integer(index, 0x7F, 0x80))
updates = st.lists(st.integers(0, 4096).map(lambda size: encode_integer(size, 0x1F, 0x20)), max_size=2).map(b"".join)
fields = st.lists(st.one_of(indexed, literals()), max_size=12).map(b"".join)
blocks = st.one_of(fields, st.tuples(updates, fields).map(b"".join))


def reference() -> hpack.Decoder:
    decoder = hpack.Decoder(max_header_list_size=2**24)
    decoder.max_allowed_table_size = 4096
    return decoder


def decode(decoder: Decoder | hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        if isinstance(decoder, Decoder):
            return decoder.decode(block)
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except (HpackError, hpack.HPACKError):
        return None


def roomy() -> Decoder:
    return Decoder(2**24, 2**24, 2**16)


@settings(max_examples=200, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=8))
def test_the_same_fields_errors_and_tables(sequence: list[bytes]) -> None:
    ours, theirs = roomy(), reference()
    for block in sequence:
        expected = decode(theirs, block)
        generation = ours.generation
        before = ours.table
        assert decode(ours, block) == expected
        if expected is None:
            return
        assert ours.table == list(theirs.header_table.dynamic_entries)
        assert ours.list_size == sum(len(name) + len(value) + 32 for name, value in expected)
        assert ours.mutated == (ours.generation != generation)
        assert ours.mutated or ours.table == before


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_never_accepted_where_the_reference_refuses(block: bytes) -> None:
    ours = decode(roomy(), block)
    assert ours is None or ours == decode(reference(), block)


@settings(max_examples=120, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=6), st.data())
def test_a_cut_block_is_refused_or_means_a_part(sequence: list[bytes], data: st.DataObject) -> None:
    block = b"".join(sequence)
    cut = block[: data.draw(st.integers(0, len(block)))]
    assert decode(roomy(), cut) == decode(reference(), cut) or decode(roomy(), cut) is None


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=12))
def test_what_we_encode_everybody_decodes(plain: list[tuple[bytes, bytes]]) -> None:
    block = encode_block(plain)
    ours = roomy()
    assert ours.decode(block) == plain
    assert not ours.mutated
    assert not ours.dynamic
    assert decode(reference(), block) == plain


@pytest.mark.parametrize("length", [126, 127, 128, 254, 255, 16384, 2**20])
def test_lengths_around_the_borders_of_integers_h018(length: int) -> None:
    plain = [(b"x-long", b"v" * length), (b"n" * length, b"")]
    assert decode(reference(), encode_block(plain)) == plain
    assert roomy().decode(encode_block(plain)) == plain


def test_secrets_are_never_indexed_and_known_fields_are_one_octet() -> None:
    assert encode_block([(b":status", b"200")]) == b"\x88"
    assert encode_block([(b"authorization", b"x")]) == b"\x1f\x08\x01x"
    assert encode_block([(b"content-type", b"a")]) == b"\x0f\x10\x01a"
    assert encode_block(STATIC[1:]) == bytes(0x80 | index for index in range(1, 62))


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=300))
def test_huffman_decodes_what_the_reference_encodes(text: bytes) -> None:
    assert huffman.decode(_huffman.encode(text)) == text


@pytest.mark.parametrize("symbol", range(256))
def test_every_symbol_alone(symbol: int) -> None:
    text = bytes((symbol,))
    assert huffman.decode(_huffman.encode(text)) == text
    assert roomy().decode(b"\0" + string(text, coded=True) + b"\0")[0][0] == text


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xff\xff\xff\xff", b"\x00", b"\xff\xff\xff\xfc"], ids=lambda text: text.hex()
)
def test_huffman_refuses_bad_padding(text: bytes) -> None:
    with pytest.raises(huffman.HuffmanError):
        huffman.decode(text)


def test_the_soft_limit_drops_fields_and_keeps_the_table_in_step() -> None:
    decoder = Decoder(soft_limit=200, hard_limit=10_000, max_fields=3)
    block = b"".join(b"\x40\x01a" + string(b"%d" % number * 20, coded=False) for number in range(20))
    kept = decoder.decode(block)
    overflows = [decoder.overflow]
    assert len(kept) <= 3
    assert decoder.table[0] == (b"a", b"19" * 20)
    assert decoder.decode(b"\xbe") == [(b"a", b"19" * 20)]
    overflows.append(decoder.overflow)
    assert decoder.decode(b"\x82" * 4) == [(b":method", b"GET")] * 3
    overflows.append(decoder.overflow)
    assert overflows == [True, False, True]


@pytest.mark.parametrize(
    "block", [b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 16384, b"\0\0\0" * 5461], ids=["H014", "H015"]
)
def test_bombs_end_at_the_hard_limit(block: bytes) -> None:
    with pytest.raises(HeaderListTooLongError):
        Decoder().decode(block)


def test_long_and_secret_texts_are_not_remembered() -> None:
    from servable.transport.http2.hpack import _plain_texts

    _plain_texts.clear()
    decoder = roomy()
    for name, value in [
        (b"authorization", b"secret"),
        (b"x-bin", b"AQID"),
        (b"x", b"y" * 200),
        (b"grpc-timeout", b"10S"),
    ]:
        decoder.decode(b"\0" + string(name, coded=False) + string(value, coded=True))
    decoder.decode(b"\x10" + string(b"never", coded=False) + string(b"indexed", coded=True))
    assert list(_plain_texts.values()) == [b"10S"]


@settings(max_examples=120, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1, max_size=24))
def test_a_cached_block_means_what_it_would_mean_decoded(pool: list[bytes], order: list[int]) -> None:
    cache: BlockCache[list[tuple[bytes, bytes]]] = BlockCache()
    limits = Limits(max_header_list=2**24, max_header_list_hard=2**24, max_header_fields=2**16)
    reading = HeaderBlocks(limits, cache)  # type: ignore[arg-type]
    uncached = roomy()
    for number in order:
        block = pool[number % len(pool)]
        expected = decode(uncached, block)
        got = cache.seen.get(block)
        if got is None:
            try:
                got = reading.decode(block)
            except PeerError:
                assert expected is None
                return
            cache.remember(block, got, reading.decoder)
        assert got == expected
        assert reading.decoder.table == uncached.table


def test_the_cache_is_bounded_and_keeps_no_large_or_secret_blocks() -> None:
    cache: BlockCache[int] = BlockCache()
    decoder = Decoder()
    for number in range(1000):
        block = encode_block([(b"x", b"%d" % number)])
        decoder.decode(block)
        cache.remember(block, number, decoder)
        assert len(cache.seen) <= 64
    cache.seen.clear()
    for refused in ([(b"x", b"v" * 512)], [(b"authorization", b"v" * 256)]):
        block = encode_block(refused)
        decoder.decode(block)
        cache.remember(block, 1, decoder)
    assert not cache.seen
