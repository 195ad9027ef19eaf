"""``python -m servable``."""

from __future__ import annotations

import sys

from servable.cli import main

sys.exit(main())
