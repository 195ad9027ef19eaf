"""Writes what docs/reference has of the declared options: ``python -m servable.cli.flags_page [--check]``."""

from __future__ import annotations

import sys
from pathlib import Path

from servable.settings import ENVIRONMENT_PREFIX, default_text, option_fields
from servable.settings.schema import schema_text

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = REFERENCE / "flags.md"
SCHEMA = REFERENCE / "servable.schema.json"


def page() -> str:
    """Return the page."""
    lines = [
        "# Flags of `servable serve`",
        "",
        "Generated from `settings.ServeSettings` by `make flags`; do not edit. A flag wins over the environment",
        f"variable (`{ENVIRONMENT_PREFIX}` and the name in capitals), that over [`servable.toml`](servable-toml.md),",
        "that over the default. Booleans take `--flag`, `--flag=true` and `--flag=false`.",
        "",
        "| flag | default | what |",
        "| --- | --- | --- |",
    ]
    for item in option_fields():
        choices = item.metadata["choices"]
        what = item.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
        lines.append(f"| `--{item.name}` | {default_text(item) or ''} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the files, or with ``--check`` say whether they are what would be written."""
    generated = {PAGE: page(), SCHEMA: schema_text()}
    if "--check" in sys.argv[1:]:
        return 0 if all(path.read_text() == text for path, text in generated.items()) else 1
    for path, text in generated.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
