"""Writes docs/reference/flags.md from the declared options: ``python -m servable.cli.flags_page [--check]``."""

from __future__ import annotations

import sys
from pathlib import Path

from servable.settings import ENVIRONMENT_PREFIX, option_default, option_fields

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "flags.md"


def page() -> str:
    """Return the page."""
    lines = [
        "# Flags of `servable serve`",
        "",
        "Generated from `settings.ServeSettings` by `make flags`; do not edit. A flag wins over the environment",
        f"variable (`{ENVIRONMENT_PREFIX}` and the name in capitals), which wins over the default. Booleans take",
        "`--flag`, `--flag=true` and `--flag=false`.",
        "",
        "| flag | default | what |",
        "| --- | --- | --- |",
    ]
    for item in option_fields():
        choices = item.metadata["choices"]
        what = item.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
        lines.append(f"| `--{item.name}` | {option_default(item) or ''} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the page, or with ``--check`` say whether it is what would be written."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
