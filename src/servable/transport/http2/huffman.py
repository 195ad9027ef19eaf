"""The Huffman code of HPACK (RFC 7541, appendix B), decoded a byte at a time.

The code is canonical, so the lengths of its 257 words are all there is to know: letter ``a`` means 5 bits, ``z`` 30,
one letter a symbol, the end-of-string mark last. The rows of the decoding automaton are made when first entered:
ordinary text visits a few dozen of 256.
"""

from __future__ import annotations

_LENGTHS = (
    "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibccccccccccccccccccccccdcdioijb"
    "kabababbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrs"
    "vvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"
)
_END_OF_STRING = 256
_INVALID = -1


class HuffmanError(ValueError):
    """The bytes are no Huffman text."""


def _canonical() -> list[tuple[int, int]]:
    """Return (code, bits) for each symbol: shorter words first, then by symbol."""
    words: list[tuple[int, int]] = [(0, 0)] * len(_LENGTHS)
    code = last = 0
    for bits, symbol in sorted((ord(letter) - ord("a") + 5, symbol) for symbol, letter in enumerate(_LENGTHS)):
        code <<= bits - last
        words[symbol] = (code, bits)
        code += 1
        last = bits
    return words


_WORDS = _canonical()
_SYMBOLS = {1 << bits | code: symbol for symbol, (code, bits) in enumerate(_WORDS)}
_PADDING = frozenset((1 << bits + 1) - 1 for bits in range(8))
"""States in which a text may end: a proper prefix of the end-of-string mark, shorter than a byte."""


class _Rows(dict[int, list[tuple[bytes, int]]]):
    """State -> for each next byte the symbols it completes and the state after. A state is a 1 and the bits held."""

    def __missing__(self, state: int) -> list[tuple[bytes, int]]:
        if state == _INVALID:
            raise HuffmanError("the end-of-string mark appears inside a Huffman text")
        row = self[state] = [_step(state, octet) for octet in range(256)]
        return row


def _step(state: int, octet: int) -> tuple[bytes, int]:
    symbols = bytearray()
    for shift in range(7, -1, -1):
        state = state << 1 | octet >> shift & 1
        symbol = _SYMBOLS.get(state)
        if symbol is not None:
            if symbol == _END_OF_STRING:
                return b"", _INVALID
            symbols.append(symbol)
            state = 1
    return bytes(symbols), state


_ROWS = _Rows()


def decode(text: bytes) -> bytes:
    """Return the plain bytes; raise ``HuffmanError`` for a bad end or a forbidden mark."""
    rows = _ROWS
    state = 1
    pieces = []
    for octet in text:
        symbols, state = rows[state][octet]
        pieces.append(symbols)
    if state not in _PADDING:
        raise HuffmanError("a Huffman text ends in the middle of a symbol")
    return b"".join(pieces)
