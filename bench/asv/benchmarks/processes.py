"""What it takes to be there: the command line's help, and an import of the client."""

from __future__ import annotations

import subprocess
import sys


class Processes:
    timeout = 60

    def time_help(self) -> None:
        subprocess.run([sys.executable, "-m", "servable", "--help"], check=True, stdout=subprocess.DEVNULL)

    def time_import_client(self) -> None:
        subprocess.run([sys.executable, "-c", "from servable import Client; Client"], check=True)

    def track_modules_of_help(self) -> int:
        """How many modules are imported before ``--help`` is printed."""
        code = "import sys, servable.cli; servable.cli.build_parser(); print(len(sys.modules))"
        return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
