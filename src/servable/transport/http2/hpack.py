"""Header compression (RFC 7541): a decoder that knows what each block did to its table, and an encoder without a table.

The encoder never inserts, so what it makes depends on no connection: a block is encoded once and sent for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from servable.transport.exchange import Field
from servable.transport.http2 import huffman

_STATIC_TEXT = """:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|
:status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|
content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|
last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|
server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"""


def _static() -> tuple[Field, ...]:
    entries = (entry.strip().partition(" ") for entry in _STATIC_TEXT.split("|"))
    return tuple((name.encode(), value.encode()) for name, _, value in entries)


STATIC: tuple[Field, ...] = ((b"", b""), *_static())
"""The static table; entry 0 does not exist and is never handed out."""
_LAST_STATIC = len(STATIC) - 1
_STATIC_SIZES = tuple(len(name) + len(value) + 32 for name, value in STATIC)
_INDEX_OF_FIELD = {field: index for index, field in reversed(list(enumerate(STATIC))) if index}
_INDEX_OF_NAME = {field[0]: index for index, field in reversed(list(enumerate(STATIC))) if index}

DEFAULT_TABLE_SIZE = 4096
_MAX_INTEGER = 2**31
_MAX_SIZE_UPDATES = 2
_MEMO_TEXT = 64
_MEMO_ENTRIES = 4096
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
_plain_texts: dict[bytes, bytes] = {}
"""Short Huffman texts seen before, of all connections; never secrets."""


class HpackError(ValueError):
    """The block cannot be decoded. The table is lost, and with it the connection."""


class HeaderListTooLongError(HpackError):
    """The fields exceed the hard limit: someone is inflating them on purpose."""


def _integer(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """Return the integer whose prefix was all ones, and the position after it."""
    value = prefix
    for shift in range(0, 35, 7):
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            if value >= _MAX_INTEGER:
                break
            return value, position
    raise HpackError("an integer is too large")


class Decoder:
    """The receiving half of one connection's compression state.

    Fields beyond the soft limits are left out of the result, but still change the table: ``overflow`` tells.
    """

    __slots__ = (
        "_hard",
        "_limit",
        "_max_fields",
        "_room",
        "_sizes",
        "_soft",
        "_table",
        "dynamic",
        "generation",
        "list_size",
        "mutated",
        "overflow",
        "secret",
    )

    def __init__(self, soft_limit: int = 16384, hard_limit: int = 65536, max_fields: int = 256) -> None:
        self._soft = soft_limit
        self._hard = hard_limit
        self._max_fields = max_fields
        self._table: list[Field] = []  # the newest entry is the last
        self._sizes: list[int] = []
        self._limit = DEFAULT_TABLE_SIZE
        self._room = DEFAULT_TABLE_SIZE
        self.generation = 0
        self.list_size = 0
        self.mutated = False
        """The last block changed the table: what it means now is not what the same bytes would mean again."""
        self.dynamic = False
        """The last block referred to the table: its meaning holds for this ``generation`` only."""
        self.secret = False
        """The last block held credentials or something the sender wants never indexed."""
        self.overflow = False

    @property
    def table(self) -> list[Field]:
        """The dynamic table, newest entry first."""
        return self._table[::-1]

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields in order; the attributes then describe this block."""
        self.mutated = self.dynamic = self.secret = self.overflow = False
        try:
            fields, position = self._fields(block)
        except IndexError:
            raise HpackError("a block is cut short, or refers to an entry that does not exist") from None
        except huffman.HuffmanError as error:
            raise HpackError(str(error)) from None
        if position > len(block):
            raise HpackError("a string runs past the end of its block")
        if self.list_size > self._soft or len(fields) > self._max_fields:
            self.overflow = True
            del fields[self._max_fields :]
        return fields

    def _fields(self, block: bytes) -> tuple[list[Field], int]:
        fields: list[Field] = []
        table = self._table
        sizes = self._sizes
        soft = self._soft
        total = 0
        end = len(block)
        position = self._size_updates(block) if end and block[0] & 0xE0 == 0x20 else 0
        reference = 0
        while position < end:
            octet = block[position]
            position += 1
            if octet >= 0x80:
                index = octet & 0x7F
                if index == 0x7F:
                    index, position = _integer(block, position, 0x7F)
                if index > _LAST_STATIC:
                    index = reference = _LAST_STATIC - index
                    field = table[index]
                    total += sizes[index]
                elif index:
                    field = STATIC[index]
                    total += _STATIC_SIZES[index]
                else:
                    raise HpackError("index 0 does not exist")
            else:
                field, position = self._literal(block, position, octet)
                total += len(field[0]) + len(field[1]) + 32
            if total <= soft:
                fields.append(field)
            elif total > self._hard:
                raise HeaderListTooLongError("the header list is far above the limit")
        self.list_size = total
        if reference:
            self.dynamic = True
        return fields, position

    def _size_updates(self, block: bytes) -> int:
        """Apply the updates that begin a block and return where its fields begin."""
        position = updates = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size = block[position] & 0x1F
            position += 1
            if size == 0x1F:
                size, position = _integer(block, position, 0x1F)
            updates += 1
            if size > DEFAULT_TABLE_SIZE or updates > _MAX_SIZE_UPDATES:
                raise HpackError("a table size update is above the limit or one too many")
            self._room += size - self._limit
            self._limit = size
            self._evict()
            self._changed()
        return position

    def _literal(self, block: bytes, position: int, octet: int) -> tuple[Field, int]:
        if octet & 0x40:
            prefix = 0x3F
        elif octet & 0x20:
            raise HpackError("a table size update follows a field")
        else:
            prefix = 0x0F
        index = octet & prefix
        if index == prefix:
            index, position = _integer(block, position, prefix)
        if not index:
            length = block[position]
            position += 1
            if length < 0x7F:
                name = block[position : position + length]
                position += length
            else:
                name, position = _string(block, position, length, memo=True)
        elif index > _LAST_STATIC:
            name = self._table[_LAST_STATIC - index][0]
            self.dynamic = True
        else:
            name = STATIC[index][0]
        if name in _SECRET or octet & 0x50 == 0x10:
            self.secret = True
        length = block[position]
        position += 1
        if length < 0x7F:
            value = block[position : position + length]
            position += length
        else:
            public = octet & 0x50 != 0x10 and name not in _SECRET and not name.endswith(b"-bin")
            value, position = _string(block, position, length, memo=public)
        field = (name, value)
        if octet & 0x40:
            self._insert(field)
        return field, position

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + 32
        self._table.append(field)
        self._sizes.append(size)
        self._room -= size
        if self._room < 0:
            self._evict()
        self._changed()

    def _evict(self) -> None:
        sizes = self._sizes
        count = 0
        while self._room < 0 and count < len(sizes):
            self._room += sizes[count]
            count += 1
        del sizes[:count]
        del self._table[:count]

    def _changed(self) -> None:
        self.generation += 1
        self.mutated = True


def _string(block: bytes, position: int, length: int, *, memo: bool) -> tuple[bytes, int]:
    """Read a string that is long or Huffman-coded. ``length`` is its first octet, ``position`` is behind that."""
    coded = length & 0x80
    length &= 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, 0x7F)
    end = position + length
    text = block[position:end]
    if end > len(block):
        raise HpackError("a string runs past the end of its block")
    if not coded:
        return text, end
    plain = _plain_texts.get(text)
    if plain is None:
        plain = huffman.decode(text)
        if memo and length <= _MEMO_TEXT:
            if len(_plain_texts) >= _MEMO_ENTRIES:
                _plain_texts.clear()
            _plain_texts[text] = plain
    return plain, end


def encode_integer(value: int, prefix: int, flags: int) -> bytes:
    """Return ``value`` with ``prefix`` (all ones, e.g. 0x7F) as its first octet's share, beside ``flags``."""
    if value < prefix:
        return bytes((flags | value,))
    octets = bytearray((flags | prefix,))
    value -= prefix
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def encode_block(fields: Iterable[Field]) -> bytes:
    """Return a header block that uses and changes no table: static entries and literals, credentials never indexed."""
    pieces = []
    for field in fields:
        index = _INDEX_OF_FIELD.get(field)
        if index is not None:
            pieces.append(bytes((0x80 | index,)))
            continue
        name, value = field
        pieces.append(encode_integer(_INDEX_OF_NAME.get(name, 0), 0x0F, 0x10 if name in _SECRET else 0x00))
        if name not in _INDEX_OF_NAME:
            pieces += (encode_integer(len(name), 0x7F, 0), name)
        pieces += (encode_integer(len(value), 0x7F, 0), value)
    return b"".join(pieces)
