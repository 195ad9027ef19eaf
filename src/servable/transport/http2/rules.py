"""The rules that a frame must keep whatever its stream is doing (RFC 9113, section 6), most by its header alone."""

from __future__ import annotations

from servable.transport.http2 import frames
from servable.transport.http2.errors import PeerError, protocol_error

_MAX_SETTINGS = 32
_MIN_GOAWAY = 8
_PRIORITY_SIZE = 5

# kind -> (must the stream id be 0?, the only size allowed)
_RULES: dict[int, tuple[bool | None, int | None]] = {
    frames.DATA: (False, None),
    frames.HEADERS: (False, None),
    frames.PRIORITY: (False, _PRIORITY_SIZE),
    frames.RST_STREAM: (False, 4),
    frames.SETTINGS: (True, None),
    frames.PING: (True, 8),
    frames.GOAWAY: (True, None),
    frames.WINDOW_UPDATE: (None, 4),
    frames.CONTINUATION: (False, None),
}


def check_header(kind: int, flags: int, stream_id: int, size: int) -> None:
    """Raise ``PeerError`` if a frame header breaks a rule of its type. Unknown types have none."""
    if kind > frames.CONTINUATION:
        return
    if kind == frames.PUSH_PROMISE:
        raise protocol_error("nobody may push")
    on_zero, exact = _RULES[kind]
    if on_zero is not None and on_zero != (stream_id == 0):
        raise protocol_error("frame on the wrong stream")
    if exact is None:
        exact_or_least = _least(kind, flags, size)
        if size < exact_or_least:
            raise PeerError(frames.FRAME_SIZE_ERROR, "frame too short")
    elif size != exact:
        raise PeerError(frames.FRAME_SIZE_ERROR, "frame has the wrong size")


def _least(kind: int, flags: int, size: int) -> int:
    """Return the least size of a frame, or raise for sizes that are wrong for other reasons."""
    if kind in (frames.DATA, frames.HEADERS):
        least = 1 if flags & frames.PADDED else 0
        return least + (_PRIORITY_SIZE if kind == frames.HEADERS and flags & frames.PRIORITIZED else 0)
    if kind == frames.GOAWAY:
        return _MIN_GOAWAY
    if kind == frames.SETTINGS:
        if size % 6 or (flags & frames.ACK and size):
            raise PeerError(frames.FRAME_SIZE_ERROR, "SETTINGS has the wrong size")
        if size > 6 * _MAX_SETTINGS:
            raise PeerError(frames.ENHANCE_YOUR_CALM, "too many settings")
    return 0


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the entries in order, unknown ones too; raise for a value out of range."""
    entries = list(frames.SETTING.iter_unpack(payload))
    for key, value in entries:
        if key == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise PeerError(frames.FLOW_CONTROL_ERROR, "initial window too large")
        elif key == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_MAX_FRAME <= value <= frames.MAX_MAX_FRAME:
                raise protocol_error("frame size out of range")
        elif key in _BOOLEAN and value > 1:
            raise protocol_error("setting is neither 0 nor 1")
    return entries


_BOOLEAN = frozenset((frames.ENABLE_PUSH, frames.ENABLE_CONNECT_PROTOCOL, frames.NO_RFC7540_PRIORITIES))


def check_lasting(before: dict[int, int], key: int, value: int) -> None:
    """Raise if a setting changes that may not; ``before`` keeps what was said."""
    if key == frames.ENABLE_CONNECT_PROTOCOL and before.get(key, 0) > value:
        raise protocol_error("extended CONNECT cannot be taken back")
    if key == frames.NO_RFC7540_PRIORITIES and before.get(key, value) != value:
        raise protocol_error("the priority scheme cannot change")
    if key in _BOOLEAN:
        before[key] = value


def unpad(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return the bounds of a padded DATA payload without its padding."""
    end = stop - data[start]
    if end <= start:
        raise protocol_error("padding longer than the frame")
    return start + 1, end


def check_priority(payload: bytes, stream_id: int) -> None:
    """Priorities are not used; a stream that depends on itself is still an attack."""
    if int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID == stream_id:
        raise protocol_error("stream depends on itself")
