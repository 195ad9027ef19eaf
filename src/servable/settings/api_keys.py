"""The file of API keys: ``[[keys]]`` in TOML, each with a name, a key or its digest, and what it is good for."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servable.core.errors import invalid_argument, not_found
from servable.listeners.keys import Grant
from servable.settings.tables import refuse_unknown

KEYS = {
    "name": "what the key is called in errors",
    "key": "the key itself, of 16 characters or more",
    "sha256": "instead of the key: its SHA-256 digest in hexadecimal",
    "models": "the names of the models it is for; by default all",
    "admin": "whether it may change what is served; by default not",
}
SHORTEST = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_api_keys(path: Path) -> dict[bytes, Grant]:
    """Return what each key is good for, by the key's digest. Errors name the file and the key."""
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise not_found(f"cannot read the API keys in {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise invalid_argument(f"{path}: no TOML: {error}") from None
    refuse_unknown(document, {"keys"}, "table", str(path))
    tables = document.get("keys", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise invalid_argument(f"{path}: expected tables, each under a line [[keys]]")
    grants: dict[bytes, Grant] = {}
    for number, table in enumerate(tables, 1):
        digest, grant = _entry(table, f"{path}: keys[{number}]")
        if digest in grants:
            raise invalid_argument(f"{path}: {grants[digest].name!r} and {grant.name!r} are the same key")
        grants[digest] = grant
    return grants


def _entry(table: Mapping[str, Any], where: str) -> tuple[bytes, Grant]:
    refuse_unknown(table, KEYS, "key", where)
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise invalid_argument(f"{where}: name: expected a text, not {name!r}")
    where = f"{where} ({name})"
    models = table.get("models")
    if models is not None and (not isinstance(models, list) or not all(isinstance(one, str) for one in models)):
        raise invalid_argument(f"{where}: models: expected a list of names, not {models!r}")
    admin = table.get("admin", False)
    if type(admin) is not bool:
        raise invalid_argument(f"{where}: admin: expected true or false, not {admin!r}")
    return _digest(table, where), Grant(name, None if models is None else frozenset(models), admin)


def _digest(table: Mapping[str, Any], where: str) -> bytes:
    key, digest = table.get("key"), table.get("sha256")
    if (key is None) == (digest is None):
        raise invalid_argument(f"{where}: expected one of key and sha256")
    if digest is not None:
        if not isinstance(digest, str) or _DIGEST.fullmatch(digest.lower()) is None:
            raise invalid_argument(f"{where}: sha256: expected 64 hexadecimal digits")
        return bytes.fromhex(digest)
    # Never shown: a message may end in a log.
    if not isinstance(key, str) or len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise invalid_argument(f"{where}: key: expected {SHORTEST} printable ASCII characters or more, no spaces")
    return hashlib.sha256(key.encode()).digest()
