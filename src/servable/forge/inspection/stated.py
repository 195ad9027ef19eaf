"""Signatures that stand in ``servable.toml`` beside an artifact whose format has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from servable.core.signatures import Signature

SETTINGS_FILE = "servable.toml"


def stated_signatures(path: Path) -> Mapping[str, Signature]:
    """Return the signatures of the settings beside a file, none where there are no such settings."""
    settings = path.parent / SETTINGS_FILE
    if not settings.is_file():
        return MappingProxyType({})
    from servable.engines.signature_settings import read_signature_settings

    return read_signature_settings(settings)
