"""What OpenVINO says when it fails, cut to what helps a person."""

from __future__ import annotations

import re

_NOISE = re.compile(
    r"^(Exception from .*|Check '.*' failed at .*|FrontEnd API failed with .*|While validating node .*|Summary:"
    r"|Model wasn't fully converted.*"
    r"|-- .* with a message:|-- Conversion is failed for: .*|To facilitate the conversion .*)$"
)
_UNCONVERTED = re.compile(r"No conversion rule found for operations: (.+)")
_FAILED = re.compile(r"Conversion is failed for: (.+)")
_SHAPES = re.compile(r"shape|dimension|rank|broadcast|incompatible", re.IGNORECASE)


def useful(error: Exception) -> str:
    """Return the lines of a message that say what is wrong, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    return " ".join(kept)[:500] or type(error).__name__


def unconverted(error: Exception) -> str | None:
    """Return the operations that OpenVINO could not read, and why, or ``None`` if that is not the matter."""
    text = str(error)
    if unknown := _UNCONVERTED.findall(text):
        return ", ".join(unknown)
    failed = ", ".join(_FAILED.findall(text))
    return f"{failed} ({useful(error)})" if failed else None


def is_about_shapes(message: str) -> bool:
    """Return whether operators found tensors that do not fit each other: the sender of the tensors can mend that."""
    return _SHAPES.search(message) is not None
