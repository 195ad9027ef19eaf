"""Writes ``sync_client.py`` from ``async_client.py``: each public coroutine gets a method that waits for it.

python -m servable.client.generate [--check]
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("async_client.py")
TARGET = Path(__file__).with_name("sync_client.py")

HEADER = '''"""The synchronous client. Generated from ``async_client.py`` by ``make sync-client``; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self

from servable.client.async_client import DEFAULT_TIMEOUT_S, AsyncClient
from servable.client.background import Background
from servable.client.prediction import Prediction
from servable.core.signatures import Signature
from servable.core.status import VersionStatus


class Client:
    """{summary}

    The synchronous form of ``AsyncClient``: each method waits for the coroutine of the same name. It may be used from
    several threads, and inside a running event loop (a notebook) too.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        ca: str | PathLike[str] = "",
        certificate: str | PathLike[str] = "",
        key: str | PathLike[str] = "",
        api_key: str = "",
    ) -> None:
        self._background = Background()
        self._client = self._background.call(
            _opened(url, timeout_s=timeout_s, ca=ca, certificate=certificate, key=key, api_key=api_key)
        )
'''

FOOTER = '''
    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections and the thread behind this client."""
        self.close()
        self._background.stop()


async def _opened(url: str, **options: Any) -> AsyncClient:
    return AsyncClient(url, **options)
'''


def generate(source: str) -> str:
    """Return the text of the synchronous client."""
    tree = ast.parse(source)
    client = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "AsyncClient")
    summary = (ast.get_docstring(client) or "").splitlines()[0]
    methods = [
        _method(node, source)
        for node in client.body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    return HEADER.replace("{summary}", summary) + "".join(methods) + FOOTER


def _method(node: ast.AsyncFunctionDef, source: str) -> str:
    lines = source.splitlines()
    first = node.body[0]
    assert isinstance(first, ast.Expr), f"{node.name} has no docstring"
    assert first.end_lineno is not None
    text = "\n".join(lines[node.lineno - 1 : first.end_lineno]).replace("async def ", "def ", 1)
    text = text.replace("-> AsyncGenerator[", "-> Generator[").replace(", None]:", ", None, None]:")
    yields = any(isinstance(each, ast.Yield) for each in ast.walk(node))
    arguments = node.args
    passed = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args) if argument.arg != "self"]
    passed += [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        passed.append(f"**{arguments.kwarg.arg}")
    call = f"self._client.{node.name}({', '.join(passed)})"
    returns = "" if isinstance(node.returns, ast.Constant) else "return "
    return f"\n{text}\n        {returns}self._background.{'iterate' if yields else 'call'}({call})\n"


def main() -> int:
    """Write the file, or with ``--check`` say whether it is what would be written."""
    fresh = generate(SOURCE.read_text())
    fresh = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "-"], input=fresh, capture_output=True, text=True, check=True
    ).stdout
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text() == fresh else 1
    TARGET.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
