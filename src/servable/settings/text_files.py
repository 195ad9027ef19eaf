"""Files in protobuf's text format: read, and remembered with the places of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError, invalid_argument, not_found
from servable.protos import text_format
from servable.protos.text_locations import FieldPath, Place, field_places


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A message, and where it was read. What came over the wire has neither a name nor places."""

    message: Any
    source: str = ""
    places: Mapping[FieldPath, Place] = field(default_factory=dict)

    def place(self, *path: str | int) -> str:
        """Return ``file:line:column: `` of a field, or of the nearest one around it that was written; else ""."""
        if not self.source:
            return ""
        for length in range(len(path) - len(path) % 2, 0, -2):
            found = self.places.get(path[:length])
            if found is not None:
                return f"{self.source}:{found}: "
        return f"{self.source}: "

    def wrong(self, error: str, *path: str | int) -> ServingError:
        """Return INVALID_ARGUMENT with the place of the field that it is about in front."""
        return invalid_argument(f"{self.place(*path)}{error}")


def read_text_message(path: str | Path, message_class: Any, *, allow_unknown: bool = False) -> TextMessage:
    """Return what a file holds. NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT with file, line, column and field.

    ``allow_unknown`` passes over fields that the message does not have.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise not_found(f"cannot read {path}: No such file or directory") from None
    except OSError as error:
        code = Code.PERMISSION_DENIED if isinstance(error, PermissionError) else Code.INVALID_ARGUMENT
        raise ServingError(code, f"cannot read {path}: {error.strerror}") from None
    # These words stand in TensorFlow Serving's log, where scripts look for them.
    source = f"Error parsing text-format {message_class.DESCRIPTOR.full_name}: {path}"
    try:
        message = text_format.parse(data, message_class, source, allow_unknown=allow_unknown)
    except ValueError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from None
    return TextMessage(message, str(path), field_places(data.decode().removeprefix("\ufeff")))


def first_field(path: Path) -> str:
    """Return the name of the first field in a file, whatever message it is of; "" if there is none."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    return next((str(key[0]) for key in field_places(text.removeprefix("\ufeff"))), "")
