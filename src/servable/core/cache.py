"""Where what can be made again is kept: plans, forms, fits, environments. Deleting it costs only time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Return this user's folder: ``$XDG_CACHE_HOME/servable``, by default ``~/.cache/servable``. It may not exist."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named, "servable") if named else Path.home() / ".cache" / "servable"
    except RuntimeError:  # nobody has a home here
        return Path(tempfile.gettempdir(), f"servable-{os.getuid()}")
